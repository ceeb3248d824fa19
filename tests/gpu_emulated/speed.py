"""Stages with and without the GPU's own parts, on the emulated device, in a process that `emulated.run` starts.

Takes `folder`, `capability`, `stages`, and `parts`, lists of values of TRUEUP_GPU. Reports of each list and stage the
metrics, the launches by operator, and the syncs in gpu/.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import chain
import emulated
import pretend


def main() -> None:
    given = emulated.given()
    gpu = pretend.install(tuple(given["capability"]))
    from tiny import open_run

    base = Path(given["folder"])
    chain.make(base / "given")
    found: dict[str, dict[str, Any]] = {}
    for parts in given["parts"]:
        os.environ["TRUEUP_GPU"] = parts
        folder = Path(shutil.copytree(base / "given", base / (parts.replace(",", "-") or "usual")))
        pipeline = open_run(folder, *given.get("set", ()))
        found[parts] = {}
        for stage in given["stages"]:
            with gpu.measured() as counts:
                pipeline.execute(stage)
            found[parts][stage] = {
                "metrics": json.loads((pipeline.path(stage) / "record.json").read_text())["metrics"],
                "launches": dict(counts.launches),
                "syncs": {f"{kind} {line}": n for (kind, line), n in counts.syncs.items() if "gpu/" in line},
            }
    emulated.report(found)


if __name__ == "__main__":
    main()
