"""Before a stage trains: are the tokens right, and which samples were cut or dropped.

It looks at what the trainer's own collator hands to the model, on token ids; a string that looks right proves nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueup.chat import preflight_view
from trueup.chat.rows import Findings, Prepared, refuse
from trueup.chat.template import Chat, Refused
from trueup.chat.tokens import IGNORED, KINDS, Sample, Special, common_prefix, faults
from trueup.data.dialogue import Messages
from trueup.errors import PreflightError
from trueup.run import naming
from trueup.run.files import read_json
from trueup.run.stage import Checked, Context, Metrics

NUM_CHECKED = 4096  # rows whose tokens are looked at; lengths are those of all rows
PROBE = [
    {"role": "user", "content": "How much are 3 tents?\n\nÇa coûte combien? 数量"},
    {"role": "assistant", "content": "Three at $99.50 are  $298.50."},
]


def check(trainer: Any, prepared: Prepared, context: Context, warnings: Sequence[str] = ()) -> Metrics:
    """Compare what the collator of a TRL trainer makes of its training set with `prepared`; print three samples.

    `warnings` of the caller are told with its own. Raises PreflightError on what would ruin the stage; returns counts,
    warnings, and the ids of samples that were cut or left out. For `trueup preflight` it ends here, by `Checked`.
    """
    tokenizer, limit = trainer.processing_class, trainer.args.max_length
    refuse_beyond_context(context.stage, tokenizer, "max_length", limit)
    special, found = special_tokens(tokenizer), prepared.found
    ids: list[str] = trainer.train_dataset["id"]
    if list(ids) != [row["id"] for row in prepared.rows]:
        found.note("all", "other", f"{len(ids)} rows for {len(prepared.rows)}")
        refuse(context.stage, found, prepared.total)
    step = max(1, len(ids) // NUM_CHECKED)
    looked_at = range(0, len(ids), step)
    shown: list[Sample] = []
    size = trainer.args.per_device_train_batch_size
    for first in range(0, len(looked_at), size):
        chunk = looked_at[first : first + size]
        made = _as_trained(trainer, prepared, chunk, special)
        shown += preflight_view.named(made, len(chunk)) if len(shown) < preflight_view.ENOUGH else []
        for sample in made:
            for kind in _faults_of(sample, special, is_reward=sample.labels is None):
                found.note(sample.id, kind)
    lengths = [min(len(side.ids), limit or len(side.ids)) for sides in prepared.encoded for side in sides]
    counts = {"num_samples": len(ids), "num_checked": len(looked_at), "longest_tokens": max(lengths, default=0)}
    said = list(warnings)
    if prepared.num_turns_not_trained:
        counts["num_turns_not_trained"] = prepared.num_turns_not_trained
        said.append(
            f"{prepared.num_turns_not_trained} assistant turns before the last are not trained on: the default is "
            "data.train_on: last; set it to all to train on them"
        )
    return _verdict(found, prepared.total, counts, tokenizer, shown, context, said)


def check_prompts(
    tokenizer: Any,
    prompts: Iterable[tuple[str, Messages]],
    too_long: list[str],
    context: Context,
    max_new_tokens: int = 0,
    warnings: Sequence[str] = (),
) -> Metrics:
    """The same for stages that sample: each prompt with its generation prompt, and with a short answer after it."""
    chat, special, found = Chat(tokenizer), special_tokens(tokenizer), Findings()
    for name in too_long:
        found.note(name, "too_long")
    shown: list[Sample] = []
    counts = {"num_samples": 0, "num_checked": 0, "longest_tokens": 0}
    for name, messages in prompts:
        counts["num_samples"] = counts["num_checked"] = counts["num_samples"] + 1
        try:
            encoded = chat.answer(messages, PROBE[1])
        except Refused as refused:
            found.note(name, refused.kind, refused.detail)
            continue
        for kind in encoded.notes:
            found.note(name, kind)
        if any(token in (message["content"] or "") for message in messages for token in tokenizer.all_special_tokens):
            found.note(name, "text")
        sample = Sample(name, encoded.ids, None, encoded.prompt, encoded.ids, encoded.num_bos_written)
        for kind in faults(sample, special):
            found.note(name, kind)
        shown += [replace(sample, ids=sample.prompt)] if len(shown) < preflight_view.ENOUGH else []
        counts["longest_tokens"] = max(counts["longest_tokens"], len(sample.prompt))
    total = counts["num_samples"] + len(too_long)
    if counts["longest_tokens"]:
        longest = counts["longest_tokens"] + max_new_tokens
        refuse_beyond_context(context.stage, tokenizer, "the longest prompt and max_new_tokens together", longest)
    return _verdict(found, total, counts, tokenizer, shown, context, list(warnings))


def refuse_beyond_context(stage: str, tokenizer: Any, what: str, num_tokens: int | None) -> None:
    """Raise PreflightError when `num_tokens` are more than the base was made for.

    `models.base.load_tokenizer` notes that on the tokenizer: its model_max_length is max_position_embeddings.
    """
    most = tokenizer.model_max_length
    if num_tokens is not None and num_tokens > most:
        raise PreflightError(
            f"preflight, {stage}",
            found=f"{what}: {num_tokens} tokens",
            expected=f"at most the context of the base, {most} tokens (max_position_embeddings)",
            next_step="lower it in the run file, or choose a base with a longer context",
        )


def check_export(tokenizer: Any, folder: Path, system: str | None, prompts: Sequence[Messages] = ()) -> Metrics:
    """Raises PreflightError unless the tokenizer saved in `folder` makes the same tokens as the one trained with.

    Of a short conversation and of `prompts`, each without an answer and with one.
    """
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder)
    short = [*([{"role": "system", "content": system}] if system else []), PROBE[0]]
    for prompt, asked in itertools.product([short, *prompts], (True, False)):
        messages = prompt if asked else [*prompt, PROBE[1]]
        trained, exported = (
            chat.tokens(chat.text(messages, generation_prompt=asked)) for chat in (Chat(tokenizer), Chat(saved))
        )
        if trained != exported or tokenizer.eos_token_id != saved.eos_token_id:
            at = common_prefix(trained, exported)
            raise PreflightError(
                str(folder),
                found=f"its tokenizer differs from the one trained with, from token {at + 1} of a conversation",
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


def _as_trained(trainer: Any, prepared: Prepared, chunk: Sequence[int], special: Special) -> list[Sample]:
    """The samples of one collated batch, without padding."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in chunk])
    labels = batch.get("labels")
    if labels is None and "completion_mask" in batch:  # dpo and kto make their labels of this mask
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    num_sides = len(prepared.encoded[chunk[0]])
    order = [(i, side) for side in range(num_sides) for i in chunk]  # all chosen, then all rejected
    made = []
    for place, (i, side) in enumerate(order):
        wanted, real = prepared.encoded[i][side], batch["attention_mask"][place].bool()
        made.append(
            Sample(
                prepared.rows[i]["id"],
                batch["input_ids"][place][real].tolist(),
                None if labels is None else labels[place][real].tolist(),
                wanted.prompt,
                wanted.ids,
                wanted.num_bos_written,
                trainer.args.max_length,
                wanted.labels,
                wanted.finished,
                wanted.end,
                wanted.is_sampled,
            )
        )
    return made


def _faults_of(sample: Sample, special: Special, *, is_reward: bool) -> list[str]:
    found = faults(sample, special)
    if is_reward and sample.ids[-1] == special.pad:  # the classifier reads at the last token that is not padding
        found.append("score")
    return found


def _shows_samples(context: Context) -> bool:
    """True for `trueup preflight`, and for the first stage of a run that looks at tokens: samples are shown once."""
    if context.only_preflight:
        return True
    made = [*context.run_dir.glob("*/record.json"), *context.run_dir.glob("round-*/*/record.json")]
    others = [read_json(path) or {} for path in made if naming.stage_of(path.parent.name) != context.stage]
    return not any("preflight" in record.get("metrics", {}) for record in others)


def _verdict(
    found: Findings,
    total: int,
    counts: dict[str, int],
    tokenizer: Any,
    shown: list[Sample],
    context: Context,
    said: list[str],
) -> Metrics:
    left_out = found.left_out()
    stopping = [k for k, names in found.ids.items() if len(set(names)) > KINDS[k].stops_above * total]
    metrics: Metrics = counts | {
        "num_cut": len(found.ids.get("cut", [])),
        "num_dropped": len(left_out),
        "num_unfinished": len(found.ids.get("unfinished", [])),
        "num_equal_pairs": len(found.ids.get("equal", [])),
        "cut": found.ids.get("cut", []),
        "dropped": left_out,
        "end_token": tokenizer.eos_token,
        "padding_is_end_token": tokenizer.pad_token_id == tokenizer.eos_token_id,
        "warnings": [found.line(kind, total) for kind in found.ids if kind not in stopping] + said,
    }
    preflight_view.show(context.stage, shown if _shows_samples(context) else [], tokenizer, metrics)
    refuse(context.stage, found, total)
    if context.only_preflight:
        raise Checked(metrics)
    return metrics
