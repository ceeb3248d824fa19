"""A step of decoding as a CUDA graph, captured once and replayed, behind a check that it gives what it should."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]  # tokens and positions, (rows,) each -> logits, (rows, V)
CHECKED = 3  # steps that are computed both ways
MAX_ERROR = 0.01  # relative, of centred logits; the same kernels on the same numbers give 0


class Steps:
    """Computes steps, and replays them once the graph has given the same as the kernels one by one.

    A step must change nothing that makes a second call differ: it writes the same keys and values to the same places.
    `off` says why steps are not replayed; empty while they are, or may be.
    """

    def __init__(
        self, step: Step, *, capture: Callable[[Step, Tensor, Tensor], Step] | None = None, off: str = ""
    ) -> None:
        self.step, self.capture, self.off = step, capture or captured, off
        self.graph: Step | None = None
        self.num_checked = 0

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits after the step. The tensor may be overwritten by the next call."""
        if self.graph is not None and self.num_checked == CHECKED:
            return self.graph(tokens, positions)
        logits = self.step(tokens, positions)
        if self.off:
            return logits
        try:
            self.graph = self.graph or self.capture(self.step, tokens, positions)
            error = _error(self.graph(tokens, positions), logits)
        except RuntimeError as fault:
            self.off = f"the step cannot be captured ({str(fault).splitlines()[0][:120]})"
        else:
            self.num_checked += 1
            if not error <= MAX_ERROR:  # a NaN fails as well
                self.off = f"the captured step differs by {error:.1%} of the logits' spread"
        if self.off:
            self.graph = None
        return logits


def captured(step: Step, tokens: Tensor, positions: Tensor) -> Step:
    """`step` as a CUDA graph for as many rows. Raises RuntimeError where it cannot be captured."""
    if tokens.device.type != "cuda":
        raise RuntimeError("no GPU")
    inputs = tokens.clone(), positions.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what libraries set up at their first call must not be captured
        step(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step(*inputs)

    def replay(tokens: Tensor, positions: Tensor) -> Tensor:
        inputs[0].copy_(tokens)
        inputs[1].copy_(positions)
        graph.replay()
        return logits

    return replay


def _error(found: Tensor, right: Tensor) -> float:
    spread = (right - right.mean(-1, keepdim=True)).norm(dim=-1)
    return float(((found - right).norm(dim=-1) / spread).max())
