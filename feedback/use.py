"""What people said of answers while they used a model: appended as they say it, taken in by the next `collect`."""

from __future__ import annotations

import fcntl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback.judgement import Judgement, from_row, to_row
from trueup.feedback.sources import Pulled, Source
from trueup.run.files import append_jsonl, read_appended

Row = dict[str, Any]
Messages = list[dict[str, Any]]

FILE = "use.jsonl"
SOURCE = "use"  # what a completion, and the line of a judgement, that comes from here says of itself
LONGEST_NAME = 100  # characters


class Use:
    """`runs/<name>/store/use.jsonl`: a line for what one person said at one time, with the answers that it is about.

    An answer is a row as `sample` writes it, with `model`: which adapter gave it, such as round-1/dpo. One that was
    chosen among several has `best_of`: of how many (`n`), its `rank` from 1 on and its `reward`, and `by` which reward,
    whose files have `fingerprint`.
    """

    def __init__(self, store: Path) -> None:
        """`store` is the run's folder of that name, which is made when something is said."""
        self.path = store / FILE

    def add(self, judgements: Sequence[Judgement], completions: Sequence[Row]) -> None:
        """Keep what one person said about `completions`; on disk when this returns. Several processes may do so."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        said = {"judgements": [to_row(one) for one in judgements], "completions": list(completions)}
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            append_jsonl(self.path, [said])

    def said(self) -> tuple[list[tuple[list[Judgement], list[Row]]], int]:
        """([(judgements, the completions they are about)] of each line, number of lines that cannot be read)."""
        rows, num_broken = read_appended(self.path)
        found = []
        for row in rows:
            try:
                judgements = [one for line in row["judgements"] for one in from_row(line)]
                completions = [_checked(one) for one in row["completions"]]
            except (KeyError, TypeError, ValueError):
                num_broken += 1
            else:
                found.append((judgements, completions))
        return found, num_broken

    def num_judgements(self) -> int:
        """How many judgements were given so far."""
        return sum(len(judgements) for judgements, _ in self.said()[0])


def _checked(row: Any) -> Row:
    """A completion as it was kept. Raises KeyError, TypeError or ValueError where it is none."""
    texts = [row["uid"], row["prompt_id"], row["completion"], row["model"]]
    turns = [(message["role"], message["content"]) for message in row["messages"]]
    if not all(isinstance(text, str) for text in texts) or not turns:
        raise ValueError("no completion")
    _chosen(row)
    known: Row = row
    return known


def _chosen(row: Row) -> str:
    """Of how many answers this one was chosen, and by what; empty of one that was not."""
    return f"best of {row['best_of']['n']} by {row['best_of']['by']}" if "best_of" in row else ""


@dataclass(frozen=True)
class Beside:
    """A source, and beside what it gives what was said in use. `is_held_out` tells of the messages of a prompt.

    Judgements about held-out prompts are left out and counted: to train on them would spoil the verdict.
    """

    source: Source
    use: Use
    is_held_out: Callable[[Messages], bool]

    def publish(self) -> int:
        return self.source.publish()

    def pull(self) -> Pulled:
        """Raises what the source raises."""
        pulled = self.source.pull()
        said, num_broken = self.use.said()
        if not said and not num_broken:
            return pulled
        taken: list[Judgement] = []
        completions: dict[str, Row] = {}
        held_out, chosen = 0, Counter[str]()
        for judgements, about in said:
            if any(self.is_held_out(row["messages"]) for row in about):
                held_out += len(judgements)
                continue
            completions |= {row["uid"]: row | {"source": SOURCE} for row in about}
            taken += judgements
            chosen.update({kind: len(judgements) for kind in {*map(_chosen, about)} - {""}})
        models = {row["uid"]: row["model"] for row in completions.values()}
        notes = {
            "judgements": len(taken),
            "people": len({one.annotator for one in taken}),
            "answers": len(completions),
            "of_models": dict(Counter(_of(one, models) for one in taken)),
            "about_held_out_prompts": held_out,
            "lines_that_cannot_be_read": num_broken,
        } | ({"of_chosen_answers": dict(chosen)} if chosen else {})
        return replace(
            pulled,
            judgements=[*pulled.judgements, *taken],
            completions=[*completions.values(), *pulled.completions],  # of one uid, the sampled one is the last
            lines=[*pulled.lines, *({"source": SOURCE, "model": _of(one, models)} | to_row(one) for one in taken)],
            notes=pulled.notes | {"from_use": notes},
        )

    def note(self, line: str) -> None:
        self.source.note(line)


def _of(judgement: Judgement, models: dict[str, str]) -> str:
    """The model whose answer was judged, or the two of a comparison."""
    return " and ".join(sorted({models[uid] for uid in judgement.about}))


def in_words(found: Row) -> list[str]:
    """Lines on the figures `from_use` of a record; none where nothing was said in use."""
    if not found:
        return []
    models = ", ".join(f"{name} {count:,}" for name, count in found["of_models"].items())
    people = "1 person" if found["people"] == 1 else f"{found['people']:,} people"
    lines = {
        f"from use: {_many(found['judgements'])} of {people}, about answers of {models}": found["judgements"],
        f"from use, left out because they are about held-out prompts: {_many(found['about_held_out_prompts'])}": (
            found["about_held_out_prompts"]
        ),
        f"lines of store/{FILE} that cannot be read: {found['lines_that_cannot_be_read']:,}": (
            found["lines_that_cannot_be_read"]
        ),
    }
    lines |= {
        f"from use, about answers that are no samples of the model but the {kind}: {_many(number)}": number
        for kind, number in found.get("of_chosen_answers", {}).items()
    }
    return [line for line, number in lines.items() if number]


def since(use: Use, metrics: Row) -> str:
    """How many judgements were given in use since a snapshot with these metrics, in a sentence; empty when none."""
    before = metrics.get("from_use", {})
    new = use.num_judgements() - before.get("judgements", 0) - before.get("about_held_out_prompts", 0)
    return f"given in use since: {_many(new)}; to take them: --refresh" if new > 0 else ""


def _many(number: int) -> str:
    return "1 judgement" if number == 1 else f"{number:,} judgements"


def annotator(who: str | None, session: str) -> str:
    """How a person is called in judgements: by the name or id stated, else by the session; never a Label Studio id.

    Raises FeedbackError when `who` is no name.
    """
    if who is None:
        return f"{SOURCE}:anonymous-{session}"
    name = " ".join(who.split())
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise FeedbackError(
            "who", found=repr(who[:LONGEST_NAME]), expected=f"1 to {LONGEST_NAME} characters that can be printed"
        )
    return f"{SOURCE}:{name}"


def now() -> str:
    """This moment, as judgements have it."""
    return datetime.now(UTC).isoformat()
