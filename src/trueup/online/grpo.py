"""TRL's GRPO, whose prompts come in an order that a resumed run meets again."""

from __future__ import annotations

import math
from typing import Any

from torch.utils.data import Sampler
from trl import GRPOTrainer

from trueup.training.order import Rollouts


class ResumableGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with an order of prompts that depends on the seed and the epoch alone."""

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        if not self.args.shuffle_dataset:
            sampler: Sampler[int] = super()._get_train_sampler(dataset)
            return sampler
        return Rollouts(
            num_prompts=len(self.train_dataset),
            per_rollout=self.args.generation_batch_size // self.num_generations,
            num_repeats=self.num_generations,
            num_uses=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )


def between_rollouts(args: Any) -> int:
    """`args.save_steps` raised to the next step after which no rollout is half used.

    A checkpoint keeps no rollout: a run that resumed within one would sample it again, from a policy already updated.
    """
    uses = args.num_iterations * args.steps_per_generation  # micro-batches a rollout is trained on
    steps = math.lcm(uses, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
    return int(math.ceil(args.save_steps / steps) * steps)
