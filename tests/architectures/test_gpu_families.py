"""What a GPU computes without padding and with LoRA fused is, of every family, what transformers and peft compute.

Both are tried on a CPU in fp32, where rounding hides nothing. Expected are the losses, log-probabilities and gradients
of transformers' and peft's own forward, a row at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, Case
from reference import COMPLETIONS, PROMPTS

from trueup.chat.batch import pad
from trueup.cpu import precision
from trueup.gpu import attention, lora, rows
from trueup.models import adapters, base, causal
from trueup.run.run_file import AdapterConfig

UNEQUAL = list(zip(PROMPTS, COMPLETIONS, strict=True))
EQUAL = [(PROMPTS[0], COMPLETIONS[0]), (PROMPTS[0][::-1], COMPLETIONS[0][::-1])]
KNOWN = [case for case in CASES if not case.refused]
PADDED = {"Gemma 2": "a soft cap on attention scores"}
ROUNDING = 1e-4  # of fp32 sums in another order, relative


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_CPU", "portable")


def policy(folder: Path, *, four_bit: bool) -> Any:
    """The base, through which fp32 flows, with an adapter that changes it."""
    bare = base.load_base(str(folder), four_bit=four_bit)
    precision.flow_in_fp32(bare)
    model = adapters.new_adapter(bare, AdapterConfig(kind="qlora" if four_bit else "lora", r=3)).train()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def logps(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """log p of the labelled tokens, by the logits of the model as it is."""
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, 1:]
    seen = labels != -100
    chosen: torch.Tensor = torch.log_softmax(out[:, :-1][seen].float(), -1).gather(-1, labels[seen][:, None])
    return chosen[:, 0]


def gradients(model: Any) -> torch.Tensor:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return torch.cat([found[name].flatten() for name in sorted(found)])


def row_by_row(model: Any, pairs: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    found = torch.cat([logps(model, pad([pair], pad_id=0)) for pair in pairs])
    found.mean().backward()
    return found.detach(), gradients(model)


@pytest.mark.parametrize(
    ("case", "checkpointing"),
    [
        *(pytest.param(case, False, id=f"{case.name}-kept") for case in KNOWN),
        *(
            pytest.param(case, True, id=f"{case.name}-checkpointed", marks=[pytest.mark.slow] * (number >= 3))
            for number, case in enumerate(KNOWN)
        ),
    ],
)
def test_rows_in_one_sequence_and_fused_lora_change_nothing(
    case: Case, checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = policy(case.build(tmp_path), four_bit=not checkpointing)
    whole = model.get_base_model()
    right = {name: row_by_row(model, pairs) for name, pairs in (("unequal", UNEQUAL), ("equal", EQUAL))}
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()

    num_fused, num_layers, reasons = lora.install(model)
    assert (num_fused, reasons) == (num_layers, "")
    reason = rows.why_not(whole)
    assert reason == PADDED.get(case.name, "")
    lengths: list[list[int]] = []
    if not reason:
        attention.register()
        whole.set_attn_implementation(attention.NAME)
        rows.install(whole)
        plain = attention._by_row
        monkeypatch.setattr(
            attention, "_by_row", lambda q, k, v, n, *more: (lengths.append(n), plain(q, k, v, n, *more))[1]
        )
    for name, pairs in (("unequal", UNEQUAL), ("equal", EQUAL)):
        batch = pad(pairs, pad_id=0)
        found = causal.token_logps(model, batch)[batch["labels"][:, 1:] != -100]
        found.mean().backward()
        assert (found - right[name][0]).abs().max() < 1e-3, "nats"
        apart = gradients(model) - right[name][1]
        assert apart.norm() / right[name][1].norm() < ROUNDING
    expected = [] if reason else [[len(p) + len(c) for p, c in UNEQUAL], [len(EQUAL[0][0] + EQUAL[0][1])]]
    assert [n for i, n in enumerate(lengths) if n not in lengths[:i]] == expected
