"""Plant the bugs of the package bugs one at a time, in a copy of this tree, and see which tests fail. Run by hand:

    .venv/bin/python tests/planted/plant.py [--only WORD] [--part 1/3] [--table FILE] [--seen-to-pass]

Prints a table (bug, caught by), and adds its rows to FILE; bugs that FILE holds already are left out, so that a run
that was cut off goes on. The tests of the chosen bugs run without any bug first, and must all pass: a test that fails
anyway catches nothing. Exit code 1 when one fails, when a bug survives its tests, or no longer applies to the source.
The libraries are imported once, and each run of tests gets a process forked from there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300  # for the tests of one bug; a hang is noticed, too
PLACES = {"src/trueup/": "", "stages/": "stages/", "feedback/": "feedback/"}


def copy_tree(folder: Path) -> Path:
    """The tracked and new files of this tree, the package laid out as it is when installed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            for target in (folder / name, installed(folder, name)):
                if target is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / name, target)
    return folder


def installed(folder: Path, name: str) -> Path | None:
    """Where Python finds this file of the package."""
    for begin, below in PLACES.items():
        if name.startswith(begin):
            return folder / "installed" / "trueup" / below / name.removeprefix(begin)
    return None


def run_tests(folder: Path, tests: tuple[str, ...], *options: str, limit_s: int = LIMIT_S) -> tuple[int, list[str]]:
    """The exit code of pytest, and the names of the tests that failed."""
    said = folder / "said.txt"
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(limit_s)
        with said.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(folder)
        sys.path[:] = [str(folder / "installed"), *(path for path in sys.path if path != str(Path(__file__).parent))]
        os.environ |= {"PYTHONPATH": str(folder / "installed"), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        import pytest

        code = pytest.main(["-q", *options, "-p", "no:cacheprovider", *tests])
        sys.stdout.flush()
        os._exit(int(code))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return 1, [f"(ended by signal {os.WTERMSIG(status)})"]
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line.split()[1].split("[")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        failed = [f"pytest ended with {code}", *lines[-3:]]
    return code, list(dict.fromkeys(failed))


def plant(bug: Bug, folder: Path) -> tuple[str, list[str]]:
    """("caught" | "survives" | "does not apply" | "did not run", the tests that failed)."""
    file = installed(folder, bug.file)
    text = file.read_text(encoding="utf-8") if file is not None and file.exists() else ""
    if text.count(bug.old) != 1:
        return "does not apply", [f"the old text is found {text.count(bug.old)} times in {bug.file}"]
    assert file is not None
    file.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    try:
        code, failed = run_tests(folder, bug.tests, "-x")
    finally:
        file.write_text(text, encoding="utf-8")
    return {0: "survives", 1: "caught"}.get(code, "did not run"), failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="bugs of this area, or whose name holds this")
    parser.add_argument("--part", default="1/1", help="2/3: the second third of them")
    parser.add_argument("--seen-to-pass", action="store_true", help="do not run the tests without a bug first")
    parser.add_argument("--table", type=Path, help="a file that the rows are added to")
    chosen = parser.parse_args()
    number, parts = map(int, chosen.part.split("/"))
    bugs = [bug for bug in BUGS if chosen.only in bug.name or chosen.only == bug.area][number - 1 :: parts]
    if chosen.table is not None and chosen.table.exists():
        done = chosen.table.read_text(encoding="utf-8")
        bugs = [bug for bug in bugs if f"| {bug.name} |" not in done]
    import datasets  # noqa: F401 - what takes long to import, for all children
    import peft  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401
    from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer  # noqa: F401

    caught = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        folder = copy_tree(Path(scratch))
        tests = tuple(dict.fromkeys(test for bug in bugs for test in bug.tests))
        code, failed = run_tests(folder, tests, limit_s=20 * LIMIT_S) if bugs and not chosen.seen_to_pass else (0, [])
        if code:
            sys.exit(f"without any bug, these fail: {', '.join(failed)}")
        for bug in bugs:
            began = time.monotonic()
            state, failed = plant(bug, folder)
            caught += state == "caught"
            where = ", ".join(f"`{name}`" for name in failed)
            row = f"| {bug.area} | {bug.name} | {where if state == 'caught' else f'**{state}** {where}'} |"
            print(row, f"{time.monotonic() - began:.0f} s", flush=True)
            if chosen.table is not None:
                with chosen.table.open("a", encoding="utf-8") as out:
                    out.write(row + "\n")
    print(f"{caught} of {len(bugs)} caught")
    sys.exit(0 if caught == len(bugs) else 1)


if __name__ == "__main__":
    main()
