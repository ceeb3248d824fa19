"""Judgements become training data: pairs for reward and DPO, single rows for KTO, demonstrations for SFT.

Each judgement is counted once, under what it became or why it became nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from trueup.errors import FeedbackError
from trueup.feedback import pairing
from trueup.feedback.judgement import KINDS, SIDES, Comparison, Edit, Judgement, Rating, Thumb
from trueup.feedback.preferences import single_rows, split_prompts
from trueup.feedback.votes import Vote, votes_in

Row = dict[str, Any]

REPLACED = "replaced by a later one of the same person"
UNKNOWN = "about completions that are not known"
PAIRS, ROWS, BOTH, NOTHING = "pairs", "rows", "pairs and rows", "nothing to learn"
TIES, BOTH_BAD, CONTRADICTED, SAME_TEXT = "ties", "both bad: two rows", "contradicted", "of identical texts"
EMPTY = "of an empty answer"
DEMONSTRATIONS, EDITED = "demonstrations", "pairs and demonstrations"

UP_FROM, DOWN_TO = 4, 2  # a rating from 4 is a thumb up to KTO, one down to 2 a thumb down; 3 says neither
SCALE = 4  # the difference of the best and the worst rating


@dataclass(frozen=True)
class Dataset:
    """Pairs and rows with their split, demonstrations, and counts of what was used, and of what was not and why.

    `became` says for each kind of judgement how many became what; its counts add up to all judgements. `not_trained_on`
    counts what people added to them, and nothing learns from: reasons and comments.
    """

    pairs: list[Row]
    rows: list[Row]
    demonstrations: list[Row]
    counts: dict[str, int]
    became: dict[str, dict[str, int]]
    num_prompts: int  # that have a judgement
    not_trained_on: dict[str, int]


class _Making:
    """What the judgements of one prompt have become so far."""

    def __init__(self, known: dict[str, Row], counts: Counter[str], became: dict[str, Counter[str]]) -> None:
        self.known, self.counts, self.became = known, counts, became
        self.pairs: list[Row] = []
        self.rows: list[Row] = []
        self.demonstrations: list[Row] = []

    def thumbs(self, votes: list[Vote]) -> None:
        """Up x down makes pairs, and each thumb is a row."""
        made = pairing.pairs(votes, self.known, self.counts)
        self._add("thumb", made, single_rows(votes, self.known, self.counts))
        paired = _in(made)
        self.became["thumb"].update(BOTH if vote.uid in paired else ROWS for vote in votes)

    def comparisons(self, said: list[Comparison], *, sides_are_thumbs: bool) -> None:
        """A pair's margin is (for - against) / all who compared the two, ties and both bad among them."""
        margins = pairing.margins_compared(said)
        unlearnable = {frozenset(pair): why for pair in margins if (why := self._why_not(pair))}
        agreed = {pair: m for pair, m in margins.items() if m > 0 and frozenset(pair) not in unlearnable}
        bad = {(one.annotator, uid): Vote(uid, one.annotator, False) for one in said for uid in _both_bad(one)}
        sides = [one for one in said if sides_are_thumbs and one.preferred in SIDES]
        votes = [
            Vote(uid, one.annotator, uid == {"a": one.a, "b": one.b}[one.preferred])
            for one in sides
            for uid in one.about
            if frozenset(one.about) not in unlearnable
        ]
        made = pairing.weighted(agreed, self.known)
        self._add("comparison", made, single_rows([*bad.values(), *votes], self.known, Counter()))
        paired = {frozenset(pair) for pair in agreed}
        for one in said:
            fate = _fate(one, paired, unlearnable)
            self.became["comparison"][
                {PAIRS: BOTH, CONTRADICTED: ROWS}.get(fate, fate) if sides_are_thumbs else fate
            ] += 1

    def ratings(self, said: list[Rating]) -> None:
        """Of two answers the one with the higher mean is chosen; the margin is the difference, as a share of SCALE."""
        margins = pairing.margins_rated([(one.uid, one.rating) for one in said], SCALE)
        made = pairing.weighted(
            {pair: margin for pair, margin in margins.items() if self._text(pair[0]) != self._text(pair[1])}, self.known
        )
        votes = [
            Vote(r.uid, r.annotator, r.rating >= UP_FROM) for r in said if r.rating >= UP_FROM or r.rating <= DOWN_TO
        ]
        self._add("rating", made, single_rows(votes, self.known, Counter()))
        paired = _in(made)
        for one in said:
            sided, compared = one.rating >= UP_FROM or one.rating <= DOWN_TO, one.uid in paired
            fate = (BOTH if sided else PAIRS) if compared else (ROWS if sided else NOTHING)
            self.became["rating"][fate] += 1

    def edits(self, said: list[Edit]) -> None:
        """The edited answer is chosen over the original; it is a demonstration as well, even where nothing changed."""
        changed = [one for one in said if one.text.strip() != self._text(one.uid).strip()]
        made = [
            {
                "prompt": self.known[one.uid]["messages"],
                "chosen": one.text,
                "rejected": self._text(one.uid),
                "weight": 1 / len(changed),
                "margin": 1.0,
                "chosen_uid": f"{one.uid} edited by {one.annotator}",
                "rejected_uid": one.uid,
                **pairing.as_sampled(self.known[one.uid], "rejected"),
            }
            for one in changed
        ]
        self._add("edit", made, [])
        for one in said:
            answer = {"role": "assistant", "content": one.text}
            self.demonstrations.append({"messages": [*self.known[one.uid]["messages"], answer], "uid": one.uid})
        self.became["edit"].update({EDITED: len(changed), DEMONSTRATIONS: len(said) - len(changed)})

    def _why_not(self, pair: tuple[str, str]) -> str:
        """Why nothing can be learned from the two; empty where something can."""
        texts = {self._text(uid) for uid in pair}
        return SAME_TEXT if len(texts) == 1 else "" if all(texts) else EMPTY

    def _text(self, uid: str) -> str:
        text: str = self.known[uid]["completion"]
        return text

    def _add(self, kind: str, pairs: list[Row], rows: list[Row]) -> None:
        self.pairs += [pair | {"kind": kind} for pair in pairs]
        self.rows += [row | {"kind": kind} for row in rows]


def build(
    judgements: Sequence[Judgement],
    completions: Iterable[Row],
    *,
    held_out: float = 0.15,
    seed: int = 0,
    sides_are_thumbs: bool = False,
) -> Dataset:
    """Split by prompt, then make examples of each person's last judgement of each kind on each completion or pair.

    The pairs that one kind of judgement gives for a prompt share its weight evenly, so that a prompt on which all agree
    weighs 1. With `sides_are_thumbs` the preferred side of a comparison is a thumb up to KTO as well, and the other one
    a thumb down. Raises FeedbackError when no judgement is about `completions`.
    """
    known = {row["uid"]: row for row in completions}
    last = last_judgements(judgements)
    usable = [one for one in last if all(uid in known for uid in one.about)]
    if not usable:
        raise FeedbackError("feedback", found="no judgement yet", expected="at least one", next_step="label some tasks")
    became: dict[str, Counter[str]] = defaultdict(Counter)
    for replaced, count in (Counter(one.kind for one in judgements) - Counter(one.kind for one in last)).items():
        became[replaced][REPLACED] += count
    for unknown, count in (Counter(one.kind for one in last) - Counter(one.kind for one in usable)).items():
        became[unknown][UNKNOWN] += count
    by_prompt: dict[str, list[Judgement]] = defaultdict(list)
    for one in usable:
        by_prompt[known[one.about[0]]["prompt_id"]].append(one)
    splits = split_prompts(list(by_prompt), held_out, seed)
    counts: Counter[str] = Counter(
        {
            "votes": _num(last, Thumb),
            "votes_replaced_by_a_later_one": _num(judgements, Thumb) - _num(last, Thumb),
            "votes_on_unknown_completions": _num(last, Thumb) - _num(usable, Thumb),
        }
    )
    pairs: list[Row] = []
    rows_by_prompt: list[list[Row]] = []
    demonstrations: list[Row] = []
    for prompt_id in sorted(by_prompt):
        common = {"prompt_id": prompt_id, "split": splits[prompt_id]}
        making = _Making(known, counts, became)
        said = by_prompt[prompt_id]
        if votes := votes_in(said):
            making.thumbs(votes)
        compared = [one for one in said if isinstance(one, Comparison)]
        making.comparisons(compared, sides_are_thumbs=sides_are_thumbs)
        making.ratings([one for one in said if isinstance(one, Rating)])
        making.edits([one for one in said if isinstance(one, Edit)])
        pairs += [common | pair for pair in making.pairs]
        rows_by_prompt.append([common | row for row in making.rows])
        demonstrations += making.demonstrations
    interleaved = [row for rank in zip_longest(*rows_by_prompt) for row in rank if row is not None]
    counts.update({"pairs": len(pairs), "rows": len(interleaved)})
    return Dataset(
        pairs,
        interleaved,
        demonstrations,
        dict(counts),
        {kind: dict(+became[kind]) for kind in KINDS if +became[kind]},
        len(by_prompt),
        {
            "reasons": sum(len(one.reasons) for one in usable),
            "comments": sum(bool(one.comment.strip()) for one in usable),
        },
    )


def one_sided(judgements: Sequence[Judgement], dataset: Dataset, next_step: str) -> FeedbackError | None:
    """The error of judgements that tell nothing apart: no pair, and no two kinds of thumbs."""
    labels = {row["label"] for row in dataset.rows}
    if dataset.pairs or len(labels) > 1:
        return None
    thumbs = [one for one in judgements if isinstance(one, Thumb)]
    if len(thumbs) == len(judgements):
        found = f"only thumbs {'up' if True in labels else 'down'}, {dataset.counts['votes']} of them"
        expected = "both kinds: alignment learns from the difference"
    else:
        found = f"{len(judgements)} judgements, and none prefers an answer to another ({in_words(dataset.became)})"
        expected = "some that do: alignment learns from the difference"
    return FeedbackError("collect", found=found, expected=expected, next_step=next_step)


def in_words(became: Mapping[str, Mapping[str, int]]) -> str:
    """How many judgements became what."""
    return "; ".join(
        f"{sum(found.values()):,} {kind}{'' if sum(found.values()) == 1 else 's'}: "
        + ", ".join(f"{what} {count:,}" for what, count in found.items())
        for kind, found in became.items()
    )


def last_judgements(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Each person's last judgement of each kind on each completion or pair, in the order in which they were given."""
    last = {(one.kind, one.annotator, one.uid): number for number, one in enumerate(judgements)}
    return [judgements[number] for number in sorted(last.values())]


def _num(judgements: Sequence[Judgement], kind: type[Judgement]) -> int:
    return sum(isinstance(one, kind) for one in judgements)


def _in(pairs: list[Row]) -> set[str]:
    return {pair[side] for pair in pairs for side in ("chosen_uid", "rejected_uid")}


def _both_bad(one: Comparison) -> tuple[str, ...]:
    return one.about if one.preferred == "both_bad" else ()


def _fate(one: Comparison, paired: set[frozenset[str]], unlearnable: Mapping[frozenset[str], str]) -> str:
    if one.preferred == "both_bad":
        return BOTH_BAD
    if one.preferred == "tie":
        return TIES
    sides = frozenset(one.about)
    return PAIRS if sides in paired else unlearnable.get(sides, CONTRADICTED)
