"""Fill a real disk under each stage: a file system in memory, of limited size. Needs the right to mount one.

    python tests/faults/full_disk.py FOLDER [STAGE...]

A stage begins on a disk that is full to the last page. Each time it says so, the disk grows by a quarter of what the
stage needs, and the same command is run again, until the stage is complete; what it made is compared with a run that
nobody interrupted. Then the same with names instead of bytes: a file system that takes no further file. What was tried
is kept in FOLDER/full_disks.jsonl.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from built import STAGES, Built, Ended, forked, full_disk_is_said, import_everything, place

from trueup.run.files import append_jsonl, read_appended

STEPS = 4  # the disk grows by this part of what the stage needs
LARGE = {"size": 2**30, "nr_inodes": 10**6}
MOST = 40  # times that a disk may be full


class Small:
    """A mounted file system in memory whose size in bytes, or number of files, can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def allow(self, **limits: int) -> None:
        """Set the limits, others as large as ever needed."""
        options = ",".join(f"{name}={number}" for name, number in (LARGE | limits).items())
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def used(self, limit: str) -> int:
        """Bytes or files that are taken."""
        found = os.statvfs(self.folder)
        if limit == "size":
            return (found.f_blocks - found.f_bfree) * found.f_frsize
        return found.f_files - found.f_ffree


@contextmanager
def mounted(folder: Path) -> Iterator[Small | None]:
    """A small disk at `folder`; None where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE['size']}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield Small(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def filled(every: Built, stage: str, limit: str, run: Callable[[Path, str], Ended] = forked) -> tuple[int, list[str]]:
    """(how often the disk was full, what is wrong) for one stage; `limit` is size, or nr_inodes."""
    with mounted(every.folder / "disk") as disk:
        if disk is None:
            sys.exit("mounting needs root")
        here = disk.folder / "run"
        shutil.copytree(every.before(stage), here)
        allowed = disk.used(limit)
        shutil.copytree(place(every.whole, stage), disk.folder / "whole")
        step = max((disk.used(limit) - allowed) // STEPS, 1)
        shutil.rmtree(disk.folder / "whole")
        for number in range(MOST):
            disk.allow(**{limit: allowed + number * step})
            ended = run(here, stage)
            if ended.returncode == 0:
                return number, every.differences(here, stage)
            if wrong := full_disk_is_said(ended):
                return number + 1, wrong
    return MOST, [f"it was full {MOST} times"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="*", default=STAGES)
    asked = parser.parse_intermixed_args()
    every = Built(asked.folder.resolve())
    kept = every.folder / "full_disks.jsonl"
    import_everything()
    for stage in STAGES[: 1 + max(map(STAGES.index, asked.stages))]:
        with every.building(stage) as here:
            assert here is None or forked(here, stage).returncode == 0
    done = {(row["stage"], row["limit"]) for row in read_appended(kept)[0]}
    for stage in asked.stages:
        for limit in ("size", "nr_inodes"):
            if (stage, limit) not in done:
                number, wrong = filled(every, stage, limit)
                append_jsonl(kept, [{"stage": stage, "limit": limit, "full": number, "wrong": wrong}])
                print(
                    f"{stage}, {limit}: full {number} times -> {'; '.join(wrong) or 'equal'}",
                    file=sys.stderr,
                    flush=True,
                )
    rows, _ = read_appended(kept)
    print("| stage | times the disk was full | times it took no file | as if left alone |")
    print("|---|---|---|---|")
    for stage in STAGES:
        mine = {row["limit"]: row for row in rows if row["stage"] == stage}
        if len(mine) == 2:
            good = not any(row["wrong"] for row in mine.values())
            print(f"| {stage} | {mine['size']['full']} | {mine['nr_inodes']['full']} | {'yes' if good else 'no'} |")
    sys.exit(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
