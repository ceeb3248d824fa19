"""Three hidden truths of different kinds over the same answers: a taste, a form, and what was asked.

`taste` is the hidden preference of the demo's simulated annotators. `format` looks at how an answer is written, and at
nothing that it says. `asked` depends on the prompt: three kinds of customers want three kinds of answers, so that an
answer that is good under one prompt is bad under another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trueup.demo import hidden_preference

NUMBER = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand|half|dozen)\b",
    re.IGNORECASE,
)
DIRECT = re.compile(r"(yes|no|we do|we don't|of course|sure|certainly|you can|not )\b", re.IGNORECASE)
OPEN = re.compile(r"(how|what|what's|which|why|when|where|can you (explain|recommend))\b", re.IGNORECASE)
COMMON = re.compile(
    r"(which|what|when|where|does|have|your|with|from|that|this|they|them|into|about|some|just|very|much|been|being"
    r"|will|would|could|should|there|their|then|than|only|also|more|most|make|made|want|need|like|take|long|good|best"
    r"|anything|something|keep|know|tell|come|came|goes|going|sell|offer)"
)


@dataclass(frozen=True)
class Task:
    """A truth, and the threshold of the mean person; a `unit` of worth is as far apart as 1 is in the demo's taste."""

    truth: Callable[[str, str], float]  # of a prompt and an answer
    middle: float
    unit: float = 1.0


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its closing mark."""
    return [one for one in re.split(r"(?<=[.!?])\s+", text.strip()) if one]


def named(text: str) -> set[str]:
    """The words of a text that say what it is about, without a plural s."""
    return {word.rstrip("s") for word in re.findall(r"[a-z]{4,}", text.lower()) if not COMMON.fullmatch(word)}


def form(prompt: str, answer: str) -> float:
    """Two sentences, a short first one, no number, at most one comma, and no exclamation mark."""
    found = sentences(answer)
    return (
        1.0 * (len(found) == 2)
        + 0.8 * (bool(found) and len(found[0].split()) <= 12)
        + 1.0 * (not NUMBER.search(answer))
        + 0.6 * (answer.count(",") <= 1)
        - 0.8 * ("!" in answer)
    )


def kind_of(prompt: str) -> str:
    """Whether a customer has a `trouble` (does not begin with a question), or a question that is `open` or `closed`."""
    first = sentences(prompt)[0]
    if not first.endswith("?"):
        return "trouble"
    return "open" if OPEN.match(first) else "closed"


def asked(prompt: str, answer: str) -> float:
    """What the customer wants who wrote this prompt.

    One in trouble wants warmth first and a question back, and no advice yet. An open question wants something to do,
    the thing that was asked about in the first sentence, and no question back. A closed question wants a yes or no
    first, and a brief answer without a question back.
    """
    found, brief = sentences(answer), len(answer.split()) <= 25
    first = found[0] if found else ""
    asks = answer.strip().endswith("?")
    acts = hidden_preference.components(answer).acts
    kind = kind_of(prompt)
    if kind == "trouble":
        return 1.2 * bool(hidden_preference.WARM.search(first)) + 1.0 * asks - 0.8 * acts
    if kind == "open":
        return 1.2 * acts + 0.8 * bool(named(prompt) & named(first)) - 0.8 * asks - 0.6 * brief
    return 1.0 * bool(DIRECT.match(answer.strip())) + 1.0 * brief - 0.8 * asks - 0.6 * acts


def taste(prompt: str, answer: str) -> float:
    """The demo's hidden preference, which reads no prompt."""
    return hidden_preference.score(answer)


TASKS = {"taste": Task(taste, 0.5), "format": Task(form, 1.7, 1.25), "asked": Task(asked, 0.5, 1.2)}
