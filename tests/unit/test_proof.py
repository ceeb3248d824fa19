"""The probe of the reference proof takes no more memory than the stage that records it: short rows, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain
import pytest
import torch
from safetensors.torch import load_file

from trueup.chat.template import Encoded
from trueup.models import adapters, base, causal
from trueup.run.pipeline import Pipeline
from trueup.training import proof


def encoded(prompt: list[int], answer: list[int]) -> Encoded:
    return Encoded(ids=[*prompt, *answer], labels=[-100] * len(prompt) + answer, start=len(prompt))


def test_its_rows_are_cut_and_read_one_at_a_time(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = pipeline.run.model.base
    model = adapters.load_adapter(base.load_base(name, four_bit=True), pipeline.path("sft"), trainable=False)
    shapes: list[torch.Size] = []
    usual = causal.hidden_states

    def noted(model: Any, input_ids: Any, attention_mask: Any) -> Any:
        shapes.append(input_ids.shape)
        return usual(model, input_ids, attention_mask)

    monkeypatch.setattr(causal, "hidden_states", noted)
    rows = [encoded([10, 11, 12], [13, 14]), encoded([20] * 5, [21] * 90), encoded([30] * 90, [31] * 90)]
    proof.record_probe(model, base.load_tokenizer(name), rows, tmp_path, 16)
    assert shapes == [(1, 5), (1, 16), (1, 16)]
    saved = load_file(tmp_path / "probe.safetensors")
    policy = plain.model(name, pipeline.path("sft"))
    for row, (prompt, answer) in enumerate([([10, 11, 12], [13, 14]), ([20] * 5, [21] * 11), ([30] * 8, [31] * 8)]):
        assert saved["input_ids"][row, : len(prompt) + len(answer)].tolist() == prompt + answer
        with torch.no_grad():
            expected = plain.token_logps(policy, prompt, answer)
        found = saved["logps"][row, len(prompt) - 1 : len(prompt) + len(answer) - 1]
        assert (found - expected).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("prompt", "answer", "limit", "cut"),
    [
        ([1, 2], [3, 4], None, ([1, 2], [3, 4])),
        ([1, 2], [3, 4], 4, ([1, 2], [3, 4])),
        ([1, 2], [3, 4, 5], 4, ([1, 2], [3, 4])),
        ([1, 2, 3, 4], [5, 6, 7, 8], 4, ([3, 4], [5, 6])),
        ([1, 2, 3, 4], [5], 4, ([2, 3, 4], [5])),
        ([1, 2, 3], [4, 5, 6], 2, ([3], [4])),
    ],
)
def test_a_cut_row_keeps_the_beginning_of_its_answer(
    prompt: list[int], answer: list[int], limit: int | None, cut: tuple[list[int], list[int]]
) -> None:
    assert proof._cut(prompt, answer, limit) == cut
