"""People as judges: a blind A/B in Label Studio, sides balanced, until the answer to the goal is known."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.evaluation import sequential
from trueup.feedback import reach
from trueup.feedback.judgement import Comparison, Judgement
from trueup.feedback.project import Project, open_project
from trueup.feedback.questions import questions
from trueup.judges.protocol import Judged, Question
from trueup.run.files import read_json, write_json
from trueup.run.run_file import LabelStudioConfig
from trueup.run.stage import Waiting

PROGRESS = "progress.json"
FOLDER = "ab"  # in the folder of the run
WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}  # of side A


@dataclass(frozen=True)
class People:
    """Whoever judges the project `title` of `folder` in Label Studio; `each` people are asked about each prompt.

    They are asked in an order drawn by `seed`, and no more once they have answered whether the first answers win as
    often as `wanted`.
    """

    settings: LabelStudioConfig
    folder: Path
    title: str
    wanted: float
    each: int = 1
    guidelines: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return "people, who did not know which answer was whose"

    def judge(self, asked: Sequence[Question]) -> Judged:
        """What they said of the first question of each prompt; None of what they were not asked, or did not answer.

        Answers of the same text are a tie, and nobody is asked. Raises Waiting until the answer is known or all is
        judged, unless the settings say to wait for that.
        """
        first = _first_of_each_prompt(asked)
        rows = [row for i in first for row in self._rows(asked[i])]
        whose = {rows[2 * k + side]["uid"]: (i, side) for k, i in enumerate(first) for side in (0, 1)}
        order = list(dict.fromkeys(row["prompt_id"] for row in rows))
        random.Random(f"{self.seed} ab").shuffle(order)  # noqa: S311 - no secret
        place = {prompt: number for number, prompt in enumerate(order)}
        rows.sort(key=lambda row: place[row["prompt_id"]])
        made = questions(rows, "pairwise", self.seed)
        same = {i for i in first if asked[i].first.text == asked[i].second.text}
        project = open_project(self.settings, self.folder, "pairwise")
        known = project.make(self.title, self.each, self.guidelines)
        project.client.publish(known[0], made.tasks)
        while True:
            found = project.labels(known, made.uids, each=self.each, wanted=0)  # whether it is enough is decided here
            said = labels([one for _, one in found.said], whose)
            reached = max((place[asked[i].prompt_id] for i, _ in said), default=-1)
            alone = {i for i in first if i not in same} <= {i for i, _ in said}
            ties = {i for i in same if alone or place[asked[i].prompt_id] < reached}  # each in its turn, as if asked
            done = sequential.by_prompt([*((i, 0.5) for i in ties for _ in range(self.each)), *said], self.each)
            answer, total = sequential.answer(done, self.wanted), len(first)
            more = 0 if answer != "open" else min(total - len(done), _more(done, self.wanted, total))
            notes = progress(done, self.wanted, total)
            now = {"labelled": len(done), "wanted": len(done) + more, "notes": notes}
            write_json(self.folder.parent / PROGRESS, now)
            if answer != "open" or len(done) == total:
                (self.folder.parent / PROGRESS).unlink()  # of another round, it would say what is not so
                return self._judged(asked, ties, said, answer, found.counts())
            if not self.settings.wait:
                raise Waiting(len(done), len(done) + more, self._address(project, known[0]), notes)
            time.sleep(self.settings.poll_s)

    def _judged(
        self,
        asked: Sequence[Question],
        ties: set[int],
        said: list[tuple[int, float]],
        answer: sequential.Answer,
        notes: dict[str, Any],
    ) -> Judged:
        by_question: dict[int, list[float]] = {}
        for number, worth in said:
            by_question.setdefault(number, []).append(worth)
        found: list[float | None] = [None] * len(asked)
        for i in ties:
            found[i] = 0.5
        for i, some in by_question.items():
            if len(some) >= self.each:
                found[i] = sum(some[: self.each]) / self.each
        kept = {"labels": len(said), "same_text": len(ties), "answer": answer, "each": self.each}
        return Judged(found, {"people": kept | {k: v for k, v in notes.items() if v}})

    def _rows(self, question: Question) -> list[dict[str, Any]]:
        """The two answers as rows of completions. Their uids, which a browser is sent, do not tell whose they are."""
        both = (question.first, question.second)
        names = [repr((self.seed, question.prompt_id, side, answer.text)) for side, answer in enumerate(both)]
        return [
            {
                "uid": hashlib.sha256(name.encode()).hexdigest()[:20],
                "prompt_id": question.prompt_id,
                "messages": question.messages,
                "completion": answer.text,
                "finish": "eos" if answer.finished else "length",
            }
            for name, answer in zip(names, both, strict=True)
        ]

    def _address(self, project: Project, number: int) -> str:
        url = project.client.url if self.settings.url else reach.address_of(self.settings.data_dir)
        return f"{url}/projects/{number}/data?labeling=1"


def progress(done: Sequence[float], wanted: float, total: int) -> list[str]:
    """How far people are, in words: what is known after `done` prompts of `total`, and how many more are likely."""
    found, more = sequential.interval(done), sequential.num_more(done, wanted)
    share = f"{found['estimate']:.0%} ({found['low']:.0%} to {found['high']:.0%})" if done else "nothing"
    lines = [f"people prefer the aligned answer in {share} so far; the goal is {wanted:.0%}"]
    left = total - len(done)
    if more is None or more > left:
        likely = "more than anybody should be asked" if more is None else f"about {more:,} more"
        lines.append(f"{likely} would be needed at this rate, and {left:,} are left: the answer may stay open")
    elif more:
        lines.append(f"about {more:,} more prompts are likely to be needed")
    return lines


def how_far(folder: Path) -> str:
    """What `judge` noted in `folder`, above that of the round, when it last looked; empty where it has not."""
    known = read_json(folder / PROGRESS) or {}
    if not {"labelled", "wanted"} <= known.keys():
        return ""
    first = f"waiting for people's A/B labels {known['labelled']}/{known['wanted']}"
    return "; ".join([first, *known.get("notes", [])])


def labels(judgements: Sequence[Judgement], whose: Mapping[str, tuple[int, int]]) -> list[tuple[int, float]]:
    """(question, what a comparison says of its first answer), oldest first; of a person the last one counts.

    `whose` says of the uid of an answer which question it is of, and whether it is its first (0) or second (1).
    Comparisons of other answers are left out: they were sampled before.
    """
    last: dict[tuple[str, str], Comparison] = {}
    for one in judgements:
        if isinstance(one, Comparison) and one.a in whose:
            last.pop((one.uid, one.annotator), None)
            last[one.uid, one.annotator] = one
    found = []
    for one in last.values():
        number, side = whose[one.a]
        found.append((number, WORTH[one.preferred] if side == 0 else 1 - WORTH[one.preferred]))
    return found


def _more(done: Sequence[float], wanted: float, total: int) -> int:
    more = sequential.num_more(done, wanted)
    return total if more is None else max(more, 1)


def _first_of_each_prompt(asked: Sequence[Question]) -> list[int]:
    seen: dict[str, int] = {}
    for i, question in enumerate(asked):
        seen.setdefault(question.prompt_id, i)
    return list(seen.values())
