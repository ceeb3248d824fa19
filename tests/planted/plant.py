"""Plant the bugs of bugs.py one at a time, in a copy of this tree, and see which tests fail. Run by hand:

    .venv/bin/python tests/planted/plant.py [--jobs 2] [--only WORD] [--prefix "nice -n 5"] [--out docs/planted.md]

Prints a table (bug, caught by). Exit code 1 when a bug survives its tests, or no longer applies to the source.
"""

from __future__ import annotations

import argparse
import os
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
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


def run_tests(folder: Path, tests: tuple[str, ...], prefix: list[str]) -> tuple[int, list[str]]:
    """The exit code of pytest, and the names of the tests that failed."""
    command = [*prefix, sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder / "installed"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, ["(no end within the time limit)"]
    lines = done.stdout.splitlines()
    failed = [line.split()[1].split("[")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode not in (0, 1):
        failed = [f"pytest ended with {done.returncode}", *lines[-3:]]
    return done.returncode, list(dict.fromkeys(failed))


def plant(bug: Bug, folder: Path, prefix: list[str]) -> tuple[str, list[str]]:
    """("caught" | "survives" | "does not apply" | "did not run", the tests that failed)."""
    file = installed(folder, bug.file)
    text = file.read_text(encoding="utf-8") if file is not None and file.exists() else ""
    if text.count(bug.old) != 1:
        return "does not apply", [f"the old text is found {text.count(bug.old)} times in {bug.file}"]
    assert file is not None
    file.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    try:
        code, failed = run_tests(folder, bug.tests, prefix)
    finally:
        file.write_text(text, encoding="utf-8")
    return {0: "survives", 1: "caught"}.get(code, "did not run"), failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="copies of the tree at work at once")
    parser.add_argument("--only", default="", help="bugs whose name or area holds this")
    parser.add_argument("--prefix", default="", help="a command that each run of pytest is passed to")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    chosen = parser.parse_args()
    bugs = [bug for bug in BUGS if chosen.only in bug.name or chosen.only == bug.area]
    prefix = shlex.split(chosen.prefix)
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch, ThreadPoolExecutor(chosen.jobs) as pool:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(chosen.jobs):
            copies.put(copy_tree(Path(scratch) / str(number)))

        def one(bug: Bug) -> tuple[Bug, str, list[str]]:
            folder = copies.get()
            try:
                state, failed = plant(bug, folder, prefix)
            finally:
                copies.put(folder)
            print(f"{state}: {bug.area}, {bug.name}: {' '.join(failed)}", file=sys.stderr, flush=True)
            return bug, state, failed

        results = list(pool.map(one, bugs))
    rows = [
        f"| {bug.area} | {bug.name} | {', '.join(f'`{name}`' for name in failed) if state == 'caught' else state} |"
        for bug, state, failed in results
    ]
    table = "\n".join(["| area | bug | caught by |", "|---|---|---|", *rows])
    print(table)
    caught = sum(state == "caught" for _, state, _ in results)
    print(f"\n{caught} of {len(results)} caught", file=sys.stderr)
    if chosen.out is not None:
        chosen.out.write_text(HEAD + table + "\n", encoding="utf-8")
    sys.exit(0 if caught == len(results) else 1)


HEAD = """# Planted bugs

Each of these bugs was planted by itself in a copy of the source, and the tests named for it were run:
`.venv/bin/python tests/planted/plant.py`. The last column names the first test that failed. The bugs are listed in
`tests/planted/bugs.py`; after a change that moves code, the script names those whose place is no longer found.

"""

if __name__ == "__main__":
    main()
