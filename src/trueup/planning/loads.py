"""What a stage holds in memory and how much it computes: what the planners of several stages share.

Each stage's own planner is in its file, as `Stage.plan`: from the section's values, lengths and the run file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trueup.planning.memory import Load as Load  # stages take both from here

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths
    from trueup.run.run_file import RunFile
    from trueup.run.stage import Stage

ANSWER_TOKENS = 48  # a sampled answer that ends by itself, where nothing better is known
PAIRS_PER_PROMPT = 1.5  # of four answers, where no feedback is there yet
FALLBACK_ROWS = 100  # where a file is not there yet


@dataclass(frozen=True)
class Work:
    """What a stage computes: positions trained on, positions read without gradients, and tokens sampled."""

    trained_tokens: float = 0
    read_tokens: float = 0
    sampled_tokens: float = 0
    sampled_at_once: int = 1  # rows


Values = dict[str, Any]
Planned = tuple[Load, Work]


def plan(stage: Stage, run: RunFile, lengths: Lengths) -> Planned | None:
    """(memory load, work) of a stage; None for one that loads no model, such as collect."""
    if stage.plan is None:
        return None
    planned: Planned | None = stage.plan(run.section(stage.name).model_dump(), lengths, run)
    return planned


def longest_prompt(lengths: Lengths) -> int:
    """Tokens of the longest prompt; 256 where the file is not there yet."""
    return lengths.longest_prompt or 256


def pairs(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    """Of a stage that trains on pairs and reads a frozen reference once."""
    return _pairs(values, lengths, run, score_head=False)


def scored_pairs(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    """Of a stage that trains a score head on pairs; alone, it needs one pass over them."""
    load, work = _pairs(values, lengths, run, score_head=True)
    once, members = work.trained_tokens / values["num_train_epochs"], values.get("members", 1)
    if values.get("kind") == "head":
        return load, Work(read_tokens=once)
    if members > 1:  # one after another; each then scores the answers, for all to be on one scale
        return load, Work(trained_tokens=members * work.trained_tokens, read_tokens=members * once)
    return load, work


def reward_adapters(values: Values, run: RunFile) -> int:
    """How many adapters the reward model is that a section's method optimizes: several of kind `lora`, else one."""
    if values["reward_model_weight"] == 0:
        return 0
    return adapters_of_reward(run)


def adapters_of_reward(run: RunFile) -> int:
    """How many adapters the run's reward model has: heads on the frozen policy share one."""
    return int(section_value(run, "reward", "members")) if section_value(run, "reward", "kind") == "lora" else 1


def _pairs(values: Values, lengths: Lengths, run: RunFile, *, score_head: bool) -> Planned:
    length = values["max_length"]
    load = Load(
        rows=2 * values["per_device_train_batch_size"],
        tokens=length,
        shared=min(lengths.shared_tokens, length),
        labelled=0 if score_head else length,
        score_head=score_head,
        num_adapters=1 if score_head else 2,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
        offloads=values["activation_offloading"],
        accumulates=values["gradient_accumulation_steps"] > 1,
        optim=values["optim"],
    )
    rounds = run.round if values.get("rounds") == "all" else 1
    tokens = 2 * PAIRS_PER_PROMPT * rounds * (lengths.num_prompts or FALLBACK_ROWS) * dialogue(lengths, run, length)
    reference = 0 if score_head else tokens
    return load, Work(trained_tokens=tokens * values["num_train_epochs"], read_tokens=reference)


def sampling(values: Values, lengths: Lengths, prompts: int, num_adapters: int) -> Planned:
    """Of a stage that samples answers to `prompts` prompts."""
    prompt, new = longest_prompt(lengths), values["max_new_tokens"]
    answers = prompts * values["num_completions"]
    load = Load(
        num_adapters=num_adapters,
        cache_rows=min(values["batch_size"], answers),
        cache_tokens=prompt + new,
        cache_prompt=prompt,
        copy=copy_of(values["engine"]),
    )
    work = Work(
        read_tokens=answers * (lengths.prompt_tokens or prompt),
        sampled_tokens=answers * min(new, ANSWER_TOKENS),
        sampled_at_once=load.cache_rows,
    )
    return load, work


def copy_of(engine: str) -> Literal["none", "merged", "room"]:
    """The copy of the base in 16 bits that an engine decodes on: `auto` makes one on a GPU where it fits."""
    return "merged" if engine == "merged" else "room" if engine == "auto" else "none"


def dialogue(lengths: Lengths, run: RunFile, limit: int) -> float:
    """Mean tokens of a prompt with a sampled answer."""
    answer = min(section_value(run, "sample", "max_new_tokens"), ANSWER_TOKENS)
    return float(min((lengths.prompt_tokens or 64) + answer, limit))


def section_value(run: RunFile, section: str, key: str) -> Any:
    """The value of a key in the section of another stage."""
    return getattr(run.section(section), key)
