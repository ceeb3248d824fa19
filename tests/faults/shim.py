"""Runs `trueup` with its file operations below a folder counted, and kills it at one of them.

    python shim.py FOLDER LOG NUMBER HOW trueup's arguments

Operation NUMBER (from 1; 0: none) is where the process ends by SIGKILL, HOW it was going: `before` it, `torn` half way
through what it writes, `after` it. LOG gets a line for each operation: its kind and the file's name.

What Python itself calls is seen, and the calls that hand a file to safetensors or to torch.save. Nothing else is
changed: each trial is a plain new process.
"""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT, LOG, NUMBER, HOW = Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3]), sys.argv[4]
open_file, write_log = io.open, os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
seen = 0


def below(path: Any) -> Path | None:
    """The path from ROOT, when it is below it."""
    if isinstance(path, int):
        path = Path(f"/proc/self/fd/{path}").readlink()
    try:
        return Path(os.path.normpath(Path.cwd() / path)).relative_to(ROOT)
    except (TypeError, ValueError):
        return None


def at(kind: str, path: Any, whole: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
    """Do one operation; end here if it is the one."""
    global seen
    name = below(path)
    if name is None:
        return whole()
    seen += 1
    os.write(write_log, f"{kind}\t{name}\n".encode())
    if seen != NUMBER:
        return whole()
    if HOW == "torn" and half is not None:
        half()
    elif HOW == "after":
        whole()
    os.kill(os.getpid(), signal.SIGKILL)


class Written:
    """A file that is written to: each write is an operation."""

    def __init__(self, file: Any, path: Any) -> None:
        self._file, self._path = file, path

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return at("write", self._path, lambda: self._file.write(data), half)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "Written":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
    if not set(mode) & set("wax+") or below(path) is None:
        return open_file(path, mode, *arguments, **options)
    return Written(at("open", path, lambda: open_file(path, mode, *arguments, **options)), path)


def watch(module: Any, name: str, which: int = 0, torn: bool = False) -> None:
    """Make a call of `module` an operation on the path that is its argument `which`."""
    call = getattr(module, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        path = arguments[which] if len(arguments) > which else options.get("filename", options.get("f"))
        if not isinstance(path, int | str | os.PathLike):
            return call(*arguments, **options)

        def half() -> None:
            call(*arguments, **options)
            os.truncate(path, Path(path).stat().st_size // 2)

        return at(name, path, lambda: call(*arguments, **options), half if torn else None)

    setattr(module, name, watched)


def main() -> None:
    builtins.open = io.open = opened
    for name in ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "fsync", "truncate"):
        watch(os, name)
    if sys.argv[5] != "collect":  # which loads no torch
        import safetensors.torch
        import torch

        watch(safetensors.torch, "save_file", 1, torn=True)
        watch(torch, "save", 1, torn=True)
    sys.argv[1:] = sys.argv[5:]
    from trueup.cli.main import main as trueup

    trueup()


if __name__ == "__main__":
    main()
