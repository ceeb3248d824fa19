"""SIMULATED annotators, for the demo and tests only: real Label Studio users that vote over HTTP as a browser would.

Each is an account of its own, made through the organization's invitation link, with its own token, its own view of the
hidden preference and its own noise.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.demo import hidden_preference
from trueup.export.story import SIMULATED
from trueup.feedback import signup
from trueup.feedback.annotations import STAMP
from trueup.feedback.api import Api
from trueup.feedback.connection import Connection
from trueup.run.files import read_json, write_json

NAMES = ("simulated-one", "simulated-two", "simulated-three")
TIE = 0.2  # answers that differ by less are equally good to an annotator
STAR = 0.6  # the difference in worth that is one point of a rating
OVERLAP = 5  # the completions of every fifth prompt are judged by all three


@dataclass(frozen=True)
class SimulatedAnnotator:
    """One account, and how it judges."""

    name: str
    connection: Connection
    user: str  # the id that its annotations bear
    threshold: float
    noise: float  # standard deviation of what the mood of the moment adds to the score
    seed: int
    weights: tuple[float, float, float, float] = field(default=(1.0, 1.0, 0.6, 1.4))
    interface: str = "thumbs"
    guidelines: str = ""  # the version that the screen shows

    def likes(self, uid: str, answer: str) -> bool:
        """Up or down; the same uid gets the same verdict again."""
        return self._worth(uid, answer) > self.threshold

    def prefers(self, data: dict[str, Any]) -> str:
        """Which of two answers, on whichever side it is; or a tie, or both bad."""
        a, b = self._worth(data["uid_a"], data["a"]), self._worth(data["uid_b"], data["b"])
        if abs(a - b) < TIE:
            return "tie" if max(a, b) > self.threshold else "both_bad"
        return "a" if a > b else "b"

    def rates(self, uid: str, answer: str) -> int:
        """1 to 5, and 3 near the threshold between a thumb up and one down."""
        return min(5, max(1, round(3 + (self._worth(uid, answer) - self.threshold) / STAR)))

    def edits(self, answer: str) -> str:
        """The answer as this annotator would rather have it: with a warm word, and a question back."""
        found = hidden_preference.components(answer)
        warm = "" if found.warm else "Happy to help! "
        return f"{warm}{answer.strip()}{'' if found.asks else ' What do you need it for?'}"

    def judge(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """What this annotator enters on the screen that shows a task's `data`, and the guidelines' version."""
        stamp = [_control(STAMP, "textarea", {"text": [self.guidelines]})] if self.guidelines else []
        return [*self._verdict(data), *stamp]

    def _verdict(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        uid, answer = str(data["uid"]), str(data.get("response"))
        if "uid_a" in data:
            return [_choice("preference", self.prefers(data))]
        if self.interface == "rating":
            return [_choice("rating", str(self.rates(uid, answer)))]
        if self.interface == "edit":
            return [_control("edited", "textarea", {"text": [self.edits(answer)]})]
        return [_choice("thumb", "up" if self.likes(uid, answer) else "down")]

    def _worth(self, uid: str, answer: str) -> float:
        mood = random.Random(f"{self.seed}\0{self.name}\0{uid}").gauss(0, self.noise)  # noqa: S311 - no secret
        return hidden_preference.score(answer, self.weights) + mood


def _choice(name: str, value: str) -> dict[str, Any]:
    return _control(name, "choices", {"choices": [value]})


def _control(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": "response", "type": kind, "value": value}


def sign_up(admin: Connection, name: str) -> Connection:
    """A new user of the server by its invitation link, with a token of its own. Raises ServerError when refused."""
    return _account(admin, name).connection


def _account(admin: Connection, name: str) -> signup.Account:
    while True:
        email, password = f"{name}-{secrets.token_hex(3)}@trueup.local", secrets.token_urlsafe(12)
        if (account := signup.sign_up(admin, email, password, name)) is not None:
            return account


def hire(admin: Connection, seed: int, interface: str = "thumbs", guidelines: str = "") -> list[SimulatedAnnotator]:
    """Three simulated annotators with distinct accounts, thresholds and noise, who judge on a screen of ours.

    `guidelines` is the version that this screen shows.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    accounts = {name: _account(admin, name) for name in NAMES}
    return [
        SimulatedAnnotator(
            name=name,
            connection=accounts[name].connection,
            user=str(accounts[name].id),
            threshold=0.5 + draw.uniform(-0.2, 0.2),
            noise=0.45 + draw.uniform(-0.05, 0.05),
            seed=seed,
            interface=interface,
            guidelines=guidelines,
        )
        for name in NAMES
    ]


def note(store: Path, annotators: Sequence[SimulatedAnnotator]) -> None:
    """Write beside their judgements that these are programs, for whoever reads the judgements later."""
    known = (read_json(store / SIMULATED) or {}).get("annotators", [])
    write_json(store / SIMULATED, {"annotators": [*known, *(annotator.user for annotator in annotators)]})


def _seats(tasks: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """(which annotator, task) of what nobody judged: as many annotators as the task is given to, in turn by prompt.

    Where each task is given to one, all three judge every fifth prompt.
    """
    prompts: dict[str, int] = {}
    seats = []
    alone = all(task.get("overlap", 1) == 1 for task in tasks)
    for task in tasks:
        number = prompts.setdefault(json.dumps(task["data"]["messages"]), len(prompts))
        people = task.get("overlap", 1) if number % OVERLAP or not alone else len(NAMES)
        if not task.get("annotations"):
            seats += [((number + seat) % len(NAMES), task) for seat in range(min(people, len(NAMES)))]
    return seats


def num_votes(tasks: list[dict[str, Any]]) -> int:
    """How many votes `vote` will give."""
    return len(_seats(tasks))


def vote(
    annotators: Sequence[SimulatedAnnotator],
    tasks: list[dict[str, Any]],
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Judge every task that nobody judged yet, four requests at a time. Returns the votes given."""
    clients = {annotator.name: Api(annotator.connection) for annotator in annotators}
    jobs = [(annotators[seat], task) for seat, task in _seats(tasks)]

    def one(job: tuple[SimulatedAnnotator, dict[str, Any]]) -> None:
        annotator, task = job
        result = annotator.judge(task["data"])
        clients[annotator.name].send(
            "voting", lambda sdk: sdk.annotations.create(id=int(task["id"]), result=result, lead_time=3.0)
        )
        progress(1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, jobs))
    return len(jobs)
