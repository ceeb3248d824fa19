"""Best-of-n as the cheapest optimizer of a reward: many draws of the noise, from one pool of answers of SFT.

Every answer is read once. What a reward makes of the pool is then a product of matrices, so that the noise and the
members can be drawn again and again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import comb, log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frontier_parts.measuring import COMBINED, Policy
from trueup.chat import rows as token_rows
from trueup.demo.hidden_preference import score
from trueup.evaluation import compare
from trueup.models.combining import Combination
from trueup.run.artifacts import Feedback
from trueup.run.pipeline import Pipeline
from trueup.sampling.kept import Kept
from trueup.training import counting, ensemble, frozen_head
from trueup.training.losses import mean_one

POOL = 8  # answers to each held-out prompt
TRIED = (1, 2, 4, 8)
PENALTY = 0.01  # what cross-validation chose for the demo's reward
MEMBERS = 5
AT_ONCE = 128  # conversations between two writes of the cache
Row = dict[str, Any]


class Pool:
    """Answers of SFT to the held-out prompts: `truth`, (prompts, POOL), and `states`, (prompts, POOL, hidden)."""

    def __init__(self, pipeline: Pipeline, work: Path) -> None:
        self.policy = policy = Policy(pipeline, pipeline.path("sft"), work / "states.jsonl")
        self.prompts = [prompt for prompt in policy.prompts for _ in range(POOL)]
        many = replace(policy.sampling, seed=policy.sampling.seed + 1)
        kept = Kept(work, "pool")
        done = compare.answers(policy.model, policy.tokenizer, "sft", self.prompts, many, lambda done: None, kept)
        pairs = zip(self.prompts, done, strict=True)
        ids = [policy.chat.sampled(prompt, one.ids, finished=one.finish == "eos").ids for prompt, one in pairs]
        self.length = sum(one.num_tokens for one in done) / len(done)
        self.truth = torch.tensor([score(one.text) for one in done]).reshape(-1, POOL)
        self.states = self.read(ids).reshape(*self.truth.shape, -1)

    def read(self, conversations: list[list[int]]) -> Tensor:
        """The states of conversations, (conversations, hidden); a part at a time, each kept."""
        parts = range(0, len(conversations), AT_ONCE)
        return torch.cat([torch.tensor(self.policy.states(conversations[i : i + AT_ONCE])) for i in parts])

    def heads(self, feedback: Feedback, seed: int) -> dict[str, Any]:
        """By name, what maps states to rewards: of one reward, and of five, fitted as the reward stage fits them."""
        chat = self.policy.chat
        thumbs, _ = counting.single(counting.thumbs_in(feedback.rows("train")), 0.3)
        paired = token_rows.pairs(chat, counting.disputed(feedback.pairs("train"), "weight"), 512, whole=True)
        rows = mean_one(token_rows.together(paired, token_rows.scored(chat, thumbs, 512)).rows)
        labels, answers = frozen_head.labels_of(rows)
        states = self.read(answers)
        features, _, spread = frozen_head.standard(states)
        people, hidden = int(labels.person.max()) + 1, states.shape[1]
        one = frozen_head.fit(features, labels, people, PENALTY)[:hidden] / spread
        fitted = frozen_head.fit_members(features, labels, people, PENALTY, MEMBERS, seed)[:, :hidden] / spread
        made = ensemble.members(fitted, fitted @ states.T)

        def combined(rule: Combination, states: Tensor) -> Tensor:
            raw = states @ made.weight.T
            return rule(((raw - made.mean) / made.spread).movedim(-1, 0))

        return {"one": lambda x: x @ one} | {name: partial(combined, rule) for name, rule in COMBINED.items()}

    def frontier(self, reward: Any) -> list[Row]:
        """For each n: KL from SFT, the reward and the truth of the best of n, as gains in spreads of the pool's."""
        scores = reward(self.states)
        order = scores.argsort(1)
        found = []
        for n in TRIED:
            # how likely the i-th smallest of POOL is the largest of n that are drawn without replacement
            chance = torch.tensor([comb(i, n - 1) / comb(POOL, n) for i in range(POOL)], dtype=torch.float32)
            gains = {}
            for name, values in (("reward_gain", scores), ("truth", self.truth)):
                best = (values.gather(1, order) * chance).sum(1)
                gains[name] = ((best.mean() - values.mean()) / values.std()).item()
            found.append({"n": n, "kl": (log(n) - (n - 1) / n) / self.length, **gains})
        return found


def rows(pool: Pool, feedback: Feedback, labels: str, seed: int) -> list[Row]:
    """The frontier of each reward on one draw of the noise."""
    heads = pool.heads(feedback, seed)
    return [
        {"labels": labels, "seed": seed, "reward": name, **row} for name in heads for row in pool.frontier(heads[name])
    ]
