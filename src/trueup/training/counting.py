"""How much each judgement counts in a loss: a disputed pair, a single thumb, and whose threshold a thumb goes by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal

from trueup.errors import FeedbackError
from trueup.run.artifacts import Feedback

Row = dict[str, Any]
Disputed = Literal["weight", "scale", "soft"]

FEWEST = 20  # thumbs of a person who gets a threshold of their own
OTHERS = "everybody else"


def disputed(pairs: Iterable[Row], how: Disputed) -> list[Row]:
    """Pairs of `collect` with `weight`, `scale` and `soft`, as `preference_loss` takes them.

    The pairs of a prompt share its weight evenly. The `margin` 2q - 1 of a pair, q the share of people who prefer the
    chosen answer, then is a factor of its weight, the scale of the difference, or makes the label q. Pairs of earlier
    versions have no margin, and count whole.
    """
    made = []
    for pair in pairs:
        margin = pair.get("margin", 1.0)
        even = {"weight": pair["weight"], "scale": 1.0, "soft": 1.0, "person": -1, "up": 0}
        if how != "weight":
            even["weight"] = pair["weight"] / margin
            even |= {"scale": margin} if how == "scale" else {"soft": (1 + margin) / 2}
        made.append(pair | even)
    return made


def of_rounds(rounds: Sequence[Feedback]) -> tuple[list[Row], dict[str, int]]:
    """The training pairs of several rounds, the earliest first, and how many of the earlier rounds there are.

    Earlier pairs of prompts that the last round holds out are left out; and where the same two answers were compared
    again later, the last comparison counts.
    """
    *earlier, last = rounds
    now = last.pairs("train")
    if not earlier:
        return now, {"earlier": 0, "held_out_now": 0, "compared_again": 0}
    held_out = {row["prompt_id"] for row in (*last.pairs("held_out"), *last.rows("held_out"))}
    found: dict[Hashable, Row] = {}
    num_earlier = num_held_out = 0
    for one in earlier:
        pairs = one.pairs("train")
        kept = [pair for pair in pairs if pair["prompt_id"] not in held_out]
        num_earlier, num_held_out = num_earlier + len(pairs), num_held_out + len(pairs) - len(kept)
        found |= {_compared(pair): pair for pair in kept}
    compared = {_compared(pair) for pair in now}
    old = [pair for key, pair in found.items() if key not in compared]
    counts = {
        "earlier": len(old),
        "held_out_now": num_held_out,
        "compared_again": num_earlier - num_held_out - len(old),
    }
    return [*old, *now], counts


def _compared(pair: Row) -> Hashable:
    """Which answers to which prompt were compared, whichever was preferred."""
    return pair["prompt_id"], frozenset((pair["chosen"], pair["rejected"]))


def thumbs_in(rows: Iterable[Row]) -> list[Row]:
    """The rows of `collect` that say whether an answer is good: thumbs, and ratings that are one to KTO.

    A comparison, whose sides may be rows for KTO as well, says only which answer is better. Snapshots of earlier
    versions, which do not say who gave a thumb, do not tell the two apart.
    """
    return [row for row in rows if row.get("kind") != "comparison" and "annotator" in row]


def no_thumbs(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows of `collect` are not among `thumbs_in`, by why."""
    found = Counter(
        "a side of a comparison" if row.get("kind") == "comparison" else "of a snapshot that does not say who gave it"
        for row in rows
        if row.get("kind") == "comparison" or "annotator" not in row
    )
    return dict(found)


def single(thumbs: Sequence[Row], weight: float) -> tuple[list[Row], list[str]]:
    """Thumbs of `collect` as `thumb_loss` takes them, each of this `weight`, and the people by their number `person`.

    Whoever gave fewer than 20 thumbs, or all of one kind, shares a threshold with everybody else of these: a threshold
    of few thumbs would explain them all by itself.
    """
    said: dict[str, Counter[bool]] = {}
    for row in thumbs:
        said.setdefault(row["annotator"], Counter())[row["label"]] += 1
    alone = sorted(who for who, found in said.items() if found.total() >= FEWEST and len(found) == 2)
    people = [*alone, *([OTHERS] if len(alone) < len(said) else [])]
    number = {who: place for place, who in enumerate(people)}
    return [
        row
        | {"weight": weight, "scale": 1.0, "soft": 1.0, "up": int(row["label"])}
        | {"person": number.get(row["annotator"], len(people) - 1)}
        for row in thumbs
    ], people


def refuse_one_sided(pairs: Sequence[Row], thumbs: Sequence[Row]) -> None:
    """Raise FeedbackError where nothing says that an answer is better than another: no pair, and thumbs of one kind."""
    labels = {row["label"] for row in thumbs}
    if pairs or len(labels) > 1:
        return
    one_kind = f", and only thumbs {'up' if True in labels else 'down'}" if labels else ""
    raise FeedbackError(
        "feedback",
        found=f"no pairs to train on{one_kind}",
        expected="answers to one prompt of which one is preferred, or thumbs of both kinds",
        next_step="collect more judgements; kto, and reward with thumbs_weight above 0, use thumbs that make no pair",
    )


def became(
    pairs: Sequence[Row],
    thumbs: Sequence[Row],
    paired: Iterable[Row],
    alone: Iterable[Row],
    aside: dict[str, dict[str, int]],
) -> dict[str, dict[str, int]]:
    """What each pair and each thumb became in the reward model; the counts of either add up to all that was frozen.

    `pairs` and `thumbs` are those of the training prompts, `paired` and `alone` the rows of them that trained, whose
    ids end in their number. `aside` counts the other pairs and thumbs, by why they do not train.
    """
    kept, learned = ({int(row["id"].replace(" ", "/").rpartition("/")[2]) for row in some} for some in (paired, alone))
    in_pairs = {pairs[number].get(side) for number in kept for side in ("chosen_uid", "rejected_uid")}
    fates = {
        (True, True): "a pair and a thumb",
        (True, False): "a pair",
        (False, True): "a thumb",
        (False, False): "nothing",  # in no pair that trained, and too long or of no weight by themselves
    }
    singles = Counter(fates[row["uid"] in in_pairs, number in learned] for number, row in enumerate(thumbs))
    found = {
        "pairs": {"trained": len(kept), "left out": len(pairs) - len(kept), **aside["pairs"]},
        "thumbs": {**singles, **aside["thumbs"]},
    }
    return {kind: {fate: count for fate, count in some.items() if count} for kind, some in found.items()}
