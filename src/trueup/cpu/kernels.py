"""y = W x for a few columns on a CPU: a row of W is decoded in registers, just where it is used.

A library's matrix product needs the weight dense, and for 32 columns dequantizing it takes as long as multiplying. The
kernels here are LLVM's intermediate representation, compiled for the processor at hand when first used (0.2 s each),
and run on torch's own OpenMP threads: a second pool would wait for the first.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trueup.cpu.kernel_source import ARGUMENTS, BLOCK, COLUMNS, QUAD, module
from trueup.cpu.linear import block_scales


class Kernel(NamedTuple):
    """Machine code, and what owns it."""

    entry: int
    parallel: Any  # libgomp's GOMP_parallel(entry, arguments, threads, flags)
    owner: Any


def fits(weight: Any) -> bool:
    """True where a kernel reads `weight`, (M, K), as it is stored: NF4 in blocks of 64, or bf16."""
    kind = _kind(weight)
    return kind is not None and compiled(kind) is not None


def padded(num_columns: int) -> int:
    """The least number of columns, at least as many, that a kernel computes."""
    return -(-num_columns // COLUMNS) * COLUMNS


class Product:
    """W x + high low: W (M, K) frozen, read as it is stored; `high` (M, rank) is what a LoRA adds to it."""

    def __init__(self, weight: Any, high: Tensor | None = None) -> None:
        kind = _kind(weight)
        kernel = None if kind is None else compiled(kind)
        if kernel is None:
            raise ValueError(f"no kernel for {type(weight).__name__} of {weight.dtype}")
        self.kernel = kernel
        state = getattr(weight, "quant_state", None)
        self.shape: tuple[int, int] = tuple(weight.shape if state is None else state.shape)
        self.rank = 0 if high is None else high.shape[1]
        kept = {"weight": weight.data, "high": None if high is None else high.float().contiguous()}
        if state is not None:
            kept |= {"scales": block_scales(state), "code": state.code.float()}
        self.kept = {name: tensor for name, tensor in kept.items() if tensor is not None}
        values = {"M": self.shape[0], "K": self.shape[1], "rank": self.rank}
        values |= {name: tensor.data_ptr() for name, tensor in self.kept.items()}
        self.arguments = (ctypes.c_int64 * len(ARGUMENTS))(*(values.get(name, 0) for name in ARGUMENTS))

    def __call__(self, x: Tensor, low: Tensor, out: Tensor) -> None:
        """x (K, R), low (rank, R) -> out (M, R), each contiguous fp32, R a multiple of 8; else ValueError."""
        num_columns = x.shape[1]
        for name, tensor, rows in (("x", x, self.shape[1]), ("low", low, self.rank), ("y", out, self.shape[0])):
            if tensor.shape != (rows, num_columns) or tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, not contiguous fp32 of {rows} rows")
            self.arguments[ARGUMENTS.index(name)] = tensor.data_ptr()
        if num_columns % COLUMNS:
            raise ValueError(f"{num_columns} columns, not a multiple of {COLUMNS}")
        self.arguments[ARGUMENTS.index("R")] = num_columns
        self.kernel.parallel(self.kernel.entry, self.arguments, torch.get_num_threads(), 0)


def _kind(weight: Any) -> str | None:
    state = getattr(weight, "quant_state", None)
    rows, columns = weight.shape if state is None else state.shape
    if weight.device.type != "cpu" or rows % QUAD or columns % BLOCK:
        return None
    if state is not None:
        return "nf4" if state.quant_type == "nf4" and state.blocksize == BLOCK else None
    return "bf16" if weight.dtype == torch.bfloat16 and weight.is_contiguous() else None


@functools.cache
def compiled(kind: str) -> Kernel | None:
    """The kernel for weights of a kind; None where torch does not run on GNU OpenMP (then it is slower, no more)."""
    import llvmlite.binding as llvm

    try:
        openmp = ctypes.CDLL("libgomp.so.1")  # the one that torch loaded
        parallel = openmp.GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in ("omp_get_thread_num", "omp_get_num_threads"):
        llvm.add_symbol(name, ctypes.cast(getattr(openmp, name), ctypes.c_void_p).value)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    parsed = llvm.parse_assembly(module(kind))
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return Kernel(engine.get_function_address("entry"), parallel, (engine, machine))
