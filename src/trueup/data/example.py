"""What a row of any format says, in one typed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trueup.data.dialogue import Messages
from trueup.data.tools import Tool

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person said of a row's answer, or of its two answers.

    `value` is that of its `kind`: of a thumb, whether it is up; of a comparison a, b, tie or both_bad; of a rating a
    whole number from 1 to 5; of an edit the text.
    """

    kind: str  # thumb | comparison | rating | edit
    value: bool | int | str
    annotator: str = ""  # empty where the file does not say who
    updated_at: str = ""
    lead_time: float | None = None  # seconds
    comment: str = ""
    reasons: tuple[str, ...] = ()
    guidelines: str = ""


@dataclass(slots=True)
class Example:
    """What a row says. Which fields are set tells what it is good for.

    prompt alone: a prompt; prompt and completion: a demonstration; with `rejected`: a pair, `completion` being the
    chosen one; with `label`: a thumb; completion alone: plain text. `votes` are (for, against): people who chose
    `completion` and people who rejected it, or thumbs up and down. `tool_calls` are part of the completion, whose text
    may then be empty; `tools` are the functions that could be called.

    `verdicts` are what each person said, where the row tells them apart, of `completion` or of the two `sides`; `votes`
    count the same people. `one_question` says that they were asked together, so that the same texts in another row were
    asked about again. `barred` says why the row cannot be learned from, though its verdicts tell how far people agree.
    `unread` says in words which verdicts could not be read, beside those that could.
    """

    prompt: Messages
    completion: str | None = None
    rejected: str | None = None
    label: bool | None = None
    votes: tuple[int, int] = (1, 0)
    tools: list[Tool] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    sides: tuple[str, str] | None = None  # in the file's order; None: completion, then rejected
    one_question: bool = False
    barred: str = ""
    unread: tuple[str, ...] = ()

    @property
    def answer(self) -> dict[str, Any]:
        """The completion as the assistant's message."""
        calls = {"tool_calls": self.tool_calls} if self.tool_calls else {}
        return {"role": "assistant", "content": self.completion or ""} | calls

    @property
    def has_tools(self) -> bool:
        """Whether a chat template must know of tools to write this row."""
        return bool(self.tools or self.tool_calls) or any(
            turn["role"] == "tool" or "tool_calls" in turn for turn in self.prompt
        )
