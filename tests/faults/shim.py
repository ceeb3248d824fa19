"""Runs `trueup` with its file operations below a folder noted, and ends it, or fills the disk, at one of them.

    python shim.py FOLDER LOG FAULTS trueup's arguments

FAULTS is a JSON list of [how, kind of operation, file, number]. The first operation that fits one of them is where it
happens: it is the operation of this kind on this file with this number (from 1), or a later one. The process is ended
by SIGKILL `before` the operation, half way through what it writes (`torn`) or `after` it; or the disk is `full` half
way through the operation and stays full. LOG gets a line for each operation and for the fault, and is added to, so
that numbers go on when the same stage is started again.

What is seen are the calls of Python, and the calls that hand a file to safetensors or to torch.save. Nothing else is
changed. `watch_all` has to come before the libraries are imported, `begin` in the process that is to end.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fault = tuple[str, str, int]  # how, the operation, which time
FILLS = {"open", "write", "save_file", "save", "mkdir", "copyfile"}  # operations that take space
open_file = io.open
root: Path | None = None  # nothing is seen before `begin`
faults: list[Fault] = []
seen: Counter[str] = Counter()
log = -1
full = within = False


def begin(folder: Path, note: Path, asked: str) -> None:
    """From now on, note operations below `folder` in `note`, and make the faults in the JSON `asked` happen."""
    global root, log
    seen.update(note.read_text().splitlines() if note.exists() else [])
    log = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    faults.extend((how, f"{kind}\t{name}", number) for how, kind, name, number in json.loads(asked))
    root = folder.resolve()


def below(path: Any, folder: int | None = None) -> Path | None:
    """The path from the root, when it is below it; `folder` is an open one that the path starts from."""
    if root is None:
        return None
    try:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        start = Path.cwd() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
        return Path(os.path.normpath(start / path)).relative_to(root)
    except (OSError, TypeError, ValueError):
        return None


def no_space(kind: str) -> Exception:
    """What the operation raises on a full disk."""
    said = "No space left on device"
    if kind == "save_file":
        from safetensors import SafetensorError

        return SafetensorError(f"Error while serializing: I/O error: {said} (os error 28)")
    if kind == "save":
        return RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    return OSError(errno.ENOSPC, said)


def at(kind: str, name: Path | None, whole: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
    """Do one operation, unless it is where something happens. What it is made of itself is no operation."""
    global within
    if name is None or within:
        return whole()
    line = f"{kind}\t{name}"
    seen[line] += 1
    os.write(log, f"{line}\n".encode())
    if full and kind in FILLS - {"open"}:  # a name of an empty file still finds its place
        raise no_space(kind)
    within = True
    try:
        return happens(kind, line, whole, half)
    finally:
        within = False


def happens(kind: str, line: str, whole: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
    """Do an operation, or what is to happen at it."""
    global full
    how = next((how for how, what, number in faults if what == line and seen[line] >= number), None)
    if how is None or full:
        return whole()
    os.write(log, f"fault\t{how}\t{line}\n".encode())
    if how in ("torn", "full") and half is not None:
        half()
    if how == "after":
        with contextlib.suppress(OSError):  # a folder that is there already
            whole()
    if how == "full":
        full = True
        used = shutil.disk_usage
        shutil.disk_usage = lambda path: used(path)._replace(free=0)  # type: ignore[assignment]
        raise no_space(kind)
    os.kill(os.getpid(), signal.SIGKILL)


class Written:
    """A file that is written to: each write is an operation."""

    def __init__(self, file: Any, name: Path) -> None:
        self._file, self._name = file, name

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return at("write", self._name, lambda: self._file.write(data), half)

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
    name = below(path) if set(mode) & set("wax+") else None
    if name is None:
        return open_file(path, mode, *arguments, **options)
    return Written(at("open", name, lambda: open_file(path, mode, *arguments, **options)), name)


def watch(module: Any, name: str, which: int = 0, torn: bool = False) -> None:
    """Make a call of `module` an operation on the path that is its argument `which`."""
    call = getattr(module, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        path = arguments[which] if len(arguments) > which else options.get("filename", options.get("f"))

        def half() -> None:
            call(*arguments, **options)
            os.truncate(path, Path(path).stat().st_size // 2)

        found = below(path, options.get("dir_fd"))
        return at(name, found, lambda: call(*arguments, **options), half if torn else None)

    setattr(module, name, watched)


def watch_all(libraries: bool = True) -> None:
    """Make operations of all calls that are seen; without `libraries`, those of torch and safetensors are not."""
    builtins.open = io.open = opened
    for name in ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "fsync", "truncate"):
        watch(os, name)
    watch(shutil, "copyfile", 1, torn=True)
    if libraries:
        import safetensors.torch
        import torch

        watch(safetensors.torch, "save_file", 1, torn=True)
        watch(torch, "save", 1, torn=True)


def main() -> None:
    begin(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    watch_all(libraries=sys.argv[4] != "collect")  # which loads none
    sys.argv[1:] = sys.argv[4:]
    from trueup.cli.main import main as trueup

    trueup()


if __name__ == "__main__":
    main()
