"""PPO, told once: prove the reference; then, step by step, roll out, score, update, write down."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch

from trueup.errors import DataError, ReferenceProofError
from trueup.ppo import mathematics, state
from trueup.ppo.batch import collate
from trueup.ppo.log import Log, describe
from trueup.ppo.rewards import Part
from trueup.ppo.roles import Roles
from trueup.ppo.rollout import Prompt, collect
from trueup.ppo.settings import Settings
from trueup.ppo.update import anneal, new_optimizer, update
from trueup.progress import bars
from trueup.stage import Metrics
from trueup.training import proof

KL_ROUNDING = 1e-3  # nats a token: mean KL of policy to reference before step 1; equal weights in equal batches give 0


def train(
    roles: Roles,
    prompts: list[Prompt],
    reward: list[Part],
    settings: Settings,
    *,
    start: Path,
    out: Path,
    seed: int,
    name: str,
) -> Metrics:
    """Train the policy of `roles`, saved in `start`, for `num_steps` steps or until KL says stop.

    Goes on from the newest whole checkpoint below `out`, and ends bit for bit where an uninterrupted run would. Raises
    ReferenceProofError when the reference is not what is in `start`, StageError when a loss or reward is not finite.
    """
    proven = prove(roles, start)
    optimizer = new_optimizer(roles, settings)
    first_step, numbers = state.restore(out / "checkpoints", roles, optimizer)
    kl_coef: float = numbers.get("kl_coef", settings.kl_coef)
    log = Log(out, settings, name, first_step)
    stopped = ""
    with bars("ppo") as bar:
        task = bar.add_task("steps", total=settings.num_steps, completed=first_step)
        for step in range(first_step, settings.num_steps):
            seed_everything(step_seed := seed * 1_000_003 + step)
            anneal(optimizer, settings, step)
            began = time.monotonic()
            chosen = prompts_of_step(prompts, settings.rollout_batch_size, step, seed)
            experience = collect(roles, chosen, reward, settings, kl_coef, step_seed)
            row = describe(experience)
            if settings.stop_kl is not None and row["kl"] > settings.stop_kl:
                stopped = f"KL {row['kl']:.3f} nats a token is above stop_kl {settings.stop_kl} at step {step + 1}"
                break
            rolled_out = time.monotonic()
            row |= update(roles, optimizer, experience, settings, step_seed)
            ended = time.monotonic()
            row |= {
                "step": step + 1,
                "kl_coef": kl_coef,
                "rollout_s": rolled_out - began,
                "update_s": ended - rolled_out,
                "tokens_per_s": row["num_tokens"] / (ended - began),
            }
            if settings.kl_target is not None:
                kl_coef = mathematics.next_kl_coefficient(kl_coef, row["kl"], settings.kl_target)
            row = log.write(row, settings)
            for sentence in row["warnings"]:
                bar.console.print(f"step {step + 1}: {sentence}")
            if step % settings.completions_steps == 0:
                log.write_completions(step + 1, experience)
            if (step + 1) % settings.save_steps == 0 or step + 1 == settings.num_steps:
                state.save(out / "checkpoints", step + 1, roles, optimizer, {"kl_coef": kl_coef})
            bar.update(task, advance=1, description=f"reward {row['reward']:.2f} KL {row['kl']:.3f}")
    return summary(log.finish()) | {"reference_proof": proven, "resumed_from_step": first_step, "stopped": stopped}


def prove(roles: Roles, start: Path) -> Metrics:
    """The reference proof; and on its probes, before step 1: KL = 0, and ratio = 1 in micro-batches of any shape."""
    from safetensors.torch import load_file

    proven = proof.prove(roles.model, start)
    probe = load_file(start / "probe.safetensors")
    labelled = probe["labels"] != -100
    prompts, completions = [], []
    for ids, labels, real in zip(probe["input_ids"], labelled, probe["attention_mask"].bool(), strict=True):
        prompts.append(ids[~labels & real].tolist())
        completions.append(ids[labels].tolist())
    pad_id = roles.tokenizer.pad_token_id
    roles.model.eval()
    with torch.no_grad():
        batch = collate(prompts, completions, pad_id).to(roles.device)
        logps = roles.policy(batch)[0]
        kl = mathematics.masked_mean(mathematics.kl(logps, roles.reference_logps(batch)), batch.mask).item()
        log_ratio = 0.0
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            alone = roles.policy(collate([prompt], [completion], pad_id).to(roles.device))[0][0]
            log_ratio = max(log_ratio, (alone - logps[i, : len(completion)]).abs().max().item())
    for what, found, rounding in (("KL", kl, KL_ROUNDING), ("log ratio", log_ratio, proof.TOLERANCE)):
        if not abs(found) <= rounding:
            raise ReferenceProofError(
                f"reference proof, {start}",
                found=f"{what} {found:.6f} nats before step 1",
                expected=f"0 within {rounding}",
                next_step="trueup status; then rebuild sft",
            )
    return proven | {"first_kl": kl, "max_abs_first_log_ratio": log_ratio}


def encode(tokenizer: Any, rows: list[dict[str, Any]], max_prompt_tokens: int) -> tuple[list[Prompt], list[str]]:
    """(prompts, ids of those longer than the limit) of rows of {id, messages}. Raises DataError when none is left."""
    prompts, too_long = [], []
    for row in rows:
        ids = tokenizer.apply_chat_template(
            row["messages"], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        if len(ids) > max_prompt_tokens:
            too_long.append(row["id"])
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


def seed_everything(seed: int) -> None:
    """Python's and torch's generators, for the rollout and for reward functions that draw."""
    random.seed(seed)
    torch.manual_seed(seed)


def summary(rows: list[dict[str, Any]]) -> Metrics:
    """First and last tenth of the run, for the record."""
    if not rows:
        return {"num_steps": 0}
    tenth = max(len(rows) // 10, 1)
    first, last = rows[:tenth], rows[-tenth:]
    means = {
        f"{when}_{name}": sum(row[name] for row in part) / tenth
        for when, part in (("first", first), ("last", last))
        for name in ("reward", "kl", "entropy", "length_tokens", "eos_rate", "explained_variance")
    }
    seconds = sum(row["rollout_s"] + row["update_s"] for row in rows)
    return means | {
        "num_steps": len(rows),
        "kl_coef": rows[-1]["kl_coef"],
        "tokens_per_s": sum(row["num_tokens"] for row in rows) / seconds,
        "train_s": round(seconds, 1),
        "num_warnings": sum(len(row["warnings"]) for row in rows),
    }
