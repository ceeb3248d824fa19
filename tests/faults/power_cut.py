"""Cut the power at every fsync and rename of a stage, look at what is left, and go on from it.

    python tests/faults/power_cut.py FOLDER [--resumed N] [--seconds T] [STAGE...]

What a power cut leaves is simulated, as `Disk` says, at every call that orders what reaches a disk. In each such state
every record, seal and plan that is there must be true. From N of a stage's states, spread evenly over all of them, the
same command is run in a process of its own (a fork: the libraries are imported once), and what it makes is compared
with a run that nobody interrupted. What was tried is kept in FOLDER/power_cuts.jsonl; the same command goes on behind
it.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from built import STAGES, Built, forked, import_everything

from trueup.run.files import append_jsonl, read_appended, read_json

KEPT = "power_cuts.jsonl"
LEAVES = ("empty", "missing")  # what becomes of a file whose contents were not waited for


class Disk:
    """Keeps, before each call that orders what reaches a disk, what a machine that stops there may come back with.

    Every name is there. Of a file that was added to since it was waited for, what was there then; any other file that
    was not waited for is empty, as ext4 and XFS leave it, or missing. Only files that changed since the beginning are
    kept, in `states/<number>/<empty|missing>/`.
    """

    def __init__(self, folder: Path, states: Path, patch: Callable[[Any, str, Any], None] = setattr) -> None:
        self.folder, self.states, self.number = folder, states, 0
        self.waited_for: dict[int, tuple[tuple[int, int], bytes]] = {}
        self.before = {path: _stamp(path) for path in folder.rglob("*") if path.is_file()}
        for name in ("fsync", "replace", "rename"):
            patch(os, name, self.watched(getattr(os, name), name == "fsync"))

    def watched(self, call: Callable[..., Any], waits: bool) -> Callable[..., Any]:
        def watching(*arguments: Any, **options: Any) -> Any:
            self.keep()
            found = call(*arguments, **options)
            path = Path(f"/proc/self/fd/{arguments[0]}").readlink() if waits else None
            if path is not None and path.is_file():
                self.waited_for[path.stat().st_ino] = _stamp(path), path.read_bytes()
            return found

        return watching

    def keep(self) -> None:
        """Keep what is left if the power is cut now."""
        self.number += 1
        for path in self.folder.rglob("*"):
            if path.is_file() and self.before.get(path) != _stamp(path):
                for leaves in LEAVES:
                    self._keep(path, leaves)

    def _keep(self, path: Path, leaves: str) -> None:
        contents = path.read_bytes()
        stamp, then = self.waited_for.get(path.stat().st_ino, (None, b""))
        if stamp != _stamp(path):
            contents = then if contents.startswith(then) else b""
        if contents or leaves == "empty":
            to = self.states / f"{self.number:03}" / leaves / path.relative_to(self.folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(contents)


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def untrue(state: Path, stage: str, makes: Any) -> list[str]:
    """What is promised in a state and not kept: a record of other files, a seal of a torn checkpoint, a torn plan."""
    from trueup.errors import StageError
    from trueup.training.checkpoints import is_whole

    seals = state.rglob("trueup-manifest.json")
    found = [f"{seal} seals a torn checkpoint" for seal in seals if not is_whole(seal.parent)]
    for folder in (*state.rglob(stage), *state.rglob(f"{stage}.partial")):
        if (folder / "plan.json").exists() and read_json(folder / "plan.json") is None:
            found.append(f"{folder}: its plan is torn")
        try:
            found += [f"{folder}: {words}" for words in makes(folder).altered() if makes(folder).is_there()]
        except StageError as error:
            found += [str(error)] if makes(folder).is_there() else []
    return found


def distinct(states: Path) -> Iterator[Path]:
    """The states, in order, less those that are as one before."""
    seen = set()
    for state in sorted(states.glob("*/*")):
        files = [
            path for path in sorted(state.rglob("*")) if path.is_file() and path.name not in (".lock", ".hashes.json")
        ]
        found = tuple((path.relative_to(state), hashlib.sha256(path.read_bytes()).digest()) for path in files)
        if found not in seen:
            seen.add(found)
            yield state


def spread(states: list[Path], count: int) -> list[Path]:
    """`count` of the states, evenly, the last one among them."""
    count = min(count, len(states))
    return [states[(i + 1) * len(states) // count - 1] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="*", default=STAGES)
    parser.add_argument("--resumed", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_intermixed_args()
    ends = time.monotonic() + asked.seconds
    every = Built(asked.folder.resolve())
    import_everything()
    for stage in STAGES[: 1 + max(map(STAGES.index, asked.stages))]:
        if time.monotonic() < ends:
            build(every, stage)
    for stage in asked.stages:
        go_on(every, stage, asked.resumed, ends)
    print("| stage | fsyncs and renames | different states | untrue promises | gone on from | as if left alone |")
    print("|---|---|---|---|---|---|")
    rows, _ = read_appended(every.folder / KEPT)
    for stage in STAGES:
        mine = [row for row in rows if row["stage"] == stage]
        good = [not row["wrong"] for row in mine if "state" in row]
        for row in mine:
            if "calls" in row:
                figures = (stage, row["calls"], row["distinct"], len(row["wrong"]), len(good), sum(good))
                print("| " + " | ".join(map(str, figures)) + " |")
    sys.exit(any(row["wrong"] for row in rows))


def build(every: Built, stage: str) -> None:
    """Build a stage once, with the power cut at each call that orders what reaches the disk; keep a line on it."""
    from trueup.stages import STAGES as MODULES

    makes = next(one.makes for one in MODULES if one.name == stage)
    states = states_of(every, stage)
    with every.building(stage) as here:
        if here is None:
            return
        shutil.rmtree(states, ignore_errors=True)
        done = forked(here, stage, lambda: Disk(here / "runs", states))
        assert done.returncode == 0, done.stdout
        found = list(distinct(states))
        row = {"stage": stage, "calls": len(list(states.iterdir())), "distinct": len(found)}
        row |= {"wrong": [words for state in found for words in untrue(state, stage, makes)]}
        append_jsonl(every.folder / KEPT, [row])
        print(row, file=sys.stderr, flush=True)


def go_on(every: Built, stage: str, count: int, ends: float) -> None:
    """Go on from `count` states of a stage that is built; keep a line on each."""
    states, here = states_of(every, stage), every.folder / f"cut-{stage}"
    tried = {row.get("state") for row in read_appended(every.folder / KEPT)[0] if row["stage"] == stage}
    for state in spread(list(distinct(states)), count):
        name = str(state.relative_to(states))
        if name in tried or time.monotonic() > ends:
            continue
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(every.before(stage), here)
        shutil.copytree(state, here / "runs", dirs_exist_ok=True)
        done = forked(here, stage)
        wrong = every.differences(here, stage) if done.returncode == 0 else [f"stuck: {done.stdout[-3000:]}"]
        append_jsonl(every.folder / KEPT, [{"stage": stage, "state": name, "wrong": wrong}])
        print(stage, name, wrong or "equal", file=sys.stderr, flush=True)


def states_of(every: Built, stage: str) -> Path:
    return every.folder / f"states-{stage}"


if __name__ == "__main__":
    main()
