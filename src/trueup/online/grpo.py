"""TRL's GRPO, whose prompts come in an order that a resumed run meets again, and whose rollouts our engines sample."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from torch.utils.data import Sampler
from trl import GRPOTrainer

from trueup.sampling.engines import engine
from trueup.sampling.types import Sampling
from trueup.training.order import Rollouts


class ResumableGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with an order of prompts that depends on the seed and the epoch alone.

    `sampling` says how rollouts are sampled; its seed is that of the first step.
    """

    def __init__(self, *, sampling: Sampling, **options: Any) -> None:
        super().__init__(**options)
        self.sampling = sampling
        self.rollouts_by: Counter[str] = Counter()  # what sampled how many completions, in this process
        self._sampled_at: tuple[int, int] = (-1, 0)  # the step of the last rollout, and how many it has had

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

    def _generate_single_turn(self, prompt_ids: list[list[int]], *others: Any, **options: Any) -> tuple[Any, Any]:
        """Token ids of a completion for each prompt, and their log-probabilities, which the engine was proven by."""
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        step, (last, number) = self.state.global_step, self._sampled_at
        self._sampled_at = (step, number + 1 if step == last else 0)
        seed = (self.sampling.seed * 1_000_003 + step) * 101 + self._sampled_at[1]
        try:
            run = engine(model, self.processing_class, self.sampling)
            done = run([list(ids) for ids in prompt_ids], seed)
        finally:
            model.train(training)
        self.rollouts_by[run.ran] += len(done)
        return [generated.ids for generated in done], None


def between_rollouts(args: Any) -> int:
    """`args.save_steps` raised to the next step after which no rollout is half used.

    A checkpoint keeps no rollout: a run that resumed within one would sample it again, from a policy already updated.
    """
    uses = args.num_iterations * args.steps_per_generation  # micro-batches a rollout is trained on
    steps = math.lcm(uses, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
    return int(math.ceil(args.save_steps / steps) * steps)
