"""The process in which `trueup plan --probe` measures a stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trueup.planning import probe
from trueup.stages import STAGES

if __name__ == "__main__":
    _, what, name, scratch = sys.argv
    sys.stdout.write("\n" + json.dumps(probe.child(STAGES, what, name, Path(scratch))) + "\n")
