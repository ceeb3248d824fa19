"""Two models side by side in the terminal, without their names: the person says which answer is better."""

from __future__ import annotations

import random

from trueup.talk.answers import Answer
from trueup.talk.roster import Model
from trueup.talk.said import comparison
from trueup.talk.terminal import JUDGING, Leave, Terminal, typed

VOTES = {"a": "a", "b": "b", "t": "tie", "tie": "tie", "bad": "both_bad", "s": "", "skip": ""}


def compare(terminal: Terminal, first: Model, second: Model, seed: int) -> dict[str, int]:
    """Both models answer every message, on sides drawn by `seed`; the person says which answer is better.

    Which was which is told after each vote, and the conversation goes on with the better answer. Returns how often
    each was preferred, when the person leaves.
    """
    wins = {first.name: 0, second.name: 0, "tie": 0, "both_bad": 0}
    try:
        while True:
            text = typed(terminal)
            if text.startswith("/"):
                if text.split()[0] in (*JUDGING, "/model"):
                    terminal.tell("in a blind comparison, you are asked which answer is better", "yellow")
                else:
                    terminal.command(text, None)
                continue
            if (asked := terminal.ask(text)) is None:
                continue
            sides = [first, second]
            random.Random(f"{seed} {terminal.number}").shuffle(sides)  # noqa: S311 - no secret, and repeatable
            a, b = (terminal.say(f"answer {label}", side, *asked) for label, side in zip("AB", sides, strict=True))
            vote = _vote(terminal, a, b)
            if vote:
                terminal.keep([comparison(*_uids(a, b), vote, terminal.who, terminal.session)], [a, b])
                wins[{"a": a.model.name, "b": b.model.name}.get(vote, vote)] += 1
                terminal.tell(f"A was {a.model.name}, B was {b.model.name}")
            goes_on = b if vote == "b" else a
            terminal.history.add(text, goes_on.text)
            terminal.tell(f"the conversation goes on with answer {'B' if goes_on is b else 'A'}")
    except Leave:
        return wins


def _vote(terminal: Terminal, a: Answer, b: Answer) -> str:
    """One of `COMPARED`; empty where the person does not say, or there is nothing to compare."""
    if a.text == b.text:
        terminal.tell("both answers are the same text: nothing to compare")
        return ""
    while True:
        said = terminal.line("which is better? a, b, tie, bad (both), skip: ").strip().lower()
        if said in ("/quit", "/exit"):
            raise Leave
        if said in VOTES:
            return VOTES[said]
        terminal.tell("a or b; tie: equally good; bad: both are bad; skip: no judgement", "yellow")


def _uids(a: Answer, b: Answer) -> tuple[str, str]:
    return a.row()["uid"], b.row()["uid"]
