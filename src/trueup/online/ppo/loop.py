"""PPO, told once: prove the reference; then, step by step, roll out, score, update, write down."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import torch

from trueup import ranks
from trueup.errors import ReferenceProofError, StageError
from trueup.models import base
from trueup.online.log import Log, describe, summary
from trueup.online.ppo import mathematics, state
from trueup.online.ppo.batch import Batch, collate
from trueup.online.ppo.roles import Roles
from trueup.online.ppo.rollout import collect
from trueup.online.ppo.update import anneal, new_optimizer, new_scaler, update
from trueup.online.prompts import Prompt, prompts_of_step
from trueup.online.rewards import Part
from trueup.online.settings import Settings
from trueup.progress import bars
from trueup.run.stage import Metrics
from trueup.training import proof

KL_ROUNDING = 1e-3  # nats per token: mean KL of policy and reference before step 1; equal weights and batches give 0


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
    checkpoints: Path | None = None,
    keep_checkpoints: int = 2,
) -> Metrics:
    """Train the policy of `roles`, saved in `start`, for `num_steps` steps or until KL says stop.

    Goes on from the newest whole checkpoint below `checkpoints` (by default in `out`), of which the newest
    `keep_checkpoints` are kept, and ends bit for bit where an uninterrupted run would. Several ranks share the work of
    each step, and all have the same weights after it; the number of ranks changes no step but by rounding, and by the
    random numbers that the rollouts draw. Raises ReferenceProofError when the reference is not what is in `start`,
    StageError when a loss or reward is not finite.
    """
    refuse_idle_ranks(settings)
    proven = prove(roles, start, settings.micro_batch_size)
    optimizer = new_optimizer(roles, settings)
    checkpoints = checkpoints or out / "checkpoints"
    first_step, numbers = state.restore(checkpoints, roles, optimizer)
    kl_coef: float = numbers.get("kl_coef", settings.kl_coef)
    scaler = new_scaler(roles.device, base.dtype_of(roles.model))
    scaler.load_state_dict(numbers.get("loss_scale") or scaler.state_dict())  # it has none where it was not in fp16
    log = Log(out, settings.report_to, name, first_step)
    stopped, ran = "", Counter[str]()
    with bars("ppo") as bar:
        task = bar.add_task("steps", total=settings.num_steps, completed=first_step)
        for step in range(first_step, settings.num_steps):
            seed_everything(step_seed := seed * 1_000_003 + step)
            anneal(optimizer, settings, step)
            began = time.monotonic()
            chosen = prompts_of_step(prompts, settings.rollout_batch_size, step, seed)
            experience = collect(roles, chosen, reward, settings, kl_coef, step_seed)
            ran[experience.ran] += len(experience.prompts)
            row = describe(experience)
            if settings.stop_kl is not None and row["kl"] > settings.stop_kl:
                stopped = f"KL {row['kl']:.3f} nats per token is above stop_kl {settings.stop_kl} at step {step + 1}"
                break
            rolled_out = time.monotonic()
            row |= update(roles, optimizer, scaler, experience, settings, step_seed)
            ended = time.monotonic()
            row |= {
                "step": step + 1,
                "kl_coef": kl_coef,
                "rollout_s": rolled_out - began,
                "update_s": ended - rolled_out,
                "step_s": ended - began,
                "tokens_per_s": row["num_tokens"] / (ended - began),
            }
            if settings.kl_target is not None:
                kl_coef = mathematics.next_kl_coefficient(kl_coef, row["kl"], settings.kl_target)
            row = log.write(row, settings.kl_target)
            for sentence in row["warnings"]:
                bar.console.print(f"step {step + 1}: {sentence}")
            if step % settings.completions_steps == 0:
                asked = [prompt.messages for prompt in experience.prompts]
                log.write_completions(step + 1, asked, experience.texts, experience.scores.tolist())
            if (step + 1) % settings.save_steps == 0 or step + 1 == settings.num_steps:
                numbers = {"kl_coef": kl_coef, "loss_scale": scaler.state_dict()}
                state.save(checkpoints, step + 1, roles, optimizer, numbers, keep_checkpoints)
            bar.update(task, advance=1, description=f"reward {row['reward']:.2f} KL {row['kl']:.3f}")
    rows = log.finish()
    ended_as: Metrics = {"resumed_from_step": first_step, "stopped": stopped, "kl_coef": kl_coef}
    ended_as["num_torn_log_lines"] = log.num_torn
    ended_as["rollouts_by"] = dict(ran)  # what sampled how many completions, in this process
    return summary(rows) | ended_as | {"reference_proof": proven}


def refuse_idle_ranks(settings: Settings) -> None:
    """Raise StageError where a minibatch has fewer completions than there are ranks."""
    size = -(-settings.rollout_batch_size // settings.num_mini_batches)
    smallest = (settings.rollout_batch_size - 1) % size + 1
    if smallest < ranks.count():
        raise StageError(
            "ppo",
            found=f"a minibatch of {smallest} of {settings.rollout_batch_size} completions, for {ranks.count()} ranks",
            expected="at least one completion for each rank",
            next_step="raise ppo.rollout_batch_size, or start fewer processes",
        )


def prove(roles: Roles, start: Path, micro_batch_size: int) -> Metrics:
    """The reference proof; and on its probes, before step 1: KL = 0, and ratio = 1 in micro-batches of any shape.

    No more rows than a micro-batch holds are in memory at once.
    """
    proven = proof.prove(roles.model, start)
    probe = proof.load_probe(start)
    labelled = probe["labels"] != -100
    prompts, completions = [], []
    for ids, labels, real in zip(probe["input_ids"], labelled, probe["attention_mask"].bool(), strict=True):
        prompts.append(ids[~labels & real].tolist())
        completions.append(ids[labels].tolist())
    pad_id = roles.tokenizer.pad_token_id
    roles.model.eval()

    def rows(first: int, end: int) -> Batch:
        return collate(prompts[first:end], completions[first:end], pad_id).to(roles.device)

    kls, log_ratios = [], []
    with torch.no_grad():
        for first in range(0, len(prompts), micro_batch_size):
            end = min(first + micro_batch_size, len(prompts))
            batch = rows(first, end)
            logps = roles.policy(batch)[0]
            kls.append(mathematics.kl(logps, roles.reference_logps(batch))[batch.mask])
            for some in (slice(first, first + 1), slice(first + 1, end)):  # one alone, then the others
                if some.start < some.stop:
                    part = rows(some.start, some.stop)
                    again, before = roles.policy(part)[0], logps[some.start - first : some.stop - first]
                    log_ratios.append((again - before[:, : again.shape[1]])[part.mask].abs())
    kl, log_ratio = torch.cat(kls).mean().item(), torch.cat(log_ratios).mean().item()
    for what, found, rounding in (("KL", kl, KL_ROUNDING), ("log ratio", log_ratio, proof.ROUNDING)):
        if not abs(found) <= rounding:
            raise ReferenceProofError(
                f"reference proof, {start}",
                found=f"{what} {found:.6f} nats per token before step 1",
                expected=f"0 within {rounding}",
                next_step=f"trueup {start.name} RUN.yaml --rebuild",
            )
    return proven | {"first_kl": kl, "mean_abs_first_log_ratio": log_ratio}


def seed_everything(seed: int) -> None:
    """Python's and torch's generators, for the rollout and for reward functions that draw."""
    random.seed(seed)
    torch.manual_seed(seed)
