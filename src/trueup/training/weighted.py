"""Trainers that weigh each sample: a prompt with many pairs, or a disputed thumb, counts no more than it should."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer, KTOTrainer, RewardTrainer

from trueup.errors import FeedbackError
from trueup.training.order import ByPrompt
from trueup.training.tokenized import Tokenized


def dpo_loss(policy: Any, reference: Any, weight: Any, beta: float) -> Any:
    """Eq. 7 of Rafailov et al. 2023, the mean over pairs of weight x loss.

    `policy` and `reference` are (2 x pairs,) summed log-probabilities, the chosen first; `weight` is (pairs,),
    with mean 1 over the whole training set (see `mean_one`), so that a light batch counts for less than a heavy one.
    """
    chosen, rejected = (policy - reference).chunk(2)
    losses = -torch.nn.functional.logsigmoid(beta * (chosen - rejected))
    return (losses * weight).mean()


def kto_loss(policy: Any, reference: Any, kl: Any, desirable: Any, weight: Any, beta: float) -> Any:
    """Eq. 8 of Ethayarajh et al. 2024, the mean over rows of weight x (1 - v / lambda).

    All are (rows,) but `kl`, a scalar >= 0 in nats; `desirable` is bool; `weight` holds lambda_D or lambda_U times
    the row's own weight.
    """
    side = torch.where(desirable, 1.0, -1.0)
    return (weight * (1 - torch.sigmoid(beta * side * (policy - reference - kl)))).mean()


def bradley_terry_loss(chosen: Any, rejected: Any, weight: Any) -> Any:
    """-log sigmoid(r_chosen - r_rejected) (Bradley and Terry 1952), the mean of weight x loss, all (pairs,)."""
    losses = -torch.nn.functional.logsigmoid(chosen - rejected)
    return (losses * weight).mean()


def mean_one(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their weights divided by the mean weight: the learning rate keeps its meaning.

    Raises FeedbackError when there is none.
    """
    if not rows:
        raise FeedbackError(
            "feedback",
            found="no pairs to train on",
            expected="thumbs of both kinds on the same prompt",
            next_step="collect more thumbs; kto can use single ones, of both kinds",
        )
    mean = sum(row["weight"] for row in rows) / len(rows)
    return [row | {"weight": row["weight"] / mean} for row in rows]


class Weights:
    """A collator around TRL's own that carries each sample's weight along, as a (samples,) fp32 tensor."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collator(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class PairsByPrompt:
    """A trainer of pairs whose batches keep those of one prompt together (see `ByPrompt`)."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ByPrompt:
        return ByPrompt([name.rsplit("/", 1)[0] for name in self.train_dataset["id"]], self.args.seed)  # type: ignore[attr-defined]


def distinct(*columns: Tensor) -> tuple[list[Tensor], Tensor]:
    """The distinct rows of some (B, T) tensors, each (U, T), and (B,) where each row went: x[where] is x of all rows.

    The pairs of a prompt hold each completion several times; the model need see it once.
    """
    rows, where = torch.unique(torch.stack(columns, 1), dim=0, return_inverse=True)
    return list(rows.unbind(1)), where


def summed_logps(model: Any, batch: dict[str, Any]) -> Any:
    """(rows,) log-probability of each row's completion in nats, under the adapter in use."""
    (ids, mask, completion), where = distinct(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    labels = ids.masked_fill(completion == 0, -100)
    return model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs.sum(1)[where]


class WeightedDPOTrainer(Tokenized, PairsByPrompt, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with weighted pairs. Reference logps are computed once, before step 1, under adapter "ref"."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        policy = summed_logps(model, inputs)
        reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).to(policy)
        loss = dpo_loss(policy, reference, inputs["weight"].to(policy), self.beta)
        with torch.no_grad():
            chosen, rejected = (self.beta * (policy - reference)).chunk(2)
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["rewards/accuracies"].append((chosen > rejected).float().mean().item())
            self._metrics[mode]["rewards/margins"].append((chosen - rejected).mean().item())
        return (loss, {"log_probs": policy}) if return_outputs else loss


class WeightedKTOTrainer(Tokenized, KTOTrainer):  # type: ignore[misc]
    """KTOTrainer with weighted rows; `weight` is lambda_D or lambda_U times the row's own."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        batch = {k: v.to(self.accelerator.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        weight, desirable = batch.pop("weight"), torch.as_tensor(batch["label"], dtype=torch.bool)
        mismatched = self._compute_kl_logps(model, batch)
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
        policy = outputs.log_probs.sum(1)
        reference, reference_mismatched = self.compute_ref_log_probs(model, batch)
        kl = (mismatched - reference_mismatched).mean().detach().clamp(min=0)
        desirable = desirable.to(policy.device)
        loss = kto_loss(policy, reference, kl, desirable, weight, self.beta)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["kl"].append(kl.item())
        rewards = self.beta * (policy - reference).detach()
        for name, side in (("rewards/chosen", desirable), ("rewards/rejected", ~desirable)):
            if side.any():
                metrics[name].append(rewards[side].mean().item())
        return (loss, outputs) if return_outputs else loss


class WeightedRewardTrainer(PairsByPrompt, RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with weighted pairs."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns.append("weight")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight = inputs["weight"]
        (ids, mask), where = distinct(inputs["input_ids"], inputs["attention_mask"])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        chosen, rejected = logits.float().squeeze(-1)[where].chunk(2)
        loss = bradley_terry_loss(chosen, rejected, weight.to(chosen))
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["accuracy"].append((chosen > rejected).float().mean().item())
        self._metrics[mode]["margin"].append((chosen - rejected).mean().item())
        if return_outputs:
            return loss, {"rewards": torch.stack([chosen, rejected], dim=1)}
        return loss


def scores_of_pairs(trainer: Any, dataset: Any) -> tuple[list[float], list[float]]:
    """(scores of the chosen, scores of the rejected) of each pair of `dataset`, by a reward trainer's model."""
    size, found = trainer.args.per_device_eval_batch_size, []
    trainer.model.eval()
    with torch.no_grad():
        for start in range(0, len(dataset), size):
            rows = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
            batch = {k: v.to(trainer.model.device) for k, v in trainer.data_collator(rows).items()}
            found.append(trainer.compute_loss(trainer.model, batch, return_outputs=True)[1]["rewards"].float().cpu())
    trainer.model.train()
    chosen, rejected = torch.cat(found).unbind(1)
    return chosen.tolist(), rejected.tolist()


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
            first, second = summed_logps(model, batch).cpu().chunk(2)
            chosen += first.tolist()
            rejected += second.tolist()
    columns = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    trainer.train_dataset = dataset


def first_loss(trainer: Any) -> float:
    """The loss of the first batch before any step, for a mean weight of 1; no dropout, no random state touched."""
    size = trainer.args.per_device_train_batch_size
    rows = [trainer.train_dataset[i] for i in range(min(size, len(trainer.train_dataset)))]
    trainer.model.eval()
    with torch.no_grad():
        batch = {k: v.to(trainer.model.device) for k, v in trainer.data_collator(rows).items()}
        loss = trainer.compute_loss(trainer.model, batch)
    trainer.model.train()
    mean_weight = sum(float(row["weight"]) for row in rows) / len(rows)
    return float(loss) / mean_weight
