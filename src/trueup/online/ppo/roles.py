"""The four roles of PPO on one base: policy, reference, reward, value. A role is an adapter; two have a head as well.

default  the policy, trained
ref      a frozen copy of what the policy was before step 1
reward   frozen, with the score head it was saved with; of several members each further adapter is reward_2 and so on
value    trained, with a head of its own; or no adapter, only a head on the policy's hidden states
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueup.chat.template import Chat
from trueup.errors import ModelError
from trueup.models import adapters, causal, scoring
from trueup.models.combining import Combination
from trueup.models.head import token_logps
from trueup.online.ppo import heads
from trueup.online.ppo.batch import Batch
from trueup.online.rewards import refuse_another_base
from trueup.online.settings import ValueOn


@dataclass
class Roles:
    """One peft model and the heads beside it. Every method leaves the policy active."""

    model: Any
    tokenizer: Any
    value_on: ValueOn
    value_head: nn.Linear
    score_head: scoring.Head | None
    temperature: float  # of the rollouts: the policy that is trained is the one that samples

    def policy(self, batch: Batch, *, with_entropy: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """(logps, entropy, values), each (B, T) in fp32; values only where the head is on the policy's trunk.

        Without `with_entropy` the second is zeros.
        """
        hidden = self._completion_states(batch)
        logps, entropy = self._token_logps(hidden, batch, with_entropy)
        if self.value_on == "adapter":
            return logps, entropy, None
        return logps, entropy, self._scalar(self.value_head, hidden, batch)

    def reference_logps(self, batch: Batch) -> Tensor:
        """Log-probabilities under the frozen reference, (B, T) in fp32."""
        with torch.no_grad(), adapters.using(self.model, "ref"):
            return self._token_logps(self._completion_states(batch), batch, with_entropy=False)[0]

    def values(self, batch: Batch) -> Tensor:
        """V(s_t) under adapter "value", (B, T) in fp32. For gradients, call it and backward inside `valuing`."""
        return self._scalar(self.value_head, self._completion_states(batch), batch)

    def valuing(self) -> Any:
        """The context in which `values` may be called, and its gradients taken."""
        return adapters.using(self.model, "value")

    def scores(self, conversations: list[list[dict[str, str]]]) -> Tensor:
        """The reward model's score of each whole conversation, (conversations,) in fp32."""
        if self.score_head is None:
            raise ModelError("reward", found="no reward model", expected="the artifact of the reward stage")
        chat = Chat(self.tokenizer)
        ids = [chat.answer(messages[:-1], messages[-1]).ids for messages in conversations]
        scores: Tensor = scoring.scores(self.model, self.score_head, ids)
        return scores

    def policy_parameters(self) -> list[nn.Parameter]:
        """What the policy's loss trains."""
        return [p for name, p in self.model.named_parameters() if "lora_" in name and ".default." in name]

    def value_parameters(self) -> list[nn.Parameter]:
        """What the value's loss trains; with the head on the trunk, that loss reaches the policy's adapter as well."""
        own = [p for name, p in self.model.named_parameters() if "lora_" in name and ".value." in name]
        return [*own, *self.value_head.parameters()]

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    def _completion_states(self, batch: Batch) -> Tensor:
        """Hidden states that predict the N real completion tokens of the batch, (N, H)."""
        hidden = causal.hidden_states(self.model, batch.input_ids, batch.attention_mask)
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1).expand_as(batch.states)
        return hidden[rows[batch.mask], batch.states[batch.mask]]

    def _token_logps(self, hidden: Tensor, batch: Batch, with_entropy: bool) -> tuple[Tensor, Tensor]:
        layer, targets = causal.output_layer(self.model), batch.completion_ids[batch.mask]
        logps, entropy = token_logps(hidden, layer, targets, self.temperature, with_entropy=with_entropy)
        return _scatter(logps, batch.mask), _scatter(entropy, batch.mask)

    def _scalar(self, head: nn.Linear, hidden: Tensor, batch: Batch) -> Tensor:
        return _scatter(head(hidden.float()).squeeze(-1), batch.mask)


def build(
    model: Any,
    tokenizer: Any,
    *,
    policy: Path,
    reward: Path | None,
    value_on: ValueOn,
    temperature: float,
    combine: Combination | None = None,
) -> Roles:
    """The roles on `model`, whose adapter "default" holds the policy's weights, saved in `policy`.

    The value starts from the reward model where there is one, of several members from the one that is saved first,
    else from the policy with a head of zeros (Huang et al. 2024). `combine` is how members make one reward. Raises
    ModelError when the reward model was trained on another base.
    """
    _add(model, "ref", policy)
    score_head = None
    if reward is not None:
        refuse_another_base(policy, reward)
        score_head = scoring.load_reward(model, reward, combine)
    if value_on == "adapter":
        _add(model, "value", policy if reward is None else reward)
    value_head = heads.new_value_head(model.config.get_text_config().hidden_size).to(model.device)
    if score_head is not None and value_on == "adapter":
        value_head.weight.data.copy_(score_head.own)
    model.set_adapter("default")
    adapters.trainable_to_fp32(model)
    _no_dropout(model)
    roles = Roles(model, tokenizer, value_on, value_head, score_head, temperature)
    model.requires_grad_(False)
    for parameter in [*roles.policy_parameters(), *roles.value_parameters()]:
        parameter.requires_grad_(True)
    return roles


def _add(model: Any, name: str, folder: Path) -> None:
    """The adapter saved in `folder`, as `name`; a classifier's loses its head, which no causal model has."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    config.task_type, config.modules_to_save, config.init_lora_weights = "CAUSAL_LM", None, True
    model.add_adapter(name, config)
    tensors = {key: value for key, value in adapters.saved_tensors(folder).items() if "lora_" in key}
    adapters.copy_into(model, tensors, name)
    if adapters.tensors_sha256(adapters.adapter_tensors(model, name)) != adapters.tensors_sha256(tensors):
        raise ModelError(
            str(folder), found=f"weights that do not fit as adapter {name!r}", expected="an adapter of ours"
        )


def _no_dropout(model: Any) -> None:
    """Old and new log-probabilities must come from the same function (Huang et al. 2024)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=values.device, dtype=values.dtype).masked_scatter(mask, values)
