"""Single operators on the emulated device, given a `capability`: what was raised, what was counted, what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import emulated
import pretend
import torch
from torch import Tensor, nn

GPU = "cuda"


def main() -> None:
    gpu = pretend.install(tuple(emulated.given()["capability"]))
    emulated.report(
        {
            "mixed": {name: raised(case) for name, case in mixed().items()},
            "allowed": {name: raised(case) for name, case in allowed().items()},
            "waits": {name: waited(gpu, case) for name, case in waits().items()},
            "attention": attention(gpu),
            "overflow": overflow(),
        }
    )


def raised(case: Callable[[], Any]) -> str:
    """The kind of what the case raises, or nothing."""
    try:
        case()
    except Exception as error:
        return type(error).__name__
    return ""


def waited(gpu: pretend.Device, case: Callable[[], Any]) -> int:
    """How often the host waits for the device."""
    with gpu.measured() as counts:
        case()
    return counts.syncs.total()


def mixed() -> dict[str, Callable[[], Any]]:
    """What CUDA refuses."""
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    weight = nn.Parameter(torch.ones(3, device=GPU))
    weight.grad = torch.ones(3, device=GPU)
    return {
        "add": lambda: there + here,
        "in place": lambda: there.clone().add_(here),
        "cat": lambda: torch.cat([there, here]),
        "stack of scalars": lambda: torch.stack([there.sum(), here.sum()]),
        "matmul": lambda: torch.ones(2, 3, device=GPU) @ torch.ones(3, 2),
        "gather": lambda: there.gather(0, torch.tensor([0])),
        "where": lambda: torch.where(there > 0, there, here),
        "values written at an index": lambda: there.clone().index_put_((torch.tensor([0, 1]),), torch.ones(2)),
        "an index on the device, of the host's": lambda: here[torch.tensor([0], device=GPU)],
        "loss of both": lambda: nn.functional.mse_loss(there, here),
        "numpy": lambda: there.numpy(),
        "a generator of the host": lambda: torch.rand(3, device=GPU, generator=torch.Generator()),
    }


def allowed() -> dict[str, Callable[[], Any]]:
    """What CUDA takes."""
    there = torch.ones(3, device=GPU)
    return {
        "a scalar of the host": lambda: there + torch.tensor(2.0),
        "a number": lambda: there * 2,
        "an index of the host": lambda: there[torch.tensor([0, 2])],
        "an index as a list": lambda: there[[0, 2]],
        "a copy": lambda: there.clone().copy_(torch.ones(3)),
        "to the host": lambda: there.cpu() + torch.ones(3),
        "a generator of the device": lambda: torch.rand(3, device=GPU, generator=torch.Generator(GPU)),
    }


def waits() -> dict[str, Callable[[], Any]]:
    there, mask = torch.ones(3, device=GPU), torch.tensor([True, False, True], device=GPU)
    return {
        "sum": lambda: there.sum(),
        "positions": lambda: there[torch.tensor([0], device=GPU)[:0]],
        "item": lambda: there.sum().item(),
        "a condition": lambda: bool((there > 0).all()),
        "to the host": lambda: there.cpu(),
        "a list": lambda: there.tolist(),
        "a boolean mask": lambda: there[mask],
        "nonzero": lambda: mask.nonzero(),
        "masked_fill": lambda: there.masked_fill(mask, 0.0),
    }


def attention(gpu: pretend.Device) -> list[dict[str, Any]]:
    """Each kernel of attention, forward and backward, against the CPU in float64."""
    found = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for key_heads in (4, 2):
            for masked in (False, True):
                torch.manual_seed(0)
                made = [torch.randn(2, heads, 9, 16).to(dtype) for heads in (4, key_heads, key_heads)]
                outcomes: list[list[Tensor]] = []
                for place, kind in (("cpu", torch.float64), (GPU, dtype)):
                    inputs = [tensor.to(kind).to(place).requires_grad_() for tensor in made]
                    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril().to(place) if masked else None
                    options = {"attn_mask": mask, "is_causal": not masked, "enable_gqa": key_heads < 4}
                    with gpu.measured() as counts:
                        out = nn.functional.scaled_dot_product_attention(*inputs, **options)
                        out.float().square().sum().backward()
                    outcomes.append([out.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)])
                found.append(
                    {
                        "dtype": str(dtype),
                        "grouped": key_heads < 4,
                        "masked": masked,
                        "kernels": sorted(name for name in counts.launches if "scaled_dot_product" in name),
                        "error": max(
                            float((a - b.cpu().double()).norm() / a.norm()) for a, b in zip(*outcomes, strict=True)
                        ),
                    }
                )
    return found


def overflow() -> dict[str, Any]:
    """A gradient beyond fp16: GradScaler leaves out the step and halves its scale; autocast makes products fp16."""
    weight = nn.Parameter(torch.ones(1, device=GPU))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler(GPU)
    scaler.scale((weight * 1e35).sum()).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    with torch.autocast(GPU, torch.float16):
        product = torch.full((2, 2), 300.0, device=GPU) @ torch.full((2, 2), 300.0, device=GPU)
    return {
        "left_out": weight.item() == 1.0,
        "scale": scaler.get_scale(),
        "product": [str(product.dtype), product.isinf().all().item()],
    }


if __name__ == "__main__":
    main()
