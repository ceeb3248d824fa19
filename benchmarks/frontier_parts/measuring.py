"""What a policy's answers to the held-out prompts are worth: to the rewards, to the disjoint judge, and in truth.

Rewards of kind `head` and the disjoint judge are linear in one hidden state of the SFT model: one pass gives them all.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup.chat.template import Chat
from trueup.data import read_prompts
from trueup.demo.hidden_preference import score
from trueup.evaluation import compare, intervals
from trueup.judges import disjoint
from trueup.judges.protocol import Answer
from trueup.models import adapters, base
from trueup.models.combining import Combination
from trueup.online.ppo import loop, mathematics
from trueup.run.artifacts import MEMBERS, Feedback
from trueup.run.files import append_jsonl, read_appended, read_json, write_json
from trueup.run.pipeline import Pipeline
from trueup.sampling.kept import Kept
from trueup.sampling.types import Sampled, Sampling

Row = dict[str, Any]
UWO = 0.5  # the variance's coefficient
COMBINED = {
    "mean of five": Combination("mean"),
    "min of five": Combination("min"),
    "five, variance": Combination("mean_minus_variance", UWO),
}


class Policy:
    """The base, the SFT adapter, and one that was aligned, as "default"."""

    def __init__(self, pipeline: Pipeline, aligned: Path, cache: Path) -> None:
        run, self.cache = pipeline.run, cache
        self.tokenizer = base.load_tokenizer(run.model)
        self.chat = Chat(self.tokenizer)
        bare = base.load_base(run.model.base, four_bit=True, dtype=run.model.dtype)
        self.model = adapters.load_adapter(bare, aligned, trainable=False)
        adapters.load_frozen(self.model, pipeline.path("sft"), "sft")
        self.rows = read_prompts(run.data, "held_out", run.seed)
        self.prompts = [row["messages"] for row in self.rows]
        settings = run.section("evaluate").model_dump()
        names = ("max_new_tokens", "temperature", "top_p", "batch_size", "engine")
        self.sampling = Sampling(**{name: settings[name] for name in names}, seed=run.seed + 1)

    def answers(self, name: str) -> list[Sampled]:
        """An answer to each held-out prompt under adapter `name`."""
        with tempfile.TemporaryDirectory() as scratch:
            kept = Kept(Path(scratch), "answers")
            return compare.answers(
                self.model, self.tokenizer, name, self.prompts, self.sampling, lambda done: None, kept
            )

    def states(self, conversations: list[list[int]]) -> list[list[float]]:
        """The last hidden state of each conversation under SFT; what was read before is kept in `cache`."""
        keys = [hashlib.sha256(repr(ids).encode()).hexdigest()[:20] for ids in conversations]
        known = {row["key"]: row["state"] for row in read_appended(self.cache)[0]}
        missing = {key: ids for key, ids in zip(keys, conversations, strict=True) if key not in known}
        if missing:
            found = dict(zip(missing, compare.states(self.model, "sft", list(missing.values())), strict=True))
            append_jsonl(self.cache, [{"key": key, "state": state} for key, state in found.items()])
            known |= found
        return [known[key] for key in keys]

    def read(self, done: list[Sampled]) -> tuple[list[str], Tensor]:
        """(texts, states (answers, hidden)) of answers to the held-out prompts."""
        pairs = zip(self.prompts, done, strict=True)
        ids = [self.chat.sampled(prompt, one.ids, finished=one.finish == "eos").ids for prompt, one in pairs]
        return [one.text for one in done], torch.tensor(self.states(ids))


@contextmanager
def watched(path: Path, key: str) -> Iterator[None]:
    """Within the block, the truth of each rollout that PPO collects goes to `path`, with its reward and KL."""
    usual = loop.collect

    def collect(*args: Any, **options: Any) -> Any:
        found = usual(*args, **options)
        worth = torch.tensor([score(text) for text in found.texts])
        kl = mathematics.masked_mean(found.token_kl, found.mask).item()
        step = args[5] % 1_000_003  # of its seed, as the loop makes it
        row = {"key": key, "step": step, "kl": kl, "reward": found.scores.mean().item(), "truth": worth.mean().item()}
        append_jsonl(path, [row])
        return found

    loop.collect = collect
    try:
        yield
    finally:
        loop.collect = usual


def measure(pipeline: Pipeline, aligned: Path, rewards: dict[int, Path], kept: Path) -> Row:
    """Of the adapter `aligned` against SFT: KL, and what each judge says. `rewards` are folders by number of members.

    SFT's own answers are sampled once, and kept in the folder `kept`.
    """
    policy = Policy(pipeline, aligned, kept / "states.jsonl")
    sft = kept / "sft.json"
    if not sft.exists():
        write_json(sft, {"answers": [asdict(one) for one in policy.answers("sft")]})
    before = [Sampled(**row) for row in (read_json(sft) or {})["answers"]]
    after = policy.answers("default")
    answers = [(policy.chat.prompt(p), one.ids) for p, one in zip(policy.prompts, after, strict=True)]
    kl = compare.kl_per_token(policy.model, policy.tokenizer, "default", "sft", answers, policy.sampling.temperature)
    (texts, states), (texts_before, states_before) = policy.read(after), policy.read(before)
    judge = _judge(policy, Feedback(pipeline.path("collect")))
    judged = [judge(list(map(_answer, done))) for done in (after, before)]
    ids = [row["id"] for row in policy.rows]
    truth = [torch.tensor([score(text) for text in some]) for some in (texts, texts_before)]
    scores = {name: (of(states), of(states_before)) for name, of in _rewards(rewards).items()}
    scores |= {"disjoint judge": (torch.tensor(judged[0]), torch.tensor(judged[1])), "truth": (truth[0], truth[1])}
    return {
        "kl": kl,
        "length_tokens": sum(one.num_tokens for one in after) / len(after),
        "eos_rate": sum(one.finish == "eos" for one in after) / len(after),
        "says": {name: _compared(*both, ids) for name, both in scores.items()},
    }


def _compared(after: Tensor, before: Tensor, ids: list[str]) -> Row:
    """The win rate over SFT, and the mean gain in spreads of SFT's scores, with its standard error."""
    gain = (after - before) / before.std()
    rate = intervals.win_rate(intervals.wins(after.tolist(), before.tolist()), ids)
    return rate | {"gain": gain.mean().item(), "gain_error": (gain.std() / len(gain) ** 0.5).item()}


def _rewards(folders: dict[int, Path]) -> dict[str, Any]:
    """By name, what maps states to rewards."""
    one = adapters.saved_tensors(folders[1])
    weight = next(tensor for name, tensor in one.items() if name.endswith("score.weight"))[0]
    from safetensors.torch import load_file

    saved = load_file(folders[5] / MEMBERS)

    def combined(rule: Combination, states: Tensor) -> Tensor:
        return rule(((states @ saved["weight"].T - saved["mean"]) / saved["spread"]).T)

    return {"one": lambda states: states @ weight} | {name: partial(combined, rule) for name, rule in COMBINED.items()}


def _judge(policy: Policy, feedback: Feedback) -> Any:
    learned = disjoint.examples([feedback])
    judge = disjoint.train(learned, policy.chat, policy.states, disjoint.encoder(policy.chat))
    return lambda answers: judge.scores(policy.prompts, answers)


def _answer(one: Sampled) -> Answer:
    return Answer(one.text, tuple(one.ids), one.finish == "eos")
