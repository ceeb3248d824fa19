"""guard.cpp, compiled once on this machine, and loaded before torch."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


def compiler() -> str | None:
    """A C++ compiler: $CXX, else c++, else g++ or clang++; None where there is none."""
    candidates = (os.environ.get("CXX", "c++"), "g++", "clang++")
    return next((found for name in candidates if (found := shutil.which(name))), None)


def load() -> None:
    """Load the guard into this process. Raises RuntimeError when torch was imported already, or without a compiler."""
    if "torch" in sys.modules:
        raise RuntimeError("the emulated device has to be loaded before torch is imported")
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    torch_folder = Path(found.origin).parent
    built = _compiled(torch_folder)
    for name in ("libtorch_global_deps.so", "libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL)


def _compiled(torch_folder: Path) -> Path:
    """The library, from a cache by the source and torch's version; made beside it and moved there in one step."""
    of = SOURCE.read_bytes() + importlib.metadata.version("torch").encode() + str(torch_folder).encode()
    cache = Path(tempfile.gettempdir()) / f"trueup-guard-{os.getuid()}"
    built = cache / f"{hashlib.sha256(of).hexdigest()[:16]}.so"
    if built.exists():
        return built
    if (command := compiler()) is None:
        raise RuntimeError("no C++ compiler: the emulated device needs one, once")
    cache.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        made = Path(scratch) / "guard.so"
        options = ("-O0", "-fPIC", "-shared", "-std=c++20", f"-I{torch_folder}/include", f"-L{torch_folder}/lib")
        subprocess.run([command, *options, str(SOURCE), "-lc10", "-ltorch_cpu", "-o", str(made)], check=True)
        made.replace(built)
    return built
