"""LLVM's intermediate representation, compiled for the processor at hand and run on torch's own OpenMP threads.

A second pool of threads would wait for the first. Compiling takes 0.01 to 0.05 s a module, once a process.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Kernel:
    """`entry` of a module, called on every thread with the address of its arguments, 64 bits each."""

    def __init__(self, entry: int, parallel: Any, owner: Any) -> None:
        self.entry, self.parallel, self.owner = entry, parallel, owner  # of the machine code: its engine

    def run(self, arguments: ctypes.Array[ctypes.c_int64]) -> None:
        self.parallel(self.entry, arguments, torch.get_num_threads(), 0)


class Arguments:
    """What a kernel is called with, by name; tensors as addresses, and kept."""

    def __init__(self, names: Sequence[str], **values: Tensor | int) -> None:
        self.names, self.kept = names, values
        self.array = (ctypes.c_int64 * len(names))()
        self.set(**values)

    def set(self, **values: Tensor | int) -> None:
        """The caller keeps these until the kernel ran."""
        for name, value in values.items():
            self.array[self.names.index(name)] = value.data_ptr() if isinstance(value, Tensor) else value


@functools.cache
def compiled(text: str) -> Kernel | None:
    """The kernel of a module; None where torch does not run on GNU OpenMP (then it is slower, no more)."""
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
    for name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"):
        llvm.add_symbol(name, ctypes.cast(getattr(openmp, name), ctypes.c_void_p).value)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    # vectors and unrolling are in the text: LLVM's own passes took four fifths of the time, and made nothing faster
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=0))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return Kernel(engine.get_function_address("entry"), parallel, (engine, machine))
