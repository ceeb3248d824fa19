"""What each stage holds in memory and how much it computes, read from its section of the run file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.planning.lengths import Lengths
from trueup.planning.memory import Load
from trueup.run.run_file import RunFile

ANSWER_TOKENS = 48  # a sampled answer that ends by itself, where nothing better is known
PAIRS_A_PROMPT = 1.5  # of four answers, where no feedback is there yet
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


def plan(name: str, run: RunFile, lengths: Lengths) -> Planned | None:
    """(memory load, work) of stage `name`; None for one that loads no model, such as collect."""
    planner = PLANNERS.get(name)
    return None if planner is None else planner(run.section(name).model_dump(), lengths, run)


def longest_prompt(lengths: Lengths) -> int:
    return lengths.longest_prompt or 256


def _sft(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    length = values["max_length"]
    load = Load(
        rows=values["per_device_train_batch_size"],
        tokens=length,
        shared=min(lengths.shared_tokens, length),
        labelled=length,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
    )
    rows = lengths.num_demonstrations or FALLBACK_ROWS
    epochs = values["num_train_epochs"]
    tokens = rows * min(lengths.demonstration_tokens or length, length) * epochs
    held_out = values["held_out_fraction"]
    return load, Work(trained_tokens=tokens * (1 - held_out), read_tokens=tokens * held_out)


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
    )
    tokens = 2 * PAIRS_A_PROMPT * (lengths.num_prompts or FALLBACK_ROWS) * _dialogue(lengths, run, length)
    reference = 0 if score_head else tokens
    return load, Work(trained_tokens=tokens * values["num_train_epochs"], read_tokens=reference)


def _dpo(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    return _pairs(values, lengths, run, score_head=False)


def _reward(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    return _pairs(values, lengths, run, score_head=True)


def _kto(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    length = values["max_length"]
    load = Load(
        rows=values["per_device_train_batch_size"],
        tokens=length,
        shared=min(lengths.shared_tokens, length),
        labelled=length,
        num_adapters=2,
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
    )
    answers = (lengths.num_prompts or FALLBACK_ROWS) * _of(run, "sample", "num_completions")
    tokens = answers * _dialogue(lengths, run, length) * values["num_train_epochs"]
    return load, Work(trained_tokens=tokens, read_tokens=3 * tokens)  # reference, and both on mismatched answers


def _ppo(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    prompt = min(values["max_prompt_tokens"], longest_prompt(lengths))
    new = values["max_new_tokens"]
    own_value = values["value_on"] == "adapter"
    load = Load(
        rows=values["micro_batch_size"],
        tokens=prompt + new,
        shared=min(lengths.shared_tokens, prompt),
        labelled=new,
        num_adapters=2 + (values["reward_model_weight"] != 0) + own_value,
        num_trained=1 + own_value,
        checkpointing=values["gradient_checkpointing"],
        cache_rows=values["rollout_batch_size"],
        cache_tokens=prompt + new,
        cache_prompt=prompt,
        copy="merged" if values["engine"] == "merged" else "none",
    )
    rollouts = values["num_steps"] * values["rollout_batch_size"]
    tokens = rollouts * ((lengths.prompt_tokens or prompt) + min(new, ANSWER_TOKENS))
    work = Work(
        trained_tokens=tokens * values["num_ppo_epochs"] * (1 + own_value),
        read_tokens=tokens * 4,  # policy, reference, value, reward
        sampled_tokens=rollouts * min(new, ANSWER_TOKENS),
        sampled_at_once=values["rollout_batch_size"],
    )
    return load, work


def _grpo(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    prompt = min(values["max_prompt_tokens"], longest_prompt(lengths))
    new, rows = values["max_completion_length"], values["per_device_train_batch_size"]
    load = Load(
        rows=rows,
        tokens=prompt + new,
        shared=min(lengths.shared_tokens, prompt),
        labelled=new,
        num_adapters=2 + (values["reward_model_weight"] != 0),
        num_trained=1,
        checkpointing=values["gradient_checkpointing"],
        cache_rows=rows,
        cache_tokens=prompt + new,
        cache_prompt=prompt,
    )
    answers = values["max_steps"] * rows
    tokens = answers * ((lengths.prompt_tokens or prompt) + min(new, ANSWER_TOKENS))
    work = Work(
        trained_tokens=tokens * values["num_iterations"],
        read_tokens=2 * tokens,
        sampled_tokens=answers * min(new, ANSWER_TOKENS),
        sampled_at_once=rows,
    )
    return load, work


def _sampling(values: Values, lengths: Lengths, prompts: int, num_adapters: int) -> Planned:
    prompt, new = longest_prompt(lengths), values["max_new_tokens"]
    answers = prompts * values["num_completions"]
    load = Load(
        num_adapters=num_adapters,
        cache_rows=min(values["batch_size"], answers),
        cache_tokens=prompt + new,
        cache_prompt=prompt,
        copy="merged" if values["engine"] == "merged" else "none",
    )
    work = Work(
        read_tokens=answers * (lengths.prompt_tokens or prompt),
        sampled_tokens=answers * min(new, ANSWER_TOKENS),
        sampled_at_once=load.cache_rows,
    )
    return load, work


def _sample(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    return _sampling(values, lengths, lengths.num_prompts or FALLBACK_ROWS, num_adapters=1)


def _evaluate(values: Values, lengths: Lengths, run: RunFile) -> Planned:
    load, once = _sampling(values, lengths, lengths.num_held_out or FALLBACK_ROWS, num_adapters=3)
    read = 2 * once.read_tokens + 4 * (once.read_tokens + once.sampled_tokens)  # prompts; rewards and both of the KL
    return load, Work(read_tokens=read, sampled_tokens=2 * once.sampled_tokens, sampled_at_once=once.sampled_at_once)


def _export(values: Values, lengths: Lengths, run: RunFile) -> Planned | None:
    return (Load(copy="dequantized"), Work()) if values["merged"] else None


def _dialogue(lengths: Lengths, run: RunFile, limit: int) -> float:
    """Mean tokens of a prompt with a sampled answer."""
    answer = min(_of(run, "sample", "max_new_tokens"), ANSWER_TOKENS)
    return float(min((lengths.prompt_tokens or 64) + answer, limit))


def _of(run: RunFile, section: str, key: str) -> Any:
    return getattr(run.section(section), key)


PLANNERS: dict[str, Callable[[Values, Lengths, RunFile], Planned | None]] = {
    "sft": _sft,
    "sample": _sample,
    "reward": _reward,
    "dpo": _dpo,
    "kto": _kto,
    "ppo": _ppo,
    "grpo": _grpo,
    "evaluate": _evaluate,
    "export": _export,
}
