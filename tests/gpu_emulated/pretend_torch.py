"""What torch.cuda says of the emulated device (see pretend.py)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pretend_attention
import torch
from pretend import CPU, CUDA, CUDA_GENERATORS, GIB, Cuda, is_cuda
from torch import Tensor
from torch.utils._device import _device_constructors

T4, A100 = "Tesla T4", "NVIDIA A100-SXM4-80GB"


class Visible:
    """How many GPUs the process sees: CUDA reads the variable once, when it starts."""

    def __init__(self, count: int) -> None:
        self.in_machine = count
        self.started: int | None = None

    def start(self) -> None:
        self.started = self.count()

    def count(self) -> int:
        if self.started is not None:
            return self.started
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is None:
            return self.in_machine
        named = [name.strip() for name in given.split(",")]
        return len([name for name in named if not name.isdigit() or int(name) < self.in_machine]) if given else 0


class Stream:
    """Everything on it has happened already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.device = CUDA

    def synchronize(self) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def query(self) -> bool:
        return True

    def record_event(self, event: Any = None) -> Any:
        return event or Event()


class Event:
    """Of a stream that waits for nothing; no time passes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 0.0


class Generator(torch.Generator):
    """A generator of the CPU's numbers that says which device it is for."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made: Generator = super().__new__(cls, "cpu")
        made.made_for = CUDA if is_cuda(device) else torch.device(device)
        if made.made_for == CUDA:
            CUDA_GENERATORS.add(made._cdata)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.made_for


def patch(capability: tuple[int, int], count: int) -> None:
    """Answer for a GPU in torch.cuda and beside it."""
    visible = Visible(count)
    properties = SimpleNamespace(
        name=A100 if capability[0] >= 8 else T4,
        major=capability[0],
        minor=capability[1],
        total_memory=(80 if capability[0] >= 8 else 15) * GIB,
        multi_processor_count=108 if capability[0] >= 8 else 40,
        warp_size=32,
        gcnArchName="",
        is_integrated=False,
        L2_cache_size=4 * 2**20,
        max_threads_per_multi_processor=1024,
        regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=65536,
    )
    answers: dict[str, Callable[..., Any]] = {
        "_lazy_init": visible.start,
        "init": visible.start,
        "is_initialized": lambda: visible.started is not None,
        "is_available": lambda: visible.count() > 0,
        "device_count": visible.count,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: capability,
        "get_device_properties": lambda device=None: properties,
        "get_device_name": lambda device=None: properties.name,
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90"],
        "is_bf16_supported": lambda including_emulation=True: capability[0] >= 8 or including_emulation,
        "mem_get_info": lambda device=None: (properties.total_memory - GIB, properties.total_memory),
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "stream": lambda stream: nullcontext(),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "Stream": Stream,
        "Event": Event,
    }
    nothing = (
        "_lazy_call",
        "set_device",
        "synchronize",
        "empty_cache",
        "ipc_collect",
        "manual_seed",
        "manual_seed_all",
    )
    nothing += ("set_rng_state", "set_rng_state_all", "reset_peak_memory_stats", "set_per_process_memory_fraction")
    zeros = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    answers |= dict.fromkeys(
        nothing, lambda *args, **kwargs: None
    )  # torch seeds and restores the CPU's generator itself
    answers |= dict.fromkeys(zeros, lambda device=None: 0)
    for name, answer in answers.items():
        for module in (torch.cuda, torch.cuda.random, torch.cuda.memory):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, answer)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.backends.cuda.is_built = lambda: True
    # a tensor moved to another device takes the place of the one before
    torch._has_compatible_shallow_copy_type = lambda a, b: isinstance(a, Cuda) == isinstance(b, Cuda)  # type: ignore[assignment]
    usual = torch.nn.functional.scaled_dot_product_attention

    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        on_gpu = isinstance(query, Cuda)
        return (
            pretend_attention.attend(usual, capability, query, *args, **kwargs)
            if on_gpu
            else usual(query, *args, **kwargs)
        )

    torch.nn.functional.scaled_dot_product_attention = attention
    torch.Generator = Generator  # type: ignore[misc]
    _device_constructors()  # remembers the functions that are replaced now
    for name in ("tensor", "as_tensor", "asarray", "sparse_coo_tensor"):
        setattr(torch, name, on_cpu_first(getattr(torch, name)))


def on_cpu_first(usual: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`usual`, which makes a tensor of Python's numbers, on the CPU; then the tensor is moved."""

    @functools.wraps(usual)
    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None:
            return usual(*args, **kwargs)
        if isinstance(device, int) or is_cuda(device):
            return usual(*args, device=None if args and isinstance(args[0], Cuda) else CPU, **kwargs).to(CUDA)
        return usual(*args, device=device, **kwargs)

    return made
