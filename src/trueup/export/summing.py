"""From what was written and measured to the receipt."""

from __future__ import annotations

from pathlib import Path

from trueup.chat import preflight
from trueup.errors import PreflightError
from trueup.export.receipt import Receipt, Tokens, choose, files_of
from trueup.export.writing import Written

KINDS = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "adalora": "AdaLoRA"}  # adapter.kind, in words


def receipt(made: Written) -> Receipt:
    """The receipt of an export.

    Raises PreflightError where an exported tokenizer, template or end token is not the one trained with.
    """
    moved = made.moved.kl if made.moved else None
    ship, advice = choose(made.ways, moved)
    bits = "4 bits (NF4)" if made.known.four_bit else "16 bits"
    return Receipt(
        trained_as=f"a {KINDS[made.run.adapter.kind]} adapter on {made.origin.name} in {bits}",
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
