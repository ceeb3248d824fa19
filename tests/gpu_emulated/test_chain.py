"""The whole chain on an emulated GPU: fp16 with a gradient's scaler, and bf16; two GPUs are visible.

Each stage checkpoints its activations in one of the two chains, and not in the other. `make test` leaves the stages of
TEST_ALL out of one of the two; all stages go through both in `make test-all`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emulated
import plain
import pytest
import torch
from safetensors.torch import load_file

pytestmark = emulated.needs_compiler

CHAINS: dict[str, dict[str, Any]] = {
    "fp16": {"capability": (7, 5), "count": 2, "checkpointing": ("sft", "reward", "ppo")},
    # CUDA starts before trueup can hide the second GPU from it
    "bf16": {"capability": (8, 0), "count": 2, "started": True, "checkpointing": ("dpo", "kto", "grpo")},
}
TRAINED = {"sft", "reward", "dpo", "kto", "ppo", "grpo"}
OTHERS = {"sample", "collect", "evaluate", "export"}
TEST_ALL = {"fp16": {"kto", "grpo"}, "bf16": {"ppo", "evaluate", "export"}}
# Syncs of the last optimizer step, at most, by the file that causes them; a new one has to have a reason. rows.py: how
# long each row is. head.py, roles.py and the `?` of autograd: which tokens are labelled. finite.py: whether a gradient
# is finite, or the scale of fp16 has fallen. trainers.py: what is logged. update.py, batch.py: a rollout to the device,
# a micro-batch at a time, and its means back. common.py: TRL's own, of GRPO; its others sample, score and prove.
SYNCS = {
    "sft": {"gpu/rows.py": 3, "training/head.py": 2, "training/finite.py": 1, "?": 1},
    "reward": {"gpu/rows.py": 3, "training/trainers.py": 3, "training/finite.py": 1},
    "dpo": {"gpu/rows.py": 3, "training/head.py": 2, "training/trainers.py": 3, "training/finite.py": 1, "?": 1},
    "kto": {"gpu/rows.py": 12, "training/head.py": 8, "training/trainers.py": 7, "training/finite.py": 1, "?": 1},
    "ppo": {  # two micro-batches, each once for the policy and once for the value
        **{"gpu/rows.py": 8, "online/ppo/roles.py": 10, "online/ppo/batch.py": 10},
        **{"online/ppo/update.py": 16, "training/finite.py": 2},
    },
    "grpo": {
        **{"training/common.py": 40, "gpu/rows.py": 7, "training/head.py": 4, "training/finite.py": 1, "?": 1},
        **{"decoding/batching.py": 17, "gpu/decoder.py": 4, "sampling/agreement.py": 8, "models/causal.py": 16},
        **{"models/scoring.py": 2, "online/rewards.py": 1},
    },
}


@dataclass(frozen=True)
class Chain:
    """A chain that was built."""

    kind: str
    folder: Path
    stages: dict[str, Any]
    said: str

    def metrics(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stages[stage]["metrics"]
        return found


@pytest.fixture(
    scope="module",
    params=[
        *((kind, most) for kind, most in TEST_ALL.items()),
        *(pytest.param((kind, set()), marks=pytest.mark.slow) for kind in CHAINS),
    ],
    ids=lambda param: param[0] if param[1] else f"{param[0]}-all",
)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    kind, left_out = request.param
    folder = tmp_path_factory.mktemp(kind)
    done = emulated.start("chain.py", folder=str(folder), left_out=sorted(left_out), **CHAINS[kind])
    stages = emulated.reported(done)
    assert set(stages) == (TRAINED | OTHERS) - left_out
    return Chain(kind, folder, stages, done.stdout)


def test_every_stage_is_built_and_trains(chain: Chain) -> None:
    trained = TRAINED & set(chain.stages)
    for stage in trained - {"ppo"}:
        assert math.isfinite(chain.metrics(stage)["train_loss"])
        assert chain.metrics(stage)["num_steps_left_out"] == 0
    computed = {chain.metrics(stage)["computed_in"] for stage in trained}
    assert computed == {{"fp16": "float16", "bf16": "bfloat16"}[chain.kind]}
    assert chain.metrics("sft")["eval_loss"] < math.log(320)  # of 320 tokens, less than a guess
    assert chain.metrics("dpo")["reference_proof"]["first_loss"] == pytest.approx(math.log(2), abs=1e-4)
    if "kto" in trained:
        assert chain.metrics("kto")["reference_proof"]["first_loss"] == pytest.approx(0.5, abs=1e-4)
    if "ppo" in trained:
        assert chain.metrics("ppo")["first_kl"] == pytest.approx(0, abs=1e-4)
        assert 0 < chain.metrics("evaluate")["kl_nats_per_token"] < 1


def test_log_probabilities_are_those_of_plain_transformers(chain: Chain) -> None:
    """In half precision on the device, against fp32 on the CPU, a row at a time and without padding."""
    run = chain.folder / "runs" / "f"
    policy = plain.model(str(chain.folder / "model"), run / "sft")
    probe = load_file(run / "sft" / "probe.safetensors")
    assert probe["input_ids"].shape[1] <= 48  # sft.max_length: a demonstration is many times as long
    apart = []
    for number, real in enumerate(probe["attention_mask"].bool()):
        ids, answer = probe["input_ids"][number][real].tolist(), probe["labels"][number][real] != -100
        start = len(ids) - int(answer.sum())
        with torch.no_grad():
            expected = plain.token_logps(policy, ids[:start], ids[start:])
        apart.append((probe["logps"][number, start - 1 : len(ids) - 1] - expected).abs())
    assert torch.cat(apart).mean() < 0.01  # nats per token


def test_one_of_two_gpus_is_used_and_said(chain: Chain) -> None:
    """trueup hides the other before CUDA starts, and says so, or else keeps transformers' Trainer from it."""
    if chain.kind == "bf16":
        assert "1 of 2 GPUs is used: NVIDIA A100-SXM4-80GB, number 0" in chain.said
    assert "DataParallel" not in chain.said


def test_a_step_waits_for_the_device_no_more_than_it_must(chain: Chain) -> None:
    over = []
    for stage in SYNCS.keys() & chain.stages:
        most = SYNCS[stage]
        found: Counter[str] = Counter()
        for _, line, number in chain.stages[stage]["syncs_of_a_step"]:
            found[line.split(":")[0]] += number
        if any(number > most.get(file, 0) for file, number in found.items()):
            over.append(f"{stage}: {dict(found)}, at {chain.stages[stage]['syncs_of_a_step']}")
    assert not over, "\n".join(over)
