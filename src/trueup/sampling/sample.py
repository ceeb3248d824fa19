"""Batched, seeded sampling, prompts grouped by length: by our decoder where it fits, by `generate`, or by vLLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trueup import cpu
from trueup.sampling.types import Engine, Generated, Run, Sampled, Sampling

MOST_WIDER = 1.5  # times the shortest prompt and answer of a group that are decoded together


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[dict[str, str]]],
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Sampled]:
    """One completion for each prompt, in the order given. The same seed and batch size give the same texts."""
    run = engine(model, tokenizer, sampling, progress)
    encoded = [
        tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=False) for p in prompts
    ]
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), encoded[i]))  # equal prompts are neighbours
    results: dict[int, Sampled] = {}
    for number, group in enumerate(_alike(order, [len(ids) + sampling.max_new_tokens for ids in encoded])):
        done = run([encoded[i] for i in group], sampling.seed + 100_003 * number)
        for i, generated in zip(group, done, strict=True):
            ids = generated.ids
            ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
            text = tokenizer.decode(ids, skip_special_tokens=True).strip()
            results[i] = Sampled(text, len(ids), sum(generated.logps), "eos" if ended else "length")
    return [results[i] for i in range(len(prompts))]


def _alike(order: list[int], widths: list[int]) -> list[list[int]]:
    """`order`, shortest first, cut where a width is far above its group's first: all rows take the widest's memory."""
    groups: list[list[int]] = []
    for i in order:
        if not groups or widths[i] > MOST_WIDER * widths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(i)
    return groups


def engine(model: Any, tokenizer: Any, sampling: Sampling, progress: Callable[[int], None] = lambda done: None) -> Run:
    """What completes prompts (token ids) under a seed, with the model's active adapter as it is now.

    At most `sampling.batch_size` are worked on at a time; `progress` hears of those that are done.
    """
    model.eval()
    if sampling.engine == "vllm":
        from trueup.sampling import vllm_engine

        return vllm_engine.engine(model, tokenizer, sampling, progress)
    ours = None if sampling.engine == "generate" else cpu.engine(model, merged=sampling.engine == "merged")
    if ours is None:
        return lambda prompts, seed: _in_batches(model, tokenizer, prompts, sampling, seed, progress)

    def run(prompts: list[list[int]], seed: int) -> list[Generated]:
        done = ours.generate(
            prompts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            eos_id=tokenizer.eos_token_id,
            seed=seed,
            batch_size=sampling.batch_size,
            progress=progress,
        )
        return [Generated(ids, logps) for ids, logps in done]

    return run


def engine_bytes(model: Any, name: Engine) -> int:
    """Bytes of weights that an engine holds beside `model`: those of `merged`'s bf16 copy. vLLM counts its own."""
    ours = cpu.engine(model, merged=True) if name == "merged" else None
    return 0 if ours is None else ours.num_bytes


def _in_batches(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    sampling: Sampling,
    seed: int,
    progress: Callable[[int], None],
) -> list[Generated]:
    done: list[Generated] = []
    for number, start in enumerate(range(0, len(prompts), sampling.batch_size)):
        chunk = prompts[start : start + sampling.batch_size]
        done += _generate(model, tokenizer, chunk, sampling, seed * 100_003 + number)
        progress(len(chunk))
    return done


def _generate(model: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[Generated]:
    """transformers' `generate`, on prompts padded on the left; log-probabilities are noted as it goes."""
    import torch
    from transformers import LogitsProcessorList

    torch.manual_seed(seed)
    width = max(map(len, prompts))
    pad_id, eos_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    steps: list[Any] = []  # log-probabilities of each token chosen, (rows,)
    latest: list[Any] = []

    def note(so_far: Any, scores: Any) -> Any:  # called before temperature and top-p, once a token
        if latest:
            steps.append(latest.pop().gather(-1, so_far[:, -1:])[:, 0])
        latest.append(torch.log_softmax(scores.float() / (sampling.temperature or 1.0), -1))
        return scores

    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=pad_id,
            eos_token_id=eos_id,
            logits_processor=LogitsProcessorList([note]),
            **(chosen if sampling.temperature > 0 else {"do_sample": False}),
        )
    note(out, latest[0])
    logps, tokens = torch.stack(steps, dim=1).tolist(), out[:, width:].tolist()
    lengths = [row.index(eos_id) + 1 if eos_id in row else len(row) for row in tokens]
    return [Generated(t[:n], p[:n]) for t, p, n in zip(tokens, logps, lengths, strict=True)]
