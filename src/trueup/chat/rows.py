"""Rows that trainers take as they are: token ids and labels of `template`, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trueup.chat.template import Chat, Encoded, Refused
from trueup.chat.tokens import IGNORED, KINDS, LEFT_OUT
from trueup.errors import PreflightError

Row = dict[str, Any]

CARRIED = ("weight", "scale", "soft", "person", "up")  # columns that say how a row counts in the loss


@dataclass
class Findings:
    """Which rows have which kind of fault (a key of `tokens.KINDS`)."""

    ids: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, list[str]] = field(default_factory=dict)

    def note(self, name: str, kind: str, detail: str = "") -> None:
        names = self.ids.setdefault(kind, [])
        if not names or names[-1] != name:
            names.append(name)
        if detail and detail not in self.details.setdefault(kind, []):
            self.details[kind].append(detail)

    def left_out(self) -> list[str]:
        """The ids of rows that do not train, sorted."""
        return sorted({name for kind in LEFT_OUT for name in self.ids.get(kind, [])})

    def line(self, kind: str, total: int) -> str:
        """A kind in words, with how many rows have it."""
        names = self.ids[kind]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        details = self.details.get(kind, [])
        detail = f" ({'; '.join(details[:3])})" if details else ""
        return f"{KINDS[kind].says}{detail}: {len(names)} of {total} samples ({shown})"


@dataclass
class Prepared:
    """What a trainer is given. `rows` go into its dataset; `encoded` says of each what it holds: one conversation, or
    those of a pair, the chosen first. `found` is over all `total` rows, those that were left out as well.
    """

    rows: list[Row] = field(default_factory=list)
    encoded: list[tuple[Encoded, ...]] = field(default_factory=list)
    found: Findings = field(default_factory=Findings)
    total: int = 0
    num_turns_not_trained: int = 0  # assistant turns before the last

    def refuse(self, stage: str) -> None:
        """Raise PreflightError, naming every kind at once, when faults would ruin the stage or nothing is left."""
        refuse(stage, self.found, self.total, nothing_left=not self.rows)


def refuse(stage: str, found: Findings, total: int, *, nothing_left: bool = False) -> None:
    """Raise PreflightError when a kind of fault is in more of `total` rows than it may be."""
    stopping = [
        kind
        for kind, names in found.ids.items()
        if len(set(names)) > KINDS[kind].stops_above * total or (nothing_left and kind in LEFT_OUT)
    ]
    if stopping:
        raise PreflightError(
            f"preflight, {stage}",
            found="\n  ".join(found.line(kind, total) for kind in stopping),
            next_step="; ".join(dict.fromkeys(KINDS[kind].cure for kind in stopping)),
        )


def demonstrations(
    chat: Chat,
    rows: Iterable[Row],
    max_length: int,
    *,
    train_on: Literal["last", "all"] = "last",
    num_shots: int = 0,
) -> Prepared:
    """SFT's rows {id, input_ids, labels} of rows {id, messages, tools}, the last message the assistant's.

    `train_on` all labels every assistant turn but those of the `num_shots` examples at the beginning.
    """
    prepared = Prepared()
    for row in rows:
        messages = row["messages"]
        first = 2 * num_shots + (messages[0]["role"] == "system")
        turns = sum(message["role"] == "assistant" for message in messages[first:])

        def encode(row: Row = row, first: int = first) -> tuple[Encoded, ...]:
            if train_on == "all":
                return (chat.dialogue(row["messages"], row.get("tools"), first=first),)
            return (chat.answer(row["messages"][:-1], row["messages"][-1], row.get("tools")),)

        sides = _encoded(prepared, chat, row["id"], messages, encode)
        if sides is None:
            continue
        (one,) = sides
        if all(label == IGNORED for label in one.labels[:max_length]):
            prepared.found.note(row["id"], "beyond")
            continue
        if train_on == "last":
            prepared.num_turns_not_trained += turns - 1
        _keep(prepared, sides, {"id": row["id"], "input_ids": one.ids, "labels": one.labels}, max_length)
    return prepared


def pairs(chat: Chat, rows: Iterable[Row], max_length: int, *, whole: bool = False) -> Prepared:
    """Rows {id, chosen_ids, rejected_ids, weight} of the pairs of `collect`; `prompt_ids` beside them for DPO.

    The columns `CARRIED` of a pair are kept. `whole`, for the reward model: each side is the whole conversation, and a
    pair with a side longer than `max_length` is left out, since a score is read at the end.
    """
    prepared = Prepared()
    for number, row in enumerate(rows):
        name = f"{row['prompt_id']}/{number}"
        texts = [*row["prompt"], *({"content": row[side]} for side in ("chosen", "rejected"))]

        def encode(row: Row = row) -> tuple[Encoded, ...]:
            return chat.encode(row, "chosen"), chat.encode(row, "rejected")

        sides = _encoded(prepared, chat, name, texts, encode)
        if sides is None:
            continue
        chosen, rejected = sides
        if whole and max(len(chosen.ids), len(rejected.ids)) > max_length:
            prepared.found.note(name, "too_long")
        elif chosen.start >= max_length:
            prepared.found.note(name, "beyond")
        elif chosen.ids[:max_length] == rejected.ids[:max_length]:
            prepared.found.note(name, "equal")
        else:
            columns = (
                {"chosen_ids": chosen.ids, "rejected_ids": rejected.ids}
                if whole
                else {"prompt_ids": chosen.prompt, "chosen_ids": chosen.answer, "rejected_ids": rejected.answer}
            )
            carried = {column: row[column] for column in CARRIED if column in row}
            _keep(prepared, sides, {"id": name} | carried | columns, max_length)
    return prepared


def scored(chat: Chat, rows: Iterable[Row], max_length: int) -> Prepared:
    """Rows {id, chosen_ids, rejected_ids, weight, person, up} of thumbs, for the reward model.

    Both sides are the answer, so that thumbs and pairs fit into one batch; it is computed once. As with pairs, what is
    longer than `max_length` is left out.
    """
    prepared = Prepared()
    for number, row in enumerate(rows):
        name = f"{row['prompt_id']}/thumb {number}"
        texts = [*row["prompt"], {"content": row["completion"]}]

        def encode(row: Row = row) -> tuple[Encoded, ...]:
            one = chat.encode(row)
            return one, one

        sides = _encoded(prepared, chat, name, texts, encode)
        if sides is None:
            continue
        ids = sides[0].ids
        if len(ids) > max_length:
            prepared.found.note(name, "too_long")
            continue
        carried = {column: row[column] for column in CARRIED if column in row}
        _keep(prepared, sides, {"id": name} | carried | {"chosen_ids": ids, "rejected_ids": ids}, max_length)
    return prepared


def together(first: Prepared, second: Prepared) -> Prepared:
    """What one trainer is given of two kinds of rows."""
    found = Findings()
    for some in (first.found, second.found):
        for kind, names in some.ids.items():
            found.ids.setdefault(kind, []).extend(names)
        for kind, details in some.details.items():
            found.details.setdefault(kind, []).extend(details)
    rows, encoded = [*first.rows, *second.rows], [*first.encoded, *second.encoded]
    return Prepared(rows, encoded, found, first.total + second.total)


def thumbs(chat: Chat, rows: Iterable[Row], max_length: int) -> Prepared:
    """KTO's rows {id, prompt_ids, completion_ids, label, weight} of the thumbs of `collect`."""
    prepared = Prepared()
    for row in rows:
        texts = [*row["prompt"], {"content": row["completion"]}]

        def encode(row: Row = row) -> tuple[Encoded, ...]:
            return (chat.encode(row),)

        sides = _encoded(prepared, chat, row["uid"], texts, encode)
        if sides is None:
            continue
        (one,) = sides
        if one.start >= max_length:
            prepared.found.note(row["uid"], "beyond")
            continue
        kept = {"id": row["uid"], "label": row["label"], "weight": row["weight"]}
        _keep(prepared, sides, kept | {"prompt_ids": one.prompt, "completion_ids": one.answer}, max_length)
    return prepared


def with_mismatched(rows: Sequence[Row], batch_size: int) -> list[Row]:
    """KTO's rows with KL_completion_ids: in each batch, the completion of the row before, the last one's for the first.

    The KL of Ethayarajh et al. 2024 is estimated from prompts and completions that do not belong together.
    """
    made: list[Row] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        made += [row | {"KL_completion_ids": batch[i - 1]["completion_ids"]} for i, row in enumerate(batch)]
    return made


def _encoded(
    prepared: Prepared, chat: Chat, name: str, messages: Sequence[Row], encode: Any
) -> tuple[Encoded, ...] | None:
    """The conversations of a row, their notes written down; None where the template refuses it."""
    prepared.total += 1
    special = chat.tokenizer.all_special_tokens
    if any(token in (message.get("content") or "") for message in messages for token in special):
        prepared.found.note(name, "text")
    try:
        sides: tuple[Encoded, ...] = encode()
    except Refused as refused:
        prepared.found.note(name, refused.kind, refused.detail)
        return None
    for note in dict.fromkeys(note for side in sides for note in side.notes):
        begins = str(messages[-1].get("content"))[:60]
        seen = note in prepared.found.ids
        prepared.found.note(name, note, f"such as {begins!r}" if note == "answer_lost" and not seen else "")
    if not all(side.finished for side in sides):
        prepared.found.note(name, "unfinished")
    return sides


def _keep(prepared: Prepared, sides: tuple[Encoded, ...], row: Row, max_length: int) -> None:
    if any(len(side.ids) > max_length for side in sides):
        prepared.found.note(row["id"], "cut")
    prepared.rows.append(row)
    prepared.encoded.append(sides)
