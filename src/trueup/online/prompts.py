"""The prompts that rollouts start from: which are short enough, and which come at which step."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from trueup.chat import preflight
from trueup.chat.template import Chat
from trueup.data import read_prompts
from trueup.data.dialogue import Messages
from trueup.data.report import ReadReport, tell
from trueup.errors import DataError
from trueup.models import base
from trueup.run.stage import Context, Metrics


@dataclass(frozen=True)
class Prompt:
    """A prompt as messages and as token ids, with the generation prompt."""

    id: str
    messages: Messages
    ids: list[int]


def read(context: Context, tokenizer: Any, max_prompt_tokens: int, max_new_tokens: int) -> tuple[list[Prompt], Metrics]:
    """The prompts of the run file, and for the record how many were too long and how those begin.

    Raises DataError when there are none, or all are too long; PreflightError when one and `max_new_tokens` more do not
    fit the base's context.
    """
    from rich.console import Console
    from rich.markup import escape

    rows = read_prompts(context.run.data, seed=context.run.seed, report=(report := ReadReport()))
    read = tell(report)
    prompts, too_long = encode(tokenizer, rows, max_prompt_tokens)
    begin = [row["messages"][-1]["content"][:60] for row in too_long[:20]]
    if too_long:
        said = f"{len(too_long)} prompts are longer than {max_prompt_tokens} tokens and left out, such as {begin[0]!r}"
        Console().print(escape(said))
    named = ((prompt.id, prompt.messages) for prompt in prompts)
    left_out, warnings = [row["id"] for row in too_long], base.warnings(context.run.model)
    checked = preflight.check_prompts(tokenizer, named, left_out, context, max_new_tokens, warnings)
    return prompts, {
        "num_prompts": len(prompts),
        "num_prompts_too_long": len(too_long),
        "prompts_too_long": begin,
        "preflight": checked,
        "data": read,
    }


def encode(
    tokenizer: Any, rows: list[dict[str, Any]], max_prompt_tokens: int
) -> tuple[list[Prompt], list[dict[str, Any]]]:
    """(prompts, rows longer than the limit) of rows of {id, messages}. Raises DataError when no prompt is left."""
    chat = Chat(tokenizer)
    prompts, too_long = [], []
    for row in rows:
        ids = chat.prompt(row["messages"])
        if len(ids) > max_prompt_tokens:
            too_long.append(row)
        else:
            prompts.append(Prompt(row["id"], row["messages"], ids))
    if not prompts:
        raise DataError(
            "data.prompts",
            found=f"all {len(rows)} prompts are longer than {max_prompt_tokens} tokens",
            expected="shorter prompts",
            next_step="raise max_prompt_tokens",
        )
    return prompts, too_long


def prompts_of_step(prompts: list[Prompt], num_prompts: int, step: int, seed: int) -> list[Prompt]:
    """The `num_prompts` prompts of `step`: all of them in a new order every pass, a function of (seed, step) alone."""
    chosen = []
    for position in range(step * num_prompts, (step + 1) * num_prompts):
        number, place = divmod(position, len(prompts))
        order = list(range(len(prompts)))
        random.Random(f"{seed} {number}").shuffle(order)  # noqa: S311 - an order, not a secret
        chosen.append(prompts[order[place]])
    return chosen
