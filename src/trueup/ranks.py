"""Several processes that work on one run, as `accelerate launch` and `torchrun` start them.

Each is a rank. The first of them, rank 0, writes, prints, holds the run's lock and talks to servers; the others help it
to train and to sample. One process alone is rank 0 of one, and nothing here does anything then.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from trueup.errors import TrueupError
from trueup.rank import PATIENCE_S as PATIENCE_S
from trueup.rank import alone as alone
from trueup.rank import count as count
from trueup.rank import is_first as is_first
from trueup.rank import quiet as quiet
from trueup.rank import this as this

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)  # of ranks that wait for another; one that dies is noticed at once


@functools.cache
def _messages() -> Any:
    """The group in which ranks exchange what is no gradient: by gloo, over the CPU, on any device.

    The group of the gradients (NCCL on GPUs) is started by accelerate, as the trainers find it.
    """
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=30))
    atexit.register(torch.distributed.destroy_process_group)
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def gather(value: Value) -> list[Value]:
    """What each rank has to say, in the order of ranks, on every rank."""
    if count() == 1:
        return [value]
    import torch

    found: list[Any] = [None] * count()
    torch.distributed.all_gather_object(found, value, group=_messages())
    return found


def from_first(make: Callable[[], Value]) -> Value:
    """What `make` returns on rank 0, which alone calls it, on every rank; those that get there first wait.

    Where it raises, rank 0 goes on with its error, and the others end without a word.
    """
    if count() == 1:
        return make()
    if not is_first():
        said, value = _heard()
        if said == "error":
            time.sleep(PATIENCE_S)  # a launcher that saw this one end first would end the first rank in mid-sentence
            sys.exit(value)
        return value  # type: ignore[no-any-return]
    try:
        made = make()
    except BaseException as error:
        with contextlib.suppress(RuntimeError):  # a rank has ended: this error is the one to show
            _say("error", getattr(error, "exit_code", 2 if isinstance(error, TrueupError) else 1))
        raise
    _say("value", made)
    return made


def _say(kind: str, value: Any) -> None:
    import torch

    torch.distributed.broadcast_object_list([kind, value], src=0, group=_messages())


def _heard() -> tuple[str, Any]:
    import torch

    found: list[Any] = [None, None]
    torch.distributed.broadcast_object_list(found, src=0, group=_messages())
    return found[0], found[1]


def wait() -> None:
    """Wait until every rank is here."""
    gather(None)


def share(items: Sequence[Value]) -> list[Value]:
    """This rank's share of `items`: every n-th, so that neighbours, which are alike, go to different ranks."""
    return list(items[this() :: count()])


def put_together(own: Sequence[Value], total: int) -> list[Value]:
    """What the ranks made of their shares of `total` items, in the order of the items, on every rank."""
    shares = gather(list(own))
    return [shares[i % count()][i // count()] for i in range(total)]


def by_share(items: Sequence[Any], make: Callable[[list[Any]], Sequence[Value]]) -> list[Value]:
    """`make` of all `items`, each rank making its share; `make` is not called for an empty share."""
    if count() == 1:
        return list(make(list(items)))
    own = share(items)
    return put_together(make(own) if own else [], len(items))


def add_up(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over ranks."""
    if count() > 1:
        import torch

        messages = _messages()
        for tensor in tensors:
            torch.distributed.all_reduce(tensor, group=messages if tensor.device.type == "cpu" else None)


def add_up_gradients(parameters: Iterable[Parameter]) -> None:
    """Replace the gradient of each parameter by its sum over ranks, all in one message."""
    if count() > 1:
        import torch

        gradients = [p.grad for p in parameters if p.grad is not None]
        whole = torch.cat([gradient.reshape(-1) for gradient in gradients])
        add_up(whole)
        parts = torch.split(whole, [gradient.numel() for gradient in gradients])
        for gradient, found in zip(gradients, parts, strict=True):
            gradient.copy_(found.view_as(gradient))


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean over all ranks of the `values`, (rows,), where `counts`, (rows,) bool; () fp32, NaN where none does."""
    import torch

    sums = torch.stack([values.float().masked_fill(~counts, 0).sum(), counts.float().sum()])
    add_up(sums)
    return sums[0] / sums[1]
