"""Bugs to plant, one at a time: a module for each area."""

from __future__ import annotations

from . import (
    commands,
    data,
    evaluation,
    export,
    gguf,
    gpu,
    kernels,
    mathematics,
    pipeline,
    ranks,
    report,
    roles,
    sampling,
    server,
    stages,
    talk,
    wiring,
)
from .bug import Bug

__all__ = ["BUGS", "Bug"]

BUGS = [
    *commands.BUGS,
    *data.BUGS,
    *evaluation.BUGS,
    *export.BUGS,
    *gguf.BUGS,
    *gpu.BUGS,
    *kernels.BUGS,
    *mathematics.BUGS,
    *pipeline.BUGS,
    *ranks.BUGS,
    *report.BUGS,
    *roles.BUGS,
    *sampling.BUGS,
    *server.BUGS,
    *stages.BUGS,
    *talk.BUGS,
    *wiring.BUGS,
]
