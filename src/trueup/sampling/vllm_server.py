"""A vLLM server of our own: in an environment and a process of its own, on 127.0.0.1, for as long as we run."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from trueup.errors import ServerError, StageError
from trueup.run import environments
from trueup.sampling import vllm_base

VERSION = "0.33.0"
NAME = f"vllm-{VERSION}"
INSTALL = "trueup vllm install"
BASE = "base"  # how requests name the model without an adapter
START_LIMIT_S = 900  # it reads weights, and captures CUDA graphs
STOP_LIMIT_S = 20
ANSWER_LIMIT_S = 3600  # of one completion, with all that wait before it
SPARE_BYTES = 3 * 2**30  # of the GPU for vLLM's activations and graphs, beside weights and cache
MOST_SHARE = 0.95  # of the GPU's memory that is free


@dataclass(frozen=True)
class Server:
    """Where a running server listens, what its requests need, and where it writes what went wrong."""

    url: str
    key: str
    log: Path
    max_tokens: int
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer, from JSON where it is. Raises ServerError when it refuses, or cannot be reached."""
        try:
            answer = httpx.post(
                self.url + path,
                json=body,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=ANSWER_LIMIT_S,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            reason = "the server has ended" if self.process.poll() is not None else type(error).__name__
            raise ServerError(f"vLLM, {path}", found=reason, next_step=f"read {self.log}") from None
        if answer.status_code != 200:
            raise ServerError(
                f"vLLM, {path}",
                found=f"status {answer.status_code}: {answer.text[:300]}",
                next_step=f"read {self.log}, or set engine: auto",
            )
        return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.text


def make_environment() -> Path:
    """The folder of vLLM's environment, made now where it is not there yet: several gigabytes."""
    return environments.make(NAME, f"vllm=={VERSION}", "vLLM's environment")


_running: dict[tuple[int, int, int], Server] = {}


def of(model: Any, tokenizer: Any, *, rank: int, max_tokens: int, rows: int, say: Callable[[str], None]) -> Server:
    """A server of the base of `model`, started when it is first asked for, which ends with this process.

    It takes adapters up to `rank`, and prompts with their answers up to `max_tokens`. Raises ServerError when it does
    not start, StageError when the GPU or the disk has no room for it.
    """
    key = id(model), rank, max_tokens
    if key not in _running or _running[key].process.poll() is not None:
        for other in list(_running):  # one at a time: each holds a copy of the weights on the GPU
            stop(_running.pop(other))
        _running[key] = _start(model, tokenizer, rank, max_tokens, rows, say)
    return _running[key]


def _start(model: Any, tokenizer: Any, rank: int, max_tokens: int, rows: int, say: Callable[[str], None]) -> Server:
    share = gpu_share(model, rows, max_tokens)
    place = environments.folder("vllm-runs")
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    needed = vllm_base.num_bytes(model)
    if (free := shutil.disk_usage(place).free) < 1.1 * needed:
        raise StageError(
            str(place),
            found=f"{free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB, for the base in 16 bits as vLLM reads it",
            next_step="make room, set TRUEUP_CACHE to a folder on another disk, or set engine: auto",
        )
    folder = Path(tempfile.mkdtemp(prefix="base-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    say("writing the base in 16 bits for vLLM")
    vllm_base.write(model, tokenizer, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder.with_suffix(".log")
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--served-model-name": BASE,
        "--max-lora-rank": str(rank),
        "--max-loras": "1",
        "--max-model-len": str(max_tokens),
        "--gpu-memory-utilization": f"{share:.3f}",
        "--logprobs-mode": "processed_logprobs",  # of the distribution that is drawn from
        "--generation-config": "vllm",  # nothing of the base's own, such as a repetition penalty
    }
    key = secrets.token_urlsafe(16)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                str(environments.folder(NAME) / "bin/vllm"),
                *("serve", str(folder), "--enable-lora"),
                *(word for pair in options.items() for word in pair),
            ],
            env=_variables(key),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_us(),
        )
    server = Server(f"http://127.0.0.1:{port}", key, log, max_tokens, process)
    atexit.register(stop, server)
    _await(server, say)
    return server


def _await(server: Server, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while server.process.poll() is None and (gone := time.monotonic() - began) < START_LIMIT_S:
        try:
            if httpx.get(f"{server.url}/health", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        say(f"vLLM starts, {gone:.0f} s")
        time.sleep(0.5)
    stop(server)
    raise ServerError("vLLM", found="the server did not start", next_step=f"read {server.log}, or set engine: auto")


def stop(server: Server) -> None:
    """End the server and all its processes."""
    if server.process.poll() is not None:
        return
    os.killpg(server.process.pid, signal.SIGTERM)
    try:
        server.process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def gpu_share(model: Any, rows: int, max_tokens: int) -> float:
    """The share of the GPU's memory that vLLM may take: weights, a cache of `rows` answers, and what it works with.

    Raises StageError where less is free: our own 4-bit base stays on the GPU beside it.
    """
    import torch

    config = model.get_base_model().config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache = 4 * config.num_hidden_layers * rows * max_tokens * heads * head_dim  # bytes: keys and values in 16 bits
    weights = vllm_base.num_bytes(model)
    free, total = torch.cuda.mem_get_info()
    least = weights + SPARE_BYTES
    if least > MOST_SHARE * free:
        raise StageError(
            "engine: vllm",
            found=f"{free / 1e9:.1f} GB of the GPU's {total / 1e9:.1f} GB are free",
            expected=f"{least / 1e9:.1f} GB: vLLM holds the base in 16 bits beside our own in 4",
            next_step="set engine: auto",
        )
    return min(least + cache, MOST_SHARE * free) / total


def _variables(key: str) -> dict[str, str]:
    return os.environ | {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }


@functools.cache
def _end_with_us() -> Callable[[], None]:
    """What a new process calls so that Linux ends it when we end, however that happens."""
    libc, death_signal = ctypes.CDLL(None), 1
    return lambda: libc.prctl(death_signal, signal.SIGTERM)
