"""What a user can cause ends in one message and exit code 2; a fault of ours in one line, a log and exit code 1."""

from __future__ import annotations

import errno
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from trueup import ranks
from trueup.errors import TrueupError, visible

INTERRUPTED = 130  # as a shell says of SIGINT
DEBUG = "trueup.debug"  # key of click's meta: tracebacks are shown
DOCUMENT = "trueup.document"  # key of click's meta: what --json prints, where it is asked for
CURES = {  # of an error of the system that is no fault of ours
    errno.EACCES: "get the right to do that, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOTDIR: "move the file away that is where a folder should be",
    errno.EEXIST: "move the file away that is where a folder should be",
}
VARIANT_IS = "variant="  # begins the override that --as is
COMMAND = re.compile(r"(?P<before>trueup (?P<command>\S+))? RUN\.yaml(?P<own>( --(as|set) \S+)*)")
FOLDER = "trueup.run_folder"  # key of click's meta: the folder of the run, once it is known


def remember_run_file(path: Path, overrides: Sequence[str] = ()) -> None:
    """Messages of the command that runs name its run file, and its overrides, as a shell reads them."""
    click.get_current_context().find_root().obj = (path, tuple(overrides))


def typed(run_file: Path, overrides: Sequence[str], command: str = "") -> str:
    """The run file and its overrides as a shell reads them; a variant by --as where `command` takes that."""
    said = [f"--set {shlex.quote(one)}" for one in overrides]
    if _takes_variant(command):
        named = {one: f"--as {shlex.quote(one.removeprefix(VARIANT_IS))}" for one in overrides if one != VARIANT_IS}
        said = [
            named[one] if one in named and one.startswith(VARIANT_IS) else option
            for one, option in zip(overrides, said, strict=True)
        ]
    return " ".join([shlex.quote(str(run_file)), *said])


def filled(message: str) -> str:
    """`message` with the run file of the command that runs, and its overrides, where it says RUN.yaml.

    An option that stands behind RUN.yaml in the message replaces the override that was typed.
    """
    known = click.get_current_context().find_root().obj
    if known is None:
        return message
    path, overrides = known

    def put(found: re.Match[str]) -> str:
        own = found["own"] or ""
        besides = [
            one
            for one in overrides
            if not (one.startswith(VARIANT_IS) and " --as " in own)
            and not (one.startswith("round=") and " --set round=" in own)
        ]
        return f"{found['before'] or ''} {typed(path, besides, found['command'] or '')}{own}"

    return COMMAND.sub(put, message)


def _takes_variant(command: str) -> bool:
    root = click.get_current_context().find_root().command
    known = root.commands.get(command) if isinstance(root, click.Group) else None
    return known is not None and any(option.name == "variant" for option in known.params)


def remember_folder(folder: Path) -> None:
    """The folder of the run, once it is known: its log takes the traceback of a fault."""
    click.get_current_context().meta[FOLDER] = folder


class Group(click.Group):
    """A group whose commands end in a message, never in a traceback; each of them takes --debug."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order one types them, which is that of their registration, not of the alphabet."""
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, or a group whose commands are all there, and give each of them --debug."""
        for leaf in _leaves(cmd):
            if not any(option.name == "debug" for option in leaf.params):
                leaf.params.append(debug_option())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nstopped; what was made is kept, and the same command goes on", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:  # `trueup status | head`: click ends quietly
                raise
            sys.exit(_say(error, ctx))
        finally:
            if "rich.console" in sys.modules:  # a progress bar that was interrupted leaves the cursor hidden
                sys.modules["rich.console"].Console(stderr=True).show_cursor(True)


def _leaves(command: click.Command) -> Iterator[click.Command]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _leaves(inner)
    else:
        yield command


def debug_option() -> click.Option:
    """--debug, which may stand before the command and behind it."""

    def remember(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )


def _say(error: Exception, ctx: click.Context) -> int:
    """Print what ended the command; return the exit code."""
    from trueup.run.stage import Waiting

    if isinstance(error, Waiting):
        click.echo(str(error), err=DOCUMENT in ctx.meta)
        return Waiting.exit_code
    if not ranks.is_first():
        time.sleep(ranks.PATIENCE_S)  # what every rank meets the first one says
    if ctx.meta.get(DEBUG):
        traceback.print_exception(error)
    lines, code, logged = _lines(error)
    if logged:
        from trueup.cli import fault_log

        log = fault_log.keep(error, ctx.meta.get(FOLDER))
        told = f"the traceback is in {log}" if log else "no log could be written; --debug shows the traceback"
        if log is None and code == 1:
            told = "the traceback is above, no log could be written"
            if not ctx.meta.get(DEBUG):
                traceback.print_exception(error)
        report = "; please report it with the output of `trueup doctor`" if code == 1 else ""
        lines.append(f"  {told}{report}")
    whose = "" if ranks.count() == 1 else f"rank {ranks.this()} of {ranks.count()}: "
    click.echo(f"error: {whose}" + "\n".join(lines), err=True)
    return code


def _lines(error: Exception) -> tuple[list[str], int, bool]:
    """(what to say, the exit code, whether the traceback is worth a log)."""
    if isinstance(error, TrueupError):
        return [filled(str(error))], 2, isinstance(error.__cause__, Exception)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or Path.cwd()  # a failed write does not name its file
        return [visible(f"{where}: the disk is full\n  next: free some space, then repeat the command")], 2, False
    if isinstance(error, OSError):
        found = f"{error.filename}: {error.strerror}" if error.filename else _first_line(error)
        cure = CURES.get(error.errno or 0)
        return [visible(found + (f"\n  next: {cure}, then repeat the command" if cure else ""))], 2, True
    if _is_lost_rank(error):
        again = filled("see what it said; the same command, RUN.yaml and all, goes on from the last checkpoint")
        return ["another rank has ended, and this one stops with it", f"  next: {again}"], 2, False
    if is_out_of_memory(error):
        return (
            ["out of memory", filled("  next: trueup plan RUN.yaml says what fits, and what would make it fit")],
            2,
            True,
        )
    return [f"a fault of trueup itself: {visible(_first_line(error))}"], 1, True


def _first_line(error: Exception) -> str:
    return (traceback.format_exception_only(error)[-1].strip().splitlines() or [type(error).__name__])[0]


def _is_lost_rank(error: Exception) -> bool:
    """torch has classes for what NCCL and its store say, gloo says it in words."""
    said = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    lost = "DistError" in kinds or (isinstance(error, RuntimeError) and any(words in str(error) for words in said))
    return ranks.count() > 1 and lost


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a class for GPUs alone; a CPU's allocator and CUDA's libraries say so in words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
