"""Each person's threshold between a thumb up and one down, a parameter beside the score head of a reward model.

There it is in the score's units, is trained by the same optimizer, and is in every checkpoint. The saved reward model
does not hold it: it says something of people, nothing of answers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trueup import ranks

NAME = "thresholds"
UNIT = 300.0  # of a score: AdamW moves a parameter by one learning rate a step, too little for a number as large as 1


def install(model: Any, count: int) -> None:
    """A trainable threshold for each of `count` people beside the score head of a classifier with adapters."""
    head = _head(model)
    head.register_parameter(NAME, nn.Parameter(torch.zeros(count, device=head.weight.device)))


def there(model: Any) -> bool:
    """Whether `install` was called."""
    return hasattr(_head(model), NAME)


def of(model: Any, person: Tensor, scores: Tensor, counts: Tensor) -> Tensor:
    """The threshold of each `person`, (rows,) indices, in the units of the `scores`, (rows,).

    Before the first step all are the mean of the scores that count, (rows,) bool: a fresh head says nothing of where 0
    is.
    """
    parameter = _head(model).get_parameter(NAME)
    if model.training and not parameter.detach().any():
        with torch.no_grad():
            parameter.fill_(ranks.mean(scores.detach(), counts) / UNIT)
    # the gradient is that of the threshold itself: UNIT times it would be all that is left when gradients are clipped
    scaled: Tensor = parameter + (UNIT - 1) * parameter.detach()
    return scaled[person]


def put(model: Any, values: Tensor) -> None:
    """Set the thresholds, (people,), given in the units of the scores."""
    with torch.no_grad():
        _head(model).get_parameter(NAME).copy_(values / UNIT)


def take(model: Any) -> list[float]:
    """Remove the thresholds from the model, and return them in the units of the scores."""
    head = _head(model)
    found: list[float] = (UNIT * head.get_parameter(NAME).detach()).tolist()
    delattr(head, NAME)
    return found


def _head(model: Any) -> Any:
    return model.get_base_model().score.modules_to_save["default"]
