"""Log-probabilities and scores on the emulated device in bf16, against fp64 from the same numbers.

Takes `vocabulary` and `tokens`. Reports errors, and the most elements that any tensor on the device had.
"""

from __future__ import annotations

from typing import Any

import emulated
import pretend
import torch
from torch import Tensor

HIDDEN = 64


class Largest(pretend.Device):
    """The emulated device; it remembers the largest result."""

    elements = 0

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = super().compute(func, args, kwargs)
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def logps(gpu: Any, tokens: int, vocabulary: int) -> dict[str, float]:
    """Of `head.token_logps` and its gradient. Logits are as large as those of language models, up to 40."""
    from trueup.models import head

    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=draw).bfloat16()
    weight = torch.randn(vocabulary, HIDDEN, generator=draw).bfloat16()
    targets = torch.randint(vocabulary, (tokens,), generator=draw)
    exact = hidden.double().requires_grad_()
    right = torch.log_softmax(exact @ weight.double().T, -1).gather(-1, targets.unsqueeze(-1))[:, 0]
    right.sum().backward()
    on_gpu = hidden.to("cuda").requires_grad_()
    layer = head.OutputLayer(weight.to("cuda"))
    gpu.elements = 0
    found, _ = head.token_logps(on_gpu, layer, targets.to("cuda"))
    found.sum().backward()
    assert on_gpu.grad is not None and exact.grad is not None
    gradient = on_gpu.grad.cpu().double() - exact.grad
    return {
        "logp": (found.detach().cpu().double() - right.detach()).abs().max().item(),
        "gradient": (gradient.norm() / exact.grad.norm()).item(),
        "elements": gpu.elements,
    }


def score() -> dict[str, Any]:
    """Of a score head under autocast."""
    from trueup.training.head import score_in_fp32

    torch.manual_seed(0)
    layer, states = torch.nn.Linear(HIDDEN, 1, bias=False), torch.randn(4, 5, HIDDEN).bfloat16()
    right = states.double() @ layer.weight.detach().double().T
    score = layer.to("cuda")
    score_in_fp32(score)
    with torch.autocast("cuda", torch.bfloat16):
        found = score(states.to("cuda"))
    return {"dtype": str(found.dtype), "error": (found.detach().cpu().double() - right).abs().max().item()}


def arithmetic(folder: str) -> float:
    """How far log-probabilities outside of training are from those under autocast, as TRL computes them."""
    from pathlib import Path

    from tiny import make_model

    from trueup.models import adapters, base, causal
    from trueup.run.run_file import AdapterConfig

    make_model(Path(folder))
    model = adapters.new_adapter(base.load_base(folder, four_bit=True), AdapterConfig(r=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    ids = torch.arange(2, 18).view(2, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        outside = causal.token_logps(model, batch).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            within = causal.token_logps(model, batch).cpu()
    return (outside - within).abs().max().item()


if __name__ == "__main__":
    given = emulated.given()
    gpu = pretend.install((8, 0), kind=Largest)
    emulated.report(
        {
            "logps": logps(gpu, given["tokens"], given["vocabulary"]),
            "score": score(),
            "arithmetic": arithmetic(given["folder"]),
        }
    )
