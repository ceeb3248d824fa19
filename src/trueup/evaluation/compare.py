"""Two adapters on one base, side by side: their answers, the KL between them, and what the reward model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from trueup import ranks
from trueup.chat.batch import pad
from trueup.chat.template import Chat
from trueup.sampling.kept import Kept
from trueup.sampling.sample import sample
from trueup.sampling.types import Sampled, Sampling

Messages = list[dict[str, str]]
Found = TypeVar("Found")
Answered = tuple[list[int], list[int]]  # token ids of a prompt, and of the answer sampled after it
BATCH_SIZE = 32  # answers a forward


def answers(
    model: Any,
    tokenizer: Any,
    name: str | None,
    prompts: list[Messages],
    sampling: Sampling,
    advance: Callable[[int], None],
    kept: Kept,
) -> list[Sampled]:
    """Answers under adapter `name` (None: the bare base); `kept` is as in `sample`."""
    from trueup.models import adapters

    with adapters.using(model, name):
        return sample(model, tokenizer, prompts, sampling, advance, kept)


def described(
    shown: list[Sampled], sampled: list[Sampled], prompts: list[list[int]], seconds: float
) -> dict[str, float]:
    """Figures of a contestant's answers: mean length in tokens, EOS rate, tokens per second, and what an answer costs.

    `sampled` are all answers, `shown` those of them that are judged, one for each of `prompts`, token ids. A prompt is
    read once for all that is sampled after it.
    """
    num_tokens = sum(answer.num_tokens for answer in sampled)
    return {
        "mean_length_tokens": sum(answer.num_tokens for answer in shown) / len(shown),
        "eos_rate": sum(answer.finish == "eos" for answer in shown) / len(shown),
        "tokens_per_s": num_tokens / seconds,
        "prompt_tokens": sum(map(len, prompts)) / len(shown),
        "sampled_tokens": num_tokens / len(shown),
    }


def kl_per_token(
    model: Any,
    tokenizer: Any,
    policy: str,
    reference: str,
    answers: list[Answered],
    temperature: float,
    advance: Callable[[int], None] = lambda done: None,
) -> float:
    """KL(policy || reference) in nats per token: exact at each token of the policy's own answers, then averaged.

    Both are taken at the `temperature` the answers were sampled at; 1 when it was 0 (greedy).

    The Rao-Blackwellized estimate of Amini et al. 2025, "Better Estimation of the Kullback-Leibler Divergence Between
    Language Models". Unlike the mean log-ratio of the tokens sampled it is never negative, and answers that were cut
    off do not bias it.
    """
    import torch

    from trueup.models import adapters, causal, head

    found: list[tuple[float, int]] = []  # sum and number of tokens of each batch of this rank
    rows = sorted(answers)  # neighbours share their prompt
    starts = range(0, len(rows), BATCH_SIZE)
    for start in ranks.share(starts):
        batch = pad(rows[start : start + BATCH_SIZE], tokenizer.pad_token_id)
        states: dict[str, Any] = {}
        with torch.no_grad():
            for name in (policy, reference):
                with adapters.using(model, name):
                    states[name] = causal.labelled_states(model, batch)
            layer = causal.output_layer(model)
            divergence = head.kl(states[policy], states[reference], layer, temperature=temperature or 1.0)
        found.append((divergence.sum().item(), len(states[policy])))
        advance(len(rows[start : start + BATCH_SIZE]))
    sums, counts = zip(*ranks.put_together(found, len(starts)), strict=True)
    return float(sum(sums) / sum(counts))


def kl_of_policy(model: Any, tokenizer: Any, prompts: list[Messages], sampling: Sampling) -> dict[str, float]:
    """`kl_to_both` of adapter "default" on one answer to each prompt, sampled now."""
    from trueup.models import adapters

    with adapters.using(model, "default"):
        done = sample(model, tokenizer, prompts, sampling)
    return kl_to_both(model, tokenizer, prompts, done, sampling.temperature)


def kl_to_both(
    model: Any,
    tokenizer: Any,
    prompts: list[Messages],
    done: list[Sampled],
    temperature: float,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """KL of adapter "default", on its own answers `done`, to "sft" and to "ref", in nats per token.

    `advance` hears of answers that are measured: of each twice where both are loaded.

    In round 1 SFT is the reference, and one of the two is loaded: the figures are the same.
    """
    loaded = [name for name in ("sft", "ref") if name in model.peft_config]
    found = [kl_of(model, tokenizer, "default", name, prompts, done, temperature, advance) for name in loaded]
    return {"kl_nats_per_token": found[0], "kl_to_reference_nats_per_token": found[-1]}


def kl_of(
    model: Any,
    tokenizer: Any,
    policy: str,
    reference: str,
    prompts: list[Messages],
    done: list[Sampled],
    temperature: float,
    advance: Callable[[int], None] = lambda done: None,
) -> float:
    """`kl_per_token` of the adapter `policy`, on its own answers `done`, one to each prompt."""
    chat = Chat(tokenizer)
    answers = [(chat.prompt(prompt), answer.ids) for prompt, answer in zip(prompts, done, strict=True)]
    return kl_per_token(model, tokenizer, policy, reference, answers, temperature, advance)


def rewards(
    model: Any, head: Any, conversations: list[list[int]], advance: Callable[[int], None] = lambda done: None
) -> list[float]:
    """The reward model's score of each conversation, given as token ids; `advance` hears of those that are scored.

    `head` is what `scoring.load_reward` made of it: of several members, the score is as its `combine` says.
    """
    from trueup.models import scoring

    return _of_each(conversations, lambda rows: scoring.scores(model, head, rows).tolist(), advance)


def states(
    model: Any, name: str, conversations: list[list[int]], advance: Callable[[int], None] = lambda done: None
) -> list[list[float]]:
    """The last hidden state of each conversation under adapter `name`, (conversations, hidden)."""
    from trueup.models import scoring

    return _of_each(conversations, lambda rows: scoring.last_states(model, rows, name).tolist(), advance)


def _of_each(
    conversations: list[list[int]], make: Callable[[list[list[int]]], list[Found]], advance: Callable[[int], None]
) -> list[Found]:
    """What `make` makes of each conversation, a batch at a time, every rank its share."""
    order = sorted(range(len(conversations)), key=lambda i: conversations[i])  # neighbours share their prompt
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    own: list[list[Found]] = []  # of each batch of this rank
    for rows in ranks.share(batches):
        own.append(make([conversations[i] for i in rows]))
        advance(len(rows))
    flat = [found for batch in ranks.put_together(own, len(batches)) for found in batch]
    by_row = dict(zip(order, flat, strict=True))
    return [by_row[i] for i in range(len(conversations))]


def rewards_of_each(
    model: Any,
    head: Any,
    tokenizer: Any,
    prompts: list[Messages],
    done: dict[str, list[Sampled]],
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """`rewards` of several contestants' answers to the same prompts, in one pass: all share the prompts.

    Of the ids that were sampled, an answer that was cut as it was cut.
    """
    chat = Chat(tokenizer)
    flat = [
        chat.sampled(prompt, answer.ids, finished=answer.finish == "eos").ids
        for found in done.values()
        for prompt, answer in zip(prompts, found, strict=True)
    ]
    scores, size = rewards(model, head, flat, advance), len(prompts)
    return {label: scores[i * size : (i + 1) * size] for i, label in enumerate(done)}
