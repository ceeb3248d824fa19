"""A CUDA device that is not there: tensors say `cuda:0`, their values are computed on the CPU.

Use it in a process of its own, before anything imports torch (tests do so by `emulated.run`):

    import pretend                                  # compiles guard.cpp once on this machine, loads it, imports torch
    gpu = pretend.install(capability=(7, 5))        # from here on there is a GPU; (8, 0) has bf16; count=2: two GPUs
    ...                                             # whatever runs on a GPU: `model.to("cuda")`, trueup's stages
    gpu.launches, gpu.syncs                         # Counters: operators; (kind, file:line) of each wait of the host
    with gpu.measured() as counts: ...              # the same, of a block alone

What it does: mixing devices raises RuntimeError as CUDA does; `.item()`, boolean masks and copies to the host are
counted as syncs, by the line of the project that causes them; autocast("cuda"), GradScaler, gradient checkpointing,
4-bit weights of bitsandbytes and TRL's chunked log-probabilities take the paths they take on a GPU.

What it does not: Triton kernels (their fallback in torch runs), streams, memory, time, and how cuBLAS rounds. A launch
is one operator of ATen, which may be more or fewer kernels on a GPU. Random numbers are those of the CPU's generator.

`Device.run` sees every operator; a subclass of Device, given to `install` as `kind`, may answer some of them otherwise.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import guard

guard.load()

import pretend_attention  # noqa: E402 - only now, since it imports torch
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CUDA_GENERATORS: set[int] = set()  # addresses of those that were made for the device
GIB = 2**30

# operators that take tensors of two devices
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_foreach_copy_", "aten::lift_fresh", "aten::set_"}
# indices may be on the CPU where what is indexed is on the GPU
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"}
# operators that take not even a scalar of another device
STRICT = {"aten::cat", "aten::stack", "aten::_fused_adamw_", "aten::_fused_adam_"}
# operators whose result has a size that the host must wait for
SIZED_BY_VALUES = {
    *("aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2", "aten::_unique"),
    *("aten::unique_consecutive", "aten::repeat_interleave", "aten::bincount"),
}
# operators that look at their own result on the host, and how often
LOOKS = {"aten::_local_scalar_dense": 1, "aten::equal": 1, "aten::multinomial": 2}


class Counts(NamedTuple):
    """Launches by operator, and syncs by kind and line."""

    launches: Counter[str]
    syncs: Counter[tuple[str, str]]


class Cuda(Tensor):
    """A tensor that says it is on `cuda:0`; `elem` holds its values, on the CPU."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor, requires_grad: bool = False) -> Cuda:
        made: Cuda = Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=CUDA,
            requires_grad=requires_grad,
        )
        made.elem = elem
        return made

    def __repr__(self, **unused: Any) -> str:
        return f"Cuda({self.elem})"

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.elem.untyped_storage()

    def numpy(self, *unused: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        installed().note_sync("to cpu")
        return self.elem.detach().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as the CPU's tensor: what was saved on a GPU is read back onto the CPU."""
        return self.elem.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Cuda:
        made = Cuda.__new__(type(self), self.elem.detach().clone(), self.requires_grad)
        memo[id(self)] = made
        made.__dict__ |= {key: deepcopy(value, memo) for key, value in self.__dict__.items() if key != "elem"}
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            mine, new = args
            if isinstance(new, Cuda):
                mine.elem = new.elem
            elif isinstance(mine, Cuda):
                raise NotImplementedError("emulated device: .data of a CUDA tensor set to a CPU tensor")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], index_by_tensors(args[1]), *args[2:])
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return installed().run(func, args, kwargs or {})


class Device:
    """The device: runs each operator on the CPU, refuses mixed devices, and counts launches and syncs."""

    def __init__(self, capability: tuple[int, int] = (7, 5)) -> None:
        self.capability = capability
        self.launches: Counter[str] = Counter()
        self.syncs: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def measured(self) -> Iterator[Counts]:
        """The counts of the block, complete when it ends; the totals go on."""
        before = self.launches.copy(), self.syncs.copy()
        counts = Counts(Counter(), Counter())
        try:
            yield counts
        finally:
            counts.launches.update(self.launches - before[0])
            counts.syncs.update(self.syncs - before[1])

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of ATen, or of another library; the results are on the GPU where they would be."""
        name: str = func._schema.name
        if name in ("aten::_pin_memory", "aten::pin_memory"):
            return args[0]
        if name == "aten::is_pinned":
            return False
        leaves, spec = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_gpu = [tensor for tensor in tensors if isinstance(tensor, Cuda)]
        device = kwargs.get("device")
        to_gpu = bool(on_gpu) if device is None else torch.device(device).type == "cuda"
        if on_gpu and name not in COPIES:
            refuse_mixed(name, args, tensors)
        if to_gpu:
            refuse_generator(name, leaves)
        self.count(name, args, on_gpu, to_gpu)

        given = {id(leaf.elem if isinstance(leaf, Cuda) else leaf): leaf for leaf in tensors}
        plain_args, plain_kwargs = pytree.tree_unflatten([plain(leaf) for leaf in leaves], spec)
        result = self.compute(func, plain_args, plain_kwargs)

        def placed(made: Any) -> Any:
            if not isinstance(made, Tensor):
                return made
            if id(made) in given:  # an operator in place
                return given[id(made)]
            return Cuda(made) if to_gpu else made

        if name == "aten::detach" and isinstance(args[0], Cuda) and getattr(args[0], "bnb_quantized", False):
            return like_4bit(args[0], result)
        return pytree.tree_map(placed, result)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The values, from CPU tensors."""
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func._schema.name in pretend_attention.KERNELS:
            return pretend_attention.KERNELS[func._schema.name](*args, **kwargs)
        if "dtype" in func._overloadname and func._schema.name in ("aten::addmm", "aten::mm"):
            return products_in_fp32(*args, out=kwargs.get("out"))  # out_dtype: CUDA alone has it
        return func(*args, **kwargs)

    def count(self, name: str, args: tuple[Any, ...], on_gpu: list[Cuda], to_gpu: bool) -> None:
        """Note a launch, and a sync where the host waits for its result."""
        if not on_gpu:
            if to_gpu and name == "aten::_to_copy":
                self.note_sync("from cpu")
            return
        self.launches[name] += 1
        if name in LOOKS:
            self.note_sync("item", LOOKS[name])
        elif (name == "aten::_to_copy" and not to_gpu) or (name == "aten::copy_" and not isinstance(args[0], Cuda)):
            self.note_sync("to cpu")
        elif name == "aten::copy_" and not isinstance(args[1], Cuda) and args[1].dim():
            self.note_sync("from cpu")
        elif name in SIZED_BY_VALUES or (name in INDEXING and any(is_mask(index) for index in args[1])):
            self.note_sync("size of the result")

    def note_sync(self, kind: str, number: int = 1) -> None:
        self.syncs[kind, where()] += number


class _Dispatch(TorchDispatchMode):
    """Operators without a CUDA tensor, such as `torch.zeros(3, device="cuda")`, reach the device by this mode."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return installed().run(func, args, kwargs or {})


class _Indexed(TorchFunctionMode):
    """`cuda` becomes `cuda:0`: without an index torch would ask a part of itself that a CPU build lacks."""

    MOVES = frozenset((Tensor.to, Tensor.new_tensor))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.cuda:
            return args[0].to(CUDA)
        if func is torch.nn.functional.rms_norm and isinstance(args[0], Cuda) and not torch.is_grad_enabled():
            # one kernel on CUDA; a CPU build takes it apart before any device hears of it
            return installed().run(torch.ops.aten._fused_rms_norm.default, args, kwargs)[0]
        if func in self.MOVES or "device" in kwargs:
            args = tuple(CUDA if is_cuda(value) else value for value in args)
            if is_cuda(kwargs.get("device")):
                kwargs = kwargs | {"device": CUDA}
        return func(*args, **kwargs)


_installed: list[Device] = []


def installed() -> Device:
    """The device that `install` made."""
    return _installed[0]


def install(
    capability: tuple[int, int] = (7, 5), count: int = 1, kind: Callable[[tuple[int, int]], Device] = Device
) -> Device:
    """Let `count` GPUs of this compute capability seem to be there, for the rest of the process."""
    if _installed:
        raise RuntimeError("a device is installed already")
    import accelerate  # noqa: F401 - what looks for a GPU when it is imported must not find one yet
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import pretend_libraries
    import pretend_torch
    import transformers  # noqa: F401
    import trl  # noqa: F401

    _installed.append(kind(capability))
    pretend_torch.patch(capability, count)
    pretend_libraries.patch()
    _Dispatch().__enter__()  # for good
    _Indexed().__enter__()
    return _installed[0]


def is_cuda(value: Any) -> bool:
    """True of a device, or its name, that is CUDA's."""
    if isinstance(value, str):
        return value.startswith("cuda")
    return isinstance(value, torch.device) and value.type == "cuda"


def is_mask(index: Any) -> bool:
    return isinstance(index, Cuda) and index.dtype in (torch.bool, torch.uint8)


def index_by_tensors(index: Any) -> Any:
    """An index whose lists of numbers are tensors; torch would make them on the device, which takes a copy to it."""
    if isinstance(index, tuple):
        return tuple(index_by_tensors(part) for part in index)
    if isinstance(index, list):
        installed().note_sync("from cpu")
        return torch.tensor(index, device=CPU)
    return index


def plain(leaf: Any) -> Any:
    """An argument as the CPU takes it."""
    if isinstance(leaf, Cuda):
        return leaf.elem
    if isinstance(leaf, torch.device):
        return CPU if leaf.type == "cuda" else leaf
    return leaf


def refuse_mixed(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise as CUDA does when a CPU tensor that is no scalar is among CUDA's."""
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, Cuda)]
    if name in INDEXING and isinstance(args[0], Cuda):
        elsewhere = [tensor for tensor in elsewhere if any(tensor is value for value in args[2:])]
    if name not in STRICT:
        elsewhere = [tensor for tensor in elsewhere if tensor.dim() > 0]
    if elsewhere:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in elsewhere)
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({name} of a CPU tensor of shape {shapes}, at {where()})"
        )


def refuse_generator(name: str, leaves: list[Any]) -> None:
    """Raise as CUDA does when its random numbers are asked of a CPU's generator."""
    if any(isinstance(leaf, torch._C.Generator) and leaf._cdata not in CUDA_GENERATORS for leaf in leaves):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name}, at {where()})")


def products_in_fp32(*args: Tensor, out: Tensor | None) -> Tensor:
    """a @ b, or a sum and a @ b, of half-precision matrices in fp32."""
    *added, a, b = (arg for arg in args if isinstance(arg, Tensor))
    result = a.float() @ b.float()
    if added:
        result += added[0].float()
    return result if out is None else out.copy_(result)


def like_4bit(weight: Any, values: Tensor) -> Any:
    """`values` with what bitsandbytes keeps on a 4-bit weight."""
    made = Cuda.__new__(type(weight), values)
    made.__dict__ |= {key: value for key, value in weight.__dict__.items() if key != "elem"}
    return made


def where() -> str:
    """The line of the project that is running, else of a library that is not torch: `training/finite.py:33`."""
    frame: FrameType | None = sys._getframe(1)
    library = ""
    while frame is not None:
        file = frame.f_code.co_filename
        for folder, name in project_folders():
            if file.startswith(folder):
                return f"{name}{file.removeprefix(folder)}:{frame.f_lineno}"
        if not library and "/site-packages/" in file and "/site-packages/torch/" not in file:
            library = f"{file.rpartition('/site-packages/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return library or "?"


@functools.cache
def project_folders() -> list[tuple[str, str]]:
    """Where the project's sources are, with a slash at the end, and what their names begin with."""
    folders = []
    for package, name in (("trueup.stages", "stages/"), ("trueup.feedback", "feedback/"), ("trueup", "")):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folders.append((f"{Path(spec.origin).parent}/", name))
    return folders
