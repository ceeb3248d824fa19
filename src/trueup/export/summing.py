"""From what was written and measured to the receipt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.chat import preflight
from trueup.errors import PreflightError
from trueup.export.receipt import Receipt, Tokens, choose, files_of
from trueup.export.writing import Written

Record = dict[str, Any]


def receipt(made: Written, records: Sequence[Record], fingerprint: str) -> Receipt:
    """The receipt of an export; `fingerprint` is that of the adapter that was trained, to find its evaluation by.

    Raises PreflightError where an exported tokenizer, template or end token is not the one trained with.
    """
    moved = _moved(records, fingerprint)
    ship, advice = choose(made.ways, moved)
    bits = "4 bits (NF4)" if made.known.four_bit else "16 bits"
    return Receipt(
        trained_as=f"{made.run.adapter.kind} adapter on {made.origin.name} in {bits}",
        base=made.origin.name,
        base_revision=made.origin.revision,
        texts=made.texts.source,
        num_tokens=made.texts.num_tokens,
        arithmetic=str(made.trained.states.dtype).removeprefix("torch."),
        rounding_kl=made.trained.rounding.kl if made.trained.rounding else None,
        moved_by_alignment=moved,
        ways=made.ways,
        tokens=_tokens(made),
        ship=ship,
        advice=advice,
        notes=made.notes,
        files=files_of(made.out),
    )


def _moved(records: Sequence[Record], fingerprint: str) -> float | None:
    """KL of the aligned model from SFT, by the last evaluation of these very weights, nats per token."""
    found = [r for r in records if r["stage"] == "evaluate" and r.get("inputs", {}).get("aligned") == fingerprint]
    return found[-1]["metrics"].get("kl_nats_per_token") if found else None


def _tokens(made: Written) -> Tokens:
    """Compare the tokenizers in the exported folders with the one trained with, and their end tokens."""
    tokenizer, ends = made.known.tokenizer, made.known.end_ids
    folders = [made.out / name for name in ("adapter", "merged") if (made.out / name).is_dir()]
    for folder in folders:
        preflight.check_export(tokenizer, folder, made.run.data.system, made.texts.conversations)
        if (found := _ends_of(folder)) != ends:
            raise PreflightError(
                str(folder),
                found=f"generation stops at the tokens {found}",
                expected=f"{ends}, as it was trained and sampled",
                next_step="trueup export RUN.yaml --rebuild",
            )
    return Tokens(
        folders=[folder.name for folder in folders],
        num_conversations=1 + len(made.texts.conversations),
        same=True,
        end_tokens=tokenizer.convert_ids_to_tokens(ends),
        end_ids=ends,
    )


def _ends_of(folder: Path) -> list[int]:
    from transformers import GenerationConfig

    named = GenerationConfig.from_pretrained(folder).eos_token_id
    return [named] if isinstance(named, int) else list(named or [])
