"""What a GPU computes in: by its compute capability, or by model.dtype; and a warning for models beyond fp16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, LlamaConfig, Qwen2Config

from trueup.models import base, families
from trueup.run.run_file import ModelConfig

T4, A100 = (7, 5), (8, 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A T4 that is there, as far as torch says; another capability may be set."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: T4)
    return monkeypatch


@pytest.mark.parametrize(
    ("capability", "chosen", "expected"),
    [
        (T4, "auto", torch.float16),
        (A100, "auto", torch.bfloat16),
        (T4, "float32", torch.float32),
        (T4, "bfloat16", torch.bfloat16),
        (A100, "float16", torch.float16),
    ],
)
def test_the_run_file_chooses(
    gpu: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str, expected: torch.dtype
) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert base.compute_dtype(chosen) == expected


def test_a_cpu_chooses_for_itself() -> None:
    assert base.compute_dtype("float32") == base.compute_dtype("float16") == base.compute_dtype()
    (said,) = base.warnings(ModelConfig(base="nowhere", dtype="float16"))
    assert said.startswith("model.dtype: float16 is not used")
    assert base.warnings(ModelConfig(base="nowhere")) == []


def test_a_model_known_to_leave_fp16_is_warned_of(gpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in (Qwen2Config(), LlamaConfig()):
        kind.save_pretrained(tmp_path / kind.model_type)
        save_file({"weight": torch.zeros(1)}, tmp_path / kind.model_type / "model.safetensors")
    qwen, llama = str(tmp_path / "qwen2"), str(tmp_path / "llama")
    (said,) = base.warnings(ModelConfig(base=qwen))
    assert "qwen2" in said and "this GPU has no bf16" in said and "model.dtype: float32" in said
    assert base.warnings(ModelConfig(base=llama)) == []
    assert base.warnings(ModelConfig(base=qwen, dtype="float32")) == []
    gpu.setattr(torch.cuda, "get_device_capability", lambda *_: A100)
    assert base.warnings(ModelConfig(base=qwen)) == []
    (said,) = base.warnings(ModelConfig(base=qwen, dtype="float16"))
    assert "model.dtype says so" in said


def test_every_family_that_is_warned_of_is_one_that_can_be_trained() -> None:
    assert set(families.BEYOND_FP16) <= families.FAMILIES.keys()
    assert all(AutoConfig.for_model(kind).model_type == kind for kind in families.BEYOND_FP16)
