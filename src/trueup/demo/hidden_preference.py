"""The hidden preference of the SIMULATED annotators, for the demo and tests only. Nothing that trains may import it.

Four components of meaning and style, each 0 or 1, none of them length: warmth toward the customer, a question back
that helps to choose, an action the customer can take, and no advertising.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WARM = re.compile(
    r"\b(sorry|happy to|glad|thank you|thanks for|pleasure|delighted|love to|we'd love|lovely|wonderful|no worries"
    r"|don't worry|no problem|enjoy|welcome|great that|what a|how nice|nice that|of course|understandable|joy)\b",
    re.IGNORECASE,
)
HYPE = re.compile(
    r"\b(best|amazing|amazingly|incredible|insane\w*|unbelievabl\w*|perfect\w*|magic|miracle|masterpiece|ultimate|epic"
    r"|mind|craz\w+|fantastic|stunning|legendary|absolutely|totally|gorgeous|dream|greatest|genius|flawless|planet"
    r"|universe|galaxy|ever|super|coolest|luxurious|awesome|every single)\b",
    re.IGNORECASE,
)
ACTION = re.compile(
    r"(?:^|[.!?;:,] )(?:(?:then|and|or|so|please|first) )*(bring|send|reply|call|write|drop|stop|come|take|try|use|wash"
    r"|dry|check|ask|book|measure|look|leave|keep|pull|fill|put|show|choose|pick|rub|turn|set|tell|let us|order|tie"
    r"|clean|open|hang|store|press|cut|wipe|brush|weigh|sign|visit|give)\b",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Components:
    """What a reader with this taste notices in one answer."""

    warm: bool
    asks: bool
    acts: bool
    hype: bool


def components(answer: str) -> Components:
    """Read one answer."""
    text = answer.strip()
    return Components(
        warm=bool(WARM.search(text)),
        asks=text.endswith("?"),
        acts=bool(ACTION.search(text)),
        hype=len(HYPE.findall(text)) + text.count("!") >= 2,
    )


def score(answer: str, weights: tuple[float, float, float, float] = (1.0, 1.0, 0.6, 1.4)) -> float:
    """How much somebody with this taste likes the answer; `weights` of warm, asks, acts and (against) hype."""
    found = components(answer)
    warm, asks, acts, hype = weights
    return warm * found.warm + asks * found.asks + acts * found.acts - hype * found.hype
