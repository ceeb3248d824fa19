"""Every stage on the GPU: it ends, its proof holds, its figures are finite, and its record says where it ran."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from on_gpu import EMULATED, STAGES
from tiny import copy_of, open_run
from transformers import TrainerCallback
from transformers import trainer as transformers_trainer

from trueup.models import adapters, base
from trueup.models.adapters import saved_tensors
from trueup.run.artifacts import Adapter
from trueup.run.pipeline import Pipeline

Record = Callable[[str], dict[str, Any]]


def numbers(value: Any) -> Iterator[float]:
    """Every number in a record's metrics."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.mark.parametrize("name", STAGES)
def test_it_ends_with_finite_figures_and_says_where_it_ran(record: Record, name: str) -> None:
    found = record(name)
    assert all(math.isfinite(number) for number in numbers(found["metrics"]))
    if name != "collect":  # which loads no model
        assert found["device_name"] == torch.cuda.get_device_name()
        assert found["capability"] == ".".join(map(str, torch.cuda.get_device_capability()))
        assert found["peak_vram_bytes"] >= found["peak_tensor_bytes"] >= (0 if EMULATED else 1)


@pytest.mark.parametrize("name", ["dpo", "kto", "ppo", "grpo"])
def test_the_reference_is_proven(record: Record, name: str) -> None:
    proof = record(name)["metrics"]["reference_proof"]
    assert proof["mean_abs_logp_drift"] <= 0.02  # nats per token, another batch than when it was recorded
    assert proof["max_abs_policy_minus_reference"] <= 0.02
    assert proof["max_abs_logp_effect"] > 0.1  # the adapter does something
    if name == "dpo":
        assert proof["first_loss"] == pytest.approx(math.log(2), abs=1e-3)  # policy and reference are one
    if name == "ppo":
        assert abs(proof["first_kl"]) <= 1e-3


def test_sft_learns_and_the_merged_model_is_the_one_that_was_trained(record: Record) -> None:
    losses = record("sft")["metrics"]["eval_loss_by_epoch"]
    assert losses[-1] < losses[0] - 0.1
    assert record("export")["metrics"]["merge_kl_nats_per_token"] < 0.01


class Killed(TrainerCallback):  # type: ignore[misc]
    """Ends the stage after its fourth step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_a_killed_dpo_ends_where_the_whole_one_does(
    chain: Pipeline, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record("dpo")
    again = open_run(copy_of(chain, tmp_path / "again"), f"model.base={chain.run.model.base}", "name=tiny")
    shutil.rmtree(again.path("dpo"))
    with monkeypatch.context() as killing:
        callbacks = [*transformers_trainer.DEFAULT_CALLBACKS, Killed]
        killing.setattr(transformers_trainer, "DEFAULT_CALLBACKS", callbacks)
        with pytest.raises(KeyboardInterrupt):
            again.execute("dpo")
    again.execute("dpo")
    resumed = Adapter(again.path("dpo")).record()["metrics"]
    assert resumed["resumed_from_step"] in (2, 4)
    assert resumed["num_steps"] == whole["metrics"]["num_steps"]
    first, second = saved_tensors(chain.path("dpo")), saved_tensors(again.path("dpo"))
    apart = max((first[key] - second[key]).abs().max().item() for key in first)
    assert apart <= 1e-5  # some kernels add in an order of their own


@pytest.mark.parametrize("engine", ["auto", "merged", "generate"])
def test_greedy_answers_are_those_of_transformers(chain: Pipeline, record: Record, engine: Any) -> None:
    """Token for token against `generate` of transformers, on the policy after SFT, which is certain of its answers."""
    from trueup.sampling.sample import engine as engine_of
    from trueup.sampling.types import Sampling

    record("sft")
    tokenizer = base.load_tokenizer(chain.run.model)
    bare = base.load_base(chain.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, chain.path("sft"), trainable=False).eval()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for text in ("red tent", "boot", "yes no glad")
    ]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        expected.append(out[0, len(prompt) :].tolist())
    asked = Sampling(max_new_tokens=8, temperature=0.0, top_p=1.0, batch_size=2, seed=0, engine=engine)
    found = engine_of(model, tokenizer, asked)(prompts, 0)
    assert [done.ids for done in found] == expected
