"""What two ranks say to each other; prints what each found as JSON."""

import json

import torch

from trueup import ranks
from trueup.errors import StageError
from trueup.run import alike

me = ranks.this()
found = {
    "count": ranks.count(),
    "gathered": ranks.gather(f"rank {me}"),
    "of_first": ranks.from_first(lambda: f"made by {me}"),
    "in_order": ranks.by_share([3, 1, 4, 1, 5], lambda own: [(10 * item, me) for item in own]),
    "one_alone": ranks.by_share([7], lambda own: [item + 1 for item in own]),
}
values = torch.tensor([[1.0, 2.0, 30.0], [4.0, 50.0, 60.0]])[me]
counts = torch.tensor([[True, True, False], [True, False, False]])[me]
found["mean"] = ranks.mean(values, counts).item()
weight = torch.nn.Parameter(torch.zeros(2, 2))
weight.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (me + 1)
ranks.add_up_gradients([weight])
found["gradient"] = weight.grad.tolist()
try:
    alike.refuse_different("sft", {"versions": {"trl": f"1.{15 + me}", "torch": "2.13"}, "seed": me})
except StageError as error:
    found["refused"] = str(error)
print(json.dumps(found), flush=True)


def fail() -> None:
    raise StageError("dpo", found="no adapter")


ranks.from_first(fail)
print("never reached", flush=True)
