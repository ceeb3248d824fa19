"""Every vote: what the thumbs on a demo run's answers teach as pairs alone, and as pairs and single thumbs."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from label_parts.features import Answers
from label_parts.heads import Labels, accuracy, head_of, standard
from label_parts.people import demo_votes, told_apart, worth

SHARES = (0.25, 1.0)  # of the training prompts that are labelled
Row = dict[str, Any]

WAYS: dict[str, dict[str, Any]] = {
    "pairs, each weighing its margin": {"pairs": "weight"},
    "pairs, scaled margin": {"pairs": "scale"},
    "pairs, all alike": {"pairs": "hard"},
    "pairs and thumbs of weight 0.3": {"pairs": "weight", "thumbs": 0.3},
    "pairs and thumbs of weight 1": {"pairs": "weight", "thumbs": 1.0},
    "the same, one threshold for all": {"pairs": "weight", "thumbs": 1.0, "pooled": True},
    "thumbs alone": {"thumbs": 1.0},
}


def run(answers: Answers, folder: Path, draw: int) -> list[Row]:
    """Rows {run, draw, way, share, votes, pairs, accuracy} of one finished run, by features under its own SFT policy.

    Draw 0 is the votes that the run stored; every other draw is of simulated annotators of the demo hired anew.
    """
    from trueup.feedback import pairing
    from trueup.feedback.votes import Vote
    from trueup.run.artifacts import read_jsonl

    frozen = folder / "round-1/collect"
    train = {row["uid"] for row in read_jsonl(frozen / "rows.jsonl") if row["split"] == "train"}
    known = {row["uid"]: row for row in read_jsonl(folder / "round-1/sample/completions.jsonl")}
    row_of = {(p, t): i for i, (p, t) in enumerate(zip(answers.prompts, answers.texts, strict=True))}
    place = {uid: row_of[row["messages"][-1]["content"], row["completion"]] for uid, row in known.items()}
    said = demo_votes(list(known.values()), draw) if draw else read_jsonl(frozen / "annotations.jsonl")
    last = {(row["uid"], row["annotator"]): row["up"] for row in said}
    by_prompt: dict[str, list[Vote]] = defaultdict(list)
    for (uid, annotator), up in last.items():
        if uid in train:
            by_prompt[known[uid]["prompt_id"]].append(Vote(uid, annotator, up))
    people = sorted({vote.annotator for some in by_prompt.values() for vote in some})
    features = standard(answers.states, [not one for one in answers.held_out])
    values = worth(answers.texts)
    test = told_apart(answers.prompts, values, [i for i, held in enumerate(answers.held_out) if held])
    rows: list[Row] = []
    for share in SHARES:
        names = sorted(by_prompt)[: round(share * len(by_prompt))]
        votes = [vote for name in names for vote in by_prompt[name]]
        made = [pair for name in names for pair in pairing.pairs(by_prompt[name], known, Counter())]
        for way, how in WAYS.items():
            labels = Labels()
            for pair in made if "pairs" in how else ():
                even = pair["weight"] / pair["margin"]
                labels.pair(
                    place[pair["chosen_uid"]],
                    place[pair["rejected_uid"]],
                    weight={"weight": pair["weight"], "scale": even, "hard": 1.0}[how["pairs"]],
                    scale=pair["margin"] if how["pairs"] == "scale" else 1.0,
                )
            for vote in votes if "thumbs" in how else ():
                person = 0 if how.get("pooled") else people.index(vote.annotator)
                labels.thumb(place[vote.uid], person, vote.up, how["thumbs"])
            found = accuracy(features, head_of(features, answers.prompts, labels, seed=draw), test)
            rows.append(
                {"run": folder.parents[1].name, "draw": draw, "way": way, "share": share, "votes": len(votes)}
                | {"pairs": len(made), "accuracy": found}
            )
    return rows
