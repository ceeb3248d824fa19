"""TRL's trainers with a weight on each sample: a prompt with many pairs, or a disputed thumb, counts no more than it
should.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer, KTOTrainer, RewardTrainer

from trueup import ranks
from trueup.chat.rows import CARRIED
from trueup.training import thresholds
from trueup.training.losses import dpo_loss, kto_loss, preference_loss, thumb_loss
from trueup.training.order import ByPrompt
from trueup.training.sharing import OnRanks

Batch = dict[str, Any]  # tensors, and lists of strings


class Weights:
    """A collator around TRL's own that carries along how each sample counts in the loss, as (samples,) fp32 tensors."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        batch: Batch = self.collator(examples)
        for name in CARRIED:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples], dtype=torch.float32)
        return batch


class Weighted:
    """Put before a trainer whose rows have a weight: their columns reach the collator, which `Weights` then wraps."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        known = self._signature_columns  # type: ignore[attr-defined]
        known.extend(name for name in CARRIED if name not in known)

    def note(self, name: str, values: Tensor, counts: Tensor) -> None:
        """Log the mean of the `values`, (rows,), where `counts`, (rows,) bool; nothing where no row does."""
        total = values.detach().float().masked_fill(~counts, 0).sum()
        found, number = torch.stack([total, counts.float().sum()]).tolist()  # the host waits once
        if number:
            mode = "train" if self.model.training else "eval"  # type: ignore[attr-defined]
            self._metrics[mode][name].append(found / number)  # type: ignore[attr-defined]


class Tokenized:
    """Put before a trainer whose rows are token ids already, and which would tokenize texts anew.

    SFTTrainer and RewardTrainer see by the columns that there is nothing to do.
    """

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class PairsByPrompt:
    """Put before a trainer of pairs: its batches keep the pairs of one prompt together (see `ByPrompt`)."""

    def _get_train_sampler(self, train_dataset: Any = None) -> ByPrompt:
        return ByPrompt([name.rsplit("/", 1)[0] for name in self.train_dataset["id"]], self.args.seed)  # type: ignore[attr-defined]


def distinct(*columns: Tensor) -> tuple[list[Tensor], Tensor]:
    """The distinct rows of some (B, T) tensors, each (U, T), and (B,) where each row went: x[where] is x of all rows.

    The pairs of a prompt hold each completion several times; the model need see it once.
    """
    rows, where = torch.unique(torch.stack(columns, 1), dim=0, return_inverse=True)
    return list(rows.unbind(1)), where


def summed_logps(model: Any, batch: Batch) -> Tensor:
    """(rows,) log-probability of each row's completion in nats, under the adapter in use."""
    (ids, mask, completion), where = distinct(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    labels = ids.masked_fill(completion == 0, -100)
    found: Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs.sum(1)[where]
    return found


class WeightedDPOTrainer(OnRanks, Weighted, Tokenized, PairsByPrompt, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with weighted pairs. Reference logps are computed once, before step 1, under adapter "ref"."""

    def _compute_loss(self, model: Any, inputs: Batch, return_outputs: bool) -> Any:
        policy = summed_logps(model, inputs)
        reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).to(policy)
        weight, scale, soft = (inputs[name].to(policy) for name in ("weight", "scale", "soft"))
        loss = dpo_loss(policy, reference, weight, self.beta, scale, soft)
        with torch.no_grad():
            chosen, rejected = (self.beta * (policy - reference)).chunk(2)
            counts = inputs["weight"].to(policy.device) > 0  # rows of no weight fill up a rank's share
            self.note("rewards/accuracies", chosen > rejected, counts)
            self.note("rewards/margins", chosen - rejected, counts)
        return (loss, {"log_probs": policy}) if return_outputs else loss


class WeightedKTOTrainer(OnRanks, Weighted, Tokenized, KTOTrainer):  # type: ignore[misc]
    """KTOTrainer with weighted rows; `weight` is lambda_D or lambda_U times the row's own."""

    def _compute_loss(self, model: Any, inputs: Batch, return_outputs: bool) -> Any:
        batch = {k: v.to(self.accelerator.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        weight, desirable = batch.pop("weight"), torch.as_tensor(batch["label"], dtype=torch.bool)
        mismatched = self._compute_kl_logps(model, batch)
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
        policy = outputs.log_probs.sum(1)
        reference, reference_mismatched = self.compute_ref_log_probs(model, batch)
        desirable, counts = desirable.to(policy.device), weight.to(policy.device) > 0
        kl = ranks.mean((mismatched - reference_mismatched).detach(), counts).clamp(min=0)
        loss = kto_loss(policy, reference, kl, desirable, weight, self.beta)
        self._metrics["train" if self.model.training else "eval"]["kl"].append(kl.item())
        rewards = self.beta * (policy - reference).detach()
        for name, side in (("rewards/chosen", desirable), ("rewards/rejected", ~desirable)):
            self.note(name, rewards, side & counts)
        return (loss, outputs) if return_outputs else loss


class WeightedRewardTrainer(OnRanks, Weighted, PairsByPrompt, RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with weighted pairs and, beside them, weighted thumbs: rows whose `person` is not negative."""

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        (ids, mask), where = distinct(inputs["input_ids"], inputs["attention_mask"])
        scores = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().squeeze(-1)[where]
        chosen, rejected = scores.chunk(2)
        weight, scale, soft = (inputs[name].to(chosen) for name in ("weight", "scale", "soft"))
        person = inputs["person"].to(chosen.device).long()
        paired = person < 0
        loss = preference_loss(chosen - rejected, weight * paired, scale, soft)
        counts = weight > 0  # rows of no weight fill up a rank's share
        if thresholds.there(self.model):
            up, between = inputs["up"].to(chosen) > 0, thresholds.of(self.model, person.clamp(min=0), chosen, counts)
            loss = loss + thumb_loss(chosen, between, up, weight * ~paired)
            self.note("thumbs/accuracy", (chosen > between) == up, counts & ~paired)
        self.note("accuracy", chosen > rejected, counts & paired)
        self.note("margin", chosen - rejected, counts & paired)
        if return_outputs:
            return loss, {"rewards": torch.stack([chosen, rejected], dim=1)}
        return loss
