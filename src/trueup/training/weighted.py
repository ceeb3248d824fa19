"""Trainers that weigh each sample: a prompt with many pairs, or a disputed thumb, counts no more than it should."""

from __future__ import annotations

from typing import Any

import torch
from trl import DPOTrainer, RewardTrainer


def dpo_loss(policy: Any, reference: Any, weight: Any, beta: float) -> Any:
    """Eq. 7 of Rafailov et al. 2023, a weighted mean over pairs.

    `policy` and `reference` are (2 x pairs,) summed log-probabilities, the chosen first; `weight` is (pairs,).
    """
    chosen, rejected = (policy - reference).chunk(2)
    losses = -torch.nn.functional.logsigmoid(beta * (chosen - rejected))
    return (losses * weight).sum() / weight.sum()


def bradley_terry_loss(chosen: Any, rejected: Any, weight: Any) -> Any:
    """-log sigmoid(r_chosen - r_rejected) (Bradley and Terry 1952), a weighted mean over pairs, all (pairs,)."""
    losses = -torch.nn.functional.logsigmoid(chosen - rejected)
    return (losses * weight).sum() / weight.sum()


class Weights:
    """A collator around TRL's own that carries each sample's weight along, as a (samples,) fp32 tensor."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collator(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class WeightedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with weighted pairs. Reference logps are computed once, before step 1, under adapter "ref"."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        completion = inputs["completion_mask"] == 0
        labels = inputs["input_ids"].masked_fill(completion, -100)
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels, fused_lm_head=True
        )
        policy = outputs.log_probs.sum(1)
        reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).to(policy)
        loss = dpo_loss(policy, reference, inputs["weight"].to(policy), self.beta)
        with torch.no_grad():
            chosen, rejected = (self.beta * (policy - reference)).chunk(2)
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["rewards/accuracies"].append((chosen > rejected).float().mean().item())
            self._metrics[mode]["rewards/margins"].append((chosen - rejected).mean().item())
        return (loss, outputs) if return_outputs else loss


class WeightedRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with weighted pairs."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight = inputs.pop("weight")
        inputs["use_cache"] = False
        outputs = model(**inputs)
        chosen, rejected = outputs.logits.float().squeeze(-1).chunk(2)
        loss = bradley_terry_loss(chosen, rejected, weight.to(chosen))
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["accuracy"].append((chosen > rejected).float().mean().item())
        self._metrics[mode]["margin"].append((chosen - rejected).mean().item())
        if return_outputs:
            return loss, {"rewards": torch.stack([chosen, rejected], dim=1)}
        return loss


def precompute_reference(trainer: Any) -> None:
    """Add ref_chosen_logps and ref_rejected_logps to the training set: one pass under adapter "ref", no gradient."""
    from trueup.models import adapters

    model, dataset, size = trainer.model, trainer.train_dataset, trainer.args.per_device_train_batch_size
    chosen: list[float] = []
    rejected: list[float] = []
    model.eval()
    with torch.no_grad(), adapters.using(model, "ref"):
        for start in range(0, len(dataset), size):
            rows = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
            batch = {k: v.to(model.device) for k, v in trainer.data_collator(rows).items()}
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            sums = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
            ).log_probs.sum(1)
            first, second = sums.cpu().chunk(2)
            chosen += first.tolist()
            rejected += second.tolist()
    columns = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    trainer.train_dataset = dataset


def first_loss(trainer: Any) -> float:
    """The loss of the first batch before any step, without dropout and without touching a random state."""
    size = trainer.args.per_device_train_batch_size
    rows = [trainer.train_dataset[i] for i in range(min(size, len(trainer.train_dataset)))]
    trainer.model.eval()
    with torch.no_grad():
        batch = {k: v.to(trainer.model.device) for k, v in trainer.data_collator(rows).items()}
        loss = trainer.compute_loss(trainer.model, batch)
    trainer.model.train()
    return float(loss)
