"""What libraries need before they take the emulated device for a GPU (see pretend.py)."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from pretend import Cuda
from torch import Tensor


def patch() -> None:
    """Patch bitsandbytes, TRL and transformers; they have been imported."""
    _bitsandbytes()
    _trl()
    _transformers()


def _bitsandbytes() -> None:
    """A 4-bit weight whose values are on the emulated device, of the class that bitsandbytes looks for."""
    from bitsandbytes.nn import Params4bit

    class CudaParams4bit(Cuda, Params4bit):  # type: ignore[misc]
        @staticmethod
        def __new__(cls: Any, elem: Tensor, requires_grad: bool = False) -> Any:
            return Cuda.__new__(cls, elem.elem if isinstance(elem, Cuda) else elem, requires_grad)

    CudaParams4bit.__name__ = "Params4bit"
    usual = Params4bit.__new__

    def new(
        cls: Any,
        data: Any = None,
        requires_grad: bool = False,
        quant_state: Any = None,
        blocksize: int | None = None,
        compress_statistics: bool = True,
        quant_type: str = "fp4",
        quant_storage: torch.dtype = torch.uint8,
        module: Any = None,
        bnb_quantized: bool = False,
        **more: Any,
    ) -> Any:
        kept = {
            "blocksize": blocksize,
            "compress_statistics": compress_statistics,
            "quant_type": quant_type,
            "quant_state": quant_state,
            "quant_storage": quant_storage,
            "bnb_quantized": bnb_quantized,
            "module": module,
        }
        if not isinstance(data, Cuda):
            return usual(cls, data, requires_grad, **kept, **more)
        weight = CudaParams4bit(data.elem, requires_grad)
        weight.__dict__ |= kept | {"blocksize": blocksize or 64, "_is_param": True}
        return weight

    Params4bit.__new__ = new


def _trl() -> None:
    """Log-probabilities in tiles, as with Triton; each tile is folded by TRL's own code in torch."""
    import trl.kernels.chunked_logprob as kernels
    import trl.trainer.utils

    class Launcher:
        def __init__(self, fold: Callable[..., Any]) -> None:
            self.fold = fold

        def __getitem__(self, grid: Any) -> Callable[..., Any]:
            return self.fold

    kernels._use_triton = lambda device: device.type == "cuda"
    kernels._forward_kernel = Launcher(kernels._forward_tile)
    kernels._backward_kernel = Launcher(kernels._backward_tile)
    kernels.triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b))
    trl.trainer.utils._use_triton = kernels._use_triton


def _transformers() -> None:
    """No warming of an allocator that is not there; weights are read by this thread, which has the device's mode."""
    import transformers.modeling_utils

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    transformers.modeling_utils.caching_allocator_warmup = lambda *args, **kwargs: None
