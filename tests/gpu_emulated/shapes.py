"""Memory on a GPU that is not there: floats are shapes without values, and what is alive is counted.

Integers and masks are real. Storages are counted as they come and go, rounded up to 512 bytes as torch's caching
allocator does it. Not counted: what is lost between blocks, the CUDA context, and what kernels allocate within, except
the weight that bitsandbytes makes dense for a product.
"""

from __future__ import annotations

import math
import types
import weakref
from dataclasses import dataclass, field
from typing import Any

import pretend
import torch
from pretend import INDEXING, Cuda
from torch.utils import _pytree as pytree

ROUNDING = 512  # bytes
FEW_TOKENS = 32  # bitsandbytes multiplies so many rows by the 4-bit weight itself, and makes it dense for more
FACTORIES = {f"aten::{name}" for name in ("empty", "zeros", "full", "ones", "rand", "randn")}
IN_PLACE = {"aten::_fused_adamw_", "aten::_amp_foreach_non_finite_check_and_unscale_", "aten::_foreach_copy_"}
DRAWS = {"aten::multinomial", "aten::argmax"}  # answered by zeros: token ids steer what comes next


@dataclass
class Ledger:
    """Bytes of the storages that are alive, and the most there ever were."""

    now: int = 0
    peak: int = 0
    live: dict[int, tuple[int, str]] = field(default_factory=dict)
    at_peak: dict[str, int] = field(default_factory=dict)  # by shape and dtype
    where: str = ""

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING
        self.live[key] = (size, f"{tuple(tensor.shape)} {tensor.dtype}")
        self.now += size
        if self.now > self.peak:
            if self.now > 1.01 * sum(self.at_peak.values()):
                self._remember()
            self.peak = self.now
        weakref.finalize(storage, self._drop, key)

    def start(self) -> None:
        """Forget the peak so far."""
        self.peak, self.at_peak = self.now, {}

    def _drop(self, key: int) -> None:
        self.now -= self.live.pop(key)[0]

    def _remember(self) -> None:
        self.at_peak = {}
        for size, what in self.live.values():
            self.at_peak[what] = self.at_peak.get(what, 0) + size
        self.where = pretend.where()


LEDGER = Ledger()


def install(capability: tuple[int, int], total_bytes: int) -> None:
    """A GPU of `total_bytes` whose floats have no values; bases are then architectures without weights."""
    pretend.install(capability, kind=Shapes)
    cuda: Any = torch.cuda
    for name in ("max_memory_allocated", "max_memory_reserved"):
        setattr(cuda, name, lambda device=None: LEDGER.peak)
    for name in ("memory_allocated", "memory_reserved"):
        setattr(cuda, name, lambda device=None: LEDGER.now)
    cuda.reset_peak_memory_stats = lambda device=None: LEDGER.start()
    cuda.mem_get_info = lambda device=None: (total_bytes - LEDGER.now, total_bytes)
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        auto.from_pretrained = classmethod(load)


class Shapes(pretend.Device):
    """The emulated device with floats that are shapes."""

    to_gpu = False  # where the results of the operator at hand go

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        on_gpu = [t for t in tensors if isinstance(t, Cuda)]
        if (answer := _answered(name, args, on_gpu)) is not None:
            return answer[0]
        device = kwargs.get("device")
        self.to_gpu = bool(on_gpu) if device is None else pretend.is_cuda(device)
        return super().run(func, args, kwargs)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name
        leaves, spec = pytree.tree_flatten((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        if any(x.device.type == "meta" for x in tensors):
            if kwargs.get("device") is not None and not self.to_gpu:
                return torch.zeros(tensors[0].shape, dtype=kwargs.get("dtype") or tensors[0].dtype)
            if name == "aten::copy_":
                return args[0] if args[0].device.type == "meta" else args[0].zero_()
            if name in DRAWS:
                return self.kept(_ids(name, args))
            args, kwargs = pytree.tree_unflatten([_on_meta(x, name) for x in leaves], spec)
            if name in INDEXING:
                args = (args[0], [place for index in args[1] for place in _positions(index)], *args[2:])
            kwargs = kwargs | ({"device": torch.device("meta")} if kwargs.get("device") is not None else {})
        elif self.to_gpu and not tensors and name in FACTORIES and _dtype(kwargs).is_floating_point:
            kwargs = kwargs | {"device": torch.device("meta")}
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        return pytree.tree_map(self.kept, _computed(func, name, args, kwargs))

    def kept(self, made: Any) -> Any:
        """A result on the GPU: counted, and a shape where it is of floats."""
        if not self.to_gpu or not isinstance(made, torch.Tensor):
            return made
        if made.dtype.is_floating_point and made.device.type != "meta":
            made = torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device="meta")
        LEDGER.add(made)
        return made


def _answered(name: str, args: Any, on_gpu: list[Any]) -> tuple[Any] | None:
    """The answer to an operator that needs no computing, in a tuple."""
    if name in IN_PLACE or name == "aten::_amp_update_scale_":
        return (args[0] if name == "aten::_amp_update_scale_" else None,)
    if name == "aten::_local_scalar_dense" and on_gpu and on_gpu[0].elem.device.type == "meta":
        kind = on_gpu[0].dtype
        return (True if kind == torch.bool else 0.0 if kind.is_floating_point else 0,)
    if name in ("aten::equal", "aten::is_nonzero") and on_gpu:
        return (False,)
    return None


def _computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if name == "bitsandbytes::gemm_4bit" and args[0].device.type == "meta":
        return _gemm_4bit(*args, **kwargs)
    if "dtype" in func._overloadname and name in ("aten::addmm", "aten::mm"):  # 16-bit operands, fp32 sums
        a, b = args[-3:-1] if name == "aten::addmm" else args[:2]
        made = torch.empty(a.shape[0], b.shape[1], dtype=torch.float32, device=a.device)
        return kwargs.get("out") if kwargs.get("out") is not None else made
    return func(*args, **kwargs)


def _gemm_4bit(x: Any, packed: Any, shape: Any, absmax: Any, *rest: Any, absmax_8bit: Any = None, **more: Any) -> Any:
    if x.numel() // x.shape[-1] > FEW_TOKENS:
        scales = absmax if absmax_8bit is None else absmax_8bit
        for size, dtype in ((tuple(scales.shape), torch.float32), (tuple(shape), x.dtype)):
            LEDGER.add(torch.empty(size, dtype=dtype, device="meta"))
    return torch.empty((*x.shape[:-1], shape[0]), dtype=x.dtype, device="meta")


def _on_meta(x: Any, name: str) -> Any:
    if not isinstance(x, torch.Tensor) or (name in INDEXING and x.dtype == torch.bool):
        return x
    return x.to("meta")


def _positions(index: Any) -> list[Any]:
    """A mask as positions in each of its dimensions, as many as it is true at."""
    if index is None or index.dtype != torch.bool:
        return [index]
    count = 1 if index.device.type == "meta" else int(index.sum())
    return [torch.empty(count, dtype=torch.long, device="meta")] * index.dim()


def _dtype(kwargs: Any) -> torch.dtype:
    return kwargs.get("dtype") or torch.get_default_dtype()


def _ids(name: str, args: Any) -> Any:
    *rows, _ = args[0].shape
    return torch.zeros((*rows, args[1]) if name == "aten::multinomial" else rows, dtype=torch.long)


def _new(shape: Any, dtype: torch.dtype) -> Cuda:
    tensor = torch.empty(tuple(shape), dtype=dtype, device="meta")
    LEDGER.add(tensor)
    return Cuda(tensor)


def load(
    auto: Any, folder: str, *, dtype: torch.dtype, quantization_config: Any = None, num_labels: Any = None, **rest: Any
) -> Any:
    """The architecture of `folder`, its weights shapes, quantized as bitsandbytes holds them; as from_pretrained."""
    from transformers import AutoConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.utils.quantization_config import QuantizationMethod

    config = AutoConfig.from_pretrained(folder)
    if num_labels is not None:
        config.num_labels = num_labels
    with torch.device("meta"):
        model = auto.from_config(config, dtype=dtype)
        if quantization_config is not None:
            kept = {"modules_to_not_convert": ["lm_head", "score"], "quantization_config": quantization_config}
            model = replace_with_bnb_linear(model, **kept) or model
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = _weight(module, name, parameter, dtype, made)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = _new(buffer.shape, buffer.dtype)
    if quantization_config is not None:
        model.is_loaded_in_4bit, model.is_quantized = True, True
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        model.hf_quantizer = types.SimpleNamespace(
            is_trainable=True, is_qat_trainable=False, is_compileable=False, quantization_config=quantization_config
        )
        model.config.quantization_config = quantization_config
    model.hf_device_map, model.name_or_path = {"": 0}, folder
    return (model.eval(), {"missing_keys": set()}) if rest.get("output_loading_info") else model.eval()


def _weight(module: Any, name: str, of: Any, dtype: torch.dtype, made: dict[int, Any]) -> Any:
    """A parameter without values; what is tied stays tied."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import QuantState

    if not (isinstance(module, bnb.nn.Linear4bit) and name == "weight"):
        if id(of) not in made:
            made[id(of)] = torch.nn.Parameter(_new(of.shape, dtype), requires_grad=False)
        return made[id(of)]
    count = module.in_features * module.out_features
    blocks = math.ceil(count / 64)
    scales, codes = _new((math.ceil(blocks / 256),), torch.float32), _new((256,), torch.float32)
    state = QuantState(
        absmax=_new((blocks,), torch.uint8),
        shape=torch.Size((module.out_features, module.in_features)),
        code=_new((16,), torch.float32),
        blocksize=64,
        quant_type="nf4",
        dtype=dtype,
        offset=_new((), torch.float32),
        state2=QuantState(absmax=scales, code=codes, blocksize=256, dtype=torch.float32),
    )
    module.quant_state = state
    return bnb.nn.Params4bit(
        _new((count // 2, 1), torch.uint8),
        quant_state=state,
        quant_type="nf4",
        compress_statistics=True,
        bnb_quantized=True,
        module=module,
    )
