"""vLLM in a process of its own: what it is asked, what it is given to serve, how its answers are proven, how it ends.

vLLM itself needs a GPU: a real HTTP server with its documented interface answers instead (fake_vllm.py), by
transformers, from the very folders that vLLM would read.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_vllm
import httpx
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from trueup.errors import ModelError, ServerError, StageError
from trueup.models import adapters, base
from trueup.run import environments
from trueup.run.pipeline import Pipeline
from trueup.sampling import vllm_base, vllm_engine, vllm_server
from trueup.sampling.engines import engine
from trueup.sampling.types import Sampling

SAMPLING = Sampling(max_new_tokens=6, temperature=0.7, top_p=1.0, batch_size=4, seed=0, engine="vllm")
PROMPTS = [[5, 6, 7], [5, 6, 7], [40, 41]]


@pytest.fixture(scope="module")
def policy(sharp: Pipeline) -> tuple[Any, Any]:
    bare = base.load_base(sharp.run.model.base, four_bit=True)
    tokenizer = base.load_tokenizer(sharp.run.model.base)
    return adapters.load_adapter(bare, sharp.path("sft"), trainable=False).eval(), tokenizer


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUEUP_CACHE", str(folder))
        fake_vllm.install(environments.folder(vllm_server.NAME))
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 2**30, 24 * 2**30))
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
        yield folder
        for key in list(vllm_server._running):
            vllm_server.stop(vllm_server._running.pop(key))


@pytest.fixture
def trouble(installed: Path) -> Iterator[Path]:
    """The file that says what the server does wrong."""
    yield installed / "trouble"
    (installed / "trouble").unlink()


def move(model: Any) -> None:
    """Change what the adapter does, by nats."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


def test_without_vllm_or_a_gpu_it_says_so(
    policy: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"is not installed; there is no GPU(.|\n)*next: trueup vllm install"):
        engine(*policy, SAMPLING)


def test_dora_is_refused(policy: tuple[Any, Any], installed: Path) -> None:
    model, _ = policy
    vllm_engine.refuse_unfit(model)
    model.add_adapter("dora", LoraConfig(target_modules=["q_proj"], use_dora=True))
    model.set_adapter("dora")
    with pytest.raises(ModelError, match="the adapter is not plain LoRA"):
        vllm_engine.refuse_unfit(model)
    model.delete_adapter("dora")
    model.set_adapter("default")


def test_each_call_hands_over_the_adapter_as_it_is_now_and_proves_it(policy: tuple[Any, Any], installed: Path) -> None:
    model, tokenizer = policy
    run = engine(model, tokenizer, SAMPLING)
    first = run(PROMPTS, 3)
    again = run(PROMPTS, 3)
    assert [one.ids for one in first] == [one.ids for one in again]  # the same seeds
    assert first[0].ids != first[1].ids  # copies of a prompt have seeds of their own
    move(model)
    moved = run(PROMPTS, 3)  # a stale adapter would be refused
    assert [one.logps for one in moved] != [one.logps for one in first]
    with adapters.using(model, None):
        bare = engine(model, tokenizer, SAMPLING)(PROMPTS, 3)
    assert [one.logps for one in bare] != [one.logps for one in moved]
    (server,) = vllm_server._running.values()  # started once
    asked = httpx.get(f"{server.url}/asked").json()
    loads = [one for one in asked if one["path"] == "/v1/load_lora_adapter"]
    assert len({one["lora_name"] for one in loads}) == len({one["lora_path"] for one in loads}) == 3
    completions = [one for one in asked if one["path"] == "/v1/completions"]
    assert {one["model"] for one in completions} == {one["lora_name"] for one in loads} | {"base"}
    assert len({one["seed"] for one in completions}) == len(PROMPTS)
    assert completions[0]["stop_token_ids"] == [tokenizer.eos_token_id]


def test_another_policy_than_the_trainers_is_refused(policy: tuple[Any, Any], trouble: Path) -> None:
    trouble.write_text("keeps the first adapter")
    model, tokenizer = policy
    run = engine(model, tokenizer, SAMPLING)
    move(model)
    with pytest.raises(StageError, match=r"differ by \d+\.\d+ nats per token"):
        run(PROMPTS, 3)


def test_an_answer_without_its_end_token_is_refused(policy: tuple[Any, Any], trouble: Path) -> None:
    trouble.write_text("drops the end")
    with pytest.raises(ServerError, match="an answer that is not understood"):
        engine(*policy, SAMPLING)(PROMPTS, 3)


def test_a_server_that_does_not_start_is_one_message(
    policy: tuple[Any, Any], installed: Path, trouble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble.write_text("does not start")
    monkeypatch.setattr(vllm_server, "_running", {})
    with pytest.raises(ServerError, match=r"did not start\n  next: read .*\.log"):
        engine(*policy, SAMPLING)(PROMPTS, 3)
    assert any("no GPU was found" in log.read_text() for log in installed.glob("vllm-runs/*.log"))


def test_a_gpu_without_room_for_the_base_in_16_bits_is_refused(
    policy: tuple[Any, Any], installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 24 * 2**30))
    monkeypatch.setattr(vllm_server, "_running", {})
    with pytest.raises(StageError, match=r"1\.1 GB of the GPU's 25\.8 GB are free"):
        engine(*policy, SAMPLING)(PROMPTS, 3)


def test_what_is_served_is_the_base_that_trains(policy: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = policy
    vllm_base.write(model, tokenizer, tmp_path)
    served = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 40]])
    with torch.no_grad(), model.disable_adapter():
        right = model(ids).logits.float()
        found = served(ids).logits
    assert not any(hasattr(p, "quant_state") for p in served.parameters())
    assert sum(p.numel() for p in served.parameters()) * 2 == vllm_base.num_bytes(model)
    assert (found - right).norm() / right.norm() < 0.02  # bf16


def test_the_server_ends_when_the_process_that_started_it_is_killed(
    policy: tuple[Any, Any], installed: Path, trouble: Path
) -> None:
    trouble.write_text("only listens")
    pid = os.fork()
    if pid == 0:
        try:
            vllm_server._running.clear()
            server = vllm_server.of(*policy, rank=8, max_tokens=64, rows=4, say=lambda text: None)
            (installed / "pid").write_text(str(server.process.pid))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    served, began = int((installed / "pid").read_text()), time.monotonic()
    while is_running(served):
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
