"""Gradients that keep their place in memory from step to step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def place(parameters: Iterable[Tensor]) -> None:
    """Allocate gradients now, for optimizers that zero them.

    Allocated in a backward pass, between activations that are freed, they cut up the memory that the next step needs.
    """
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
