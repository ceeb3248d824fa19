"""Before a stage trains: are the tokens right, and which samples were cut or dropped.

It looks at what the trainer's own collator hands to the model, on token ids; a string that looks right proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trueup.chat import preflight_view
from trueup.chat.tokens import IGNORED, KINDS, Sample, Special, common_prefix, faults
from trueup.data.dialogue import Messages
from trueup.errors import PreflightError
from trueup.run.stage import Checked, Context, Metrics

NUM_CHECKED = 4096  # rows whose tokens are looked at; lengths are those of all rows
PROBE = [
    {"role": "user", "content": "How much are 3 tents?\n\nÇa coûte combien? 数量"},
    {"role": "assistant", "content": "Three at $99.50 are  $298.50."},
]


def check(trainer: Any, rows: list[dict[str, Any]], context: Context) -> Metrics:
    """Check the training set of a TRL trainer made of `rows`, each with an `id`; print three samples.

    Raises PreflightError on what would ruin the stage; returns counts, warnings, and the ids of samples that were cut
    or dropped. For `trueup preflight` it ends here, by `Checked`.
    """
    tokenizer, limit = trainer.processing_class, trainer.args.max_length
    special, source = special_tokens(tokenizer), {row["id"]: row for row in rows}
    ids: list[str] = trainer.train_dataset["id"]
    lengths = [_length(row) for row in trainer.train_dataset.remove_columns(["id"])]
    step = max(1, len(ids) // NUM_CHECKED)
    looked_at = [i for i in range(len(ids)) if i % step == 0]
    found: dict[str, list[str]] = {"dropped": sorted(set(source) - set(ids))}
    for i in range(len(ids)):
        if (
            limit is not None
            and lengths[i] >= limit
            and any(s.is_cut for s in _templated(tokenizer, source[ids[i]], limit))
        ):
            _note(found, ids[i], ["cut"])
    shown: list[Sample] = []
    size = trainer.args.per_device_train_batch_size
    for first in range(0, len(looked_at), size):
        chunk = looked_at[first : first + size]
        made = _as_trained(trainer, chunk, [source[ids[i]] for i in chunk])
        shown += preflight_view.named(made, len(chunk)) if len(shown) < preflight_view.ENOUGH else []
        for sample in made:
            _note(found, sample.id, _faults_of(sample, special, is_reward=sample.labels is None))
    for i in looked_at:
        _note(found, ids[i], ["text"] if _names_special(tokenizer, source[ids[i]]) else [])
    counts = {"num_samples": len(ids), "num_checked": len(looked_at), "longest_tokens": max(lengths, default=0)}
    return _verdict(found, len(source), counts, tokenizer, shown, context)


def check_prompts(
    tokenizer: Any, prompts: Iterable[tuple[str, Messages]], too_long: list[str], context: Context
) -> Metrics:
    """The same for stages that sample: each prompt with its generation prompt, and with a short answer after it."""
    special, found = special_tokens(tokenizer), {"dropped": list(too_long)}
    shown: list[Sample] = []
    counts = {"num_samples": 0, "num_checked": 0, "longest_tokens": 0}
    for name, messages in prompts:
        row = {"id": name, "prompt": messages, "completion": PROBE[1:]}
        (sample,) = _templated(tokenizer, row, None)
        _note(found, name, faults(sample, special) + (["text"] if _names_special(tokenizer, row) else []))
        shown += [Sample(**vars(sample) | {"ids": sample.prompt})] if len(shown) < preflight_view.ENOUGH else []
        counts["num_samples"] = counts["num_checked"] = counts["num_samples"] + 1
        counts["longest_tokens"] = max(counts["longest_tokens"], len(sample.prompt))
    return _verdict(found, counts["num_samples"] + len(too_long), counts, tokenizer, shown, context)


def check_template(tokenizer: Any, conversations: Iterable[tuple[str, Messages]]) -> None:
    """Raises PreflightError, naming the ids, when the chat template refuses a conversation or loses its system text."""
    from jinja2.exceptions import TemplateError

    refused: dict[str, list[str]] = {}
    for name, messages in conversations:
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            refused.setdefault(f"the chat template refuses it: {error}", []).append(name)
            continue
        lost = [m["content"] for m in messages if m["role"] == "system" and m["content"].strip() not in text]
        if lost:
            refused.setdefault("the chat template leaves the system message out", []).append(name)
    if refused:
        raise PreflightError(
            "chat template",
            found="\n  ".join(f"{why} ({_listed(names)})" for why, names in refused.items()),
            expected="a template that takes these messages",
            next_step="leave out data.system, or put it into the prompts; or choose another chat model",
        )


def check_export(tokenizer: Any, folder: Path, system: str | None) -> Metrics:
    """Raises PreflightError unless the tokenizer saved in `folder` makes the same tokens as the one trained with."""
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder)
    conversation = [*([{"role": "system", "content": system}] if system else []), *PROBE]
    for messages, more in ((conversation, {}), (conversation[:-1], {"add_generation_prompt": True})):
        trained, exported = (
            t.apply_chat_template(messages, tokenize=True, return_dict=False, **more) for t in (tokenizer, saved)
        )
        if trained != exported or tokenizer.eos_token_id != saved.eos_token_id:
            at = common_prefix(trained, exported)
            raise PreflightError(
                str(folder),
                found=f"its tokenizer differs from the one trained with, from token {at + 1} of a short conversation",
                expected=f"{tokenizer.decode(trained[at : at + 8])!r}, found {saved.decode(exported[at : at + 8])!r}",
                next_step="trueup export RUN.yaml --rebuild",
            )
    return {"same_tokens": True, "end_token": saved.eos_token}


def special_tokens(tokenizer: Any) -> Special:
    """The ids of a tokenizer's special tokens, added ones included."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Special(
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        all=frozenset(added | set(tokenizer.all_special_ids)),
    )


def _templated(tokenizer: Any, row: dict[str, Any], limit: int | None) -> list[Sample]:
    """The conversations of a row (two for a pair) as the chat template writes them, not cut."""
    samples = []
    for prompt, answer in _conversations(row):
        whole = tokenizer.apply_chat_template(prompt + answer, tokenize=True, return_dict=False)
        begun = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        text = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
        written = text.count(tokenizer.bos_token) if tokenizer.bos_token else 0
        samples.append(Sample(str(row["id"]), whole, None, begun, whole, written, limit))
    return samples


def _conversations(row: dict[str, Any]) -> list[tuple[Messages, Messages]]:
    """(prompt, answer) of each conversation of a row: sft, kto and prompts have one; dpo and reward two."""
    if "completion" in row:
        return [(row["prompt"], row["completion"])]
    prompt = row.get("prompt", [])
    pair = [prompt + row["chosen"], prompt + row["rejected"]]
    return [(messages[:-1], messages[-1:]) for messages in pair]


def _as_trained(trainer: Any, chunk: list[int], rows: list[dict[str, Any]]) -> list[Sample]:
    """The samples of one collated batch, without padding."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in chunk])
    labels = batch.get("labels")
    if labels is None and "completion_mask" in batch:  # dpo and kto make their labels of this mask
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    by_row = [_templated(trainer.processing_class, row, trainer.args.max_length) for row in rows]
    order = [samples[side] for side in range(len(by_row[0])) for samples in by_row]  # all chosen, then all rejected
    made = []
    for i, expected in enumerate(order):
        real = batch["attention_mask"][i].bool()
        kept = None if labels is None else labels[i][real].tolist()
        made.append(Sample(**vars(expected) | {"ids": batch["input_ids"][i][real].tolist(), "labels": kept}))
    return made


def _faults_of(sample: Sample, special: Special, *, is_reward: bool) -> list[str]:
    found = faults(sample, special)
    if is_reward and sample.ids[-1] == special.pad:  # the classifier reads at the last token that is not padding
        found.append("score")
    return found


def _length(row: dict[str, Any]) -> int:
    """Tokens of a prepared row: of the longer side of a pair."""
    if "input_ids" in row:
        return len(row["input_ids"])
    prompt = len(row.get("prompt_ids", []))
    return max(prompt + len(row[key]) for key in ("completion_ids", "chosen_ids", "rejected_ids") if key in row)


def _names_special(tokenizer: Any, row: dict[str, Any]) -> bool:
    texts = [message["content"] for side in _conversations(row) for part in side for message in part]
    return any(token in text for text in texts for token in tokenizer.all_special_tokens)


def _note(found: dict[str, list[str]], name: str, kinds: list[str]) -> None:
    for kind in kinds:
        names = found.setdefault(kind, [])
        if not names or names[-1] != name:
            names.append(name)


def _verdict(
    found: dict[str, list[str]],
    total: int,
    counts: dict[str, int],
    tokenizer: Any,
    shown: list[Sample],
    context: Context,
) -> Metrics:
    stage = context.out.name.removesuffix(".partial")
    lines = {
        kind: f"{KINDS[kind].says}: {len(names)} of {total} samples ({_listed(names)})"
        for kind, names in found.items()
        if names
    }
    stopping = [k for k in lines if len(set(found[k])) > KINDS[k].stops_above * total]
    warnings = [lines[kind] for kind in lines if kind not in stopping]
    metrics: Metrics = counts | {
        "num_cut": len(found.get("cut", [])),
        "num_dropped": len(found["dropped"]),
        "cut": found.get("cut", []),
        "dropped": found["dropped"],
        "end_token": tokenizer.eos_token,
        "padding_is_end_token": tokenizer.pad_token_id == tokenizer.eos_token_id,
        "warnings": warnings,
    }
    preflight_view.show(stage, shown, tokenizer, metrics)
    if stopping:
        raise PreflightError(
            f"preflight, {stage}",
            found="\n  ".join(lines[kind] for kind in stopping),
            next_step="; ".join(dict.fromkeys(KINDS[kind].cure for kind in stopping)),
        )
    if context.only_preflight:
        raise Checked(metrics)
    return metrics


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
