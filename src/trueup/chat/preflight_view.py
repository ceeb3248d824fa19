"""Three samples as the model gets them: what is trained on, what is masked, where special tokens are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from trueup.chat.tokens import IGNORED, Sample
from trueup.errors import visible

if TYPE_CHECKING:
    from rich.text import Text

NUM_SHOWN = 3
ENOUGH = 16  # samples to choose different ones from
MAX_SHOWN = 160  # tokens of one sample; of longer ones the beginning and the end are shown
BEGIN, END = ">>", "<<"  # around what is trained on, where there are no colours


def named(samples: list[Sample], num_rows: int) -> list[Sample]:
    """The samples of a batch of `num_rows` rows; of pairs (all chosen, then all rejected) side by side and so named."""
    if len(samples) != 2 * num_rows:
        return samples
    return [
        replace(samples[i + side * num_rows], id=f"{samples[i].id}, {name}")
        for i in range(num_rows)
        for side, name in enumerate(("chosen", "rejected"))
    ]


def show(stage: str, samples: list[Sample], tokenizer: Any, metrics: dict[str, Any]) -> None:
    """Print three samples that differ, with their masks, then the counts and the warnings."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    coloured = console.color_system is not None and not console.no_color
    special = set(tokenizer.all_special_ids)
    different = {tuple(sample.ids): sample for sample in reversed(samples)}  # the first of those that are the same
    for sample in [s for s in samples if different[tuple(s.ids)] is s][:NUM_SHOWN]:
        legend = _legend(sample, coloured)
        console.print(
            Text.assemble(
                ("preflight ", "bold"), f"{stage}, sample {visible(sample.id)}, {len(sample.ids)} tokens: ", *legend
            ),
            soft_wrap=True,
        )
        console.print(_written(sample, tokenizer, special, coloured), soft_wrap=True)
    counts = (
        f"{metrics['num_samples']} samples, {metrics['num_checked']} looked at, longest {metrics['longest_tokens']} "
        f"tokens, {metrics['num_cut']} cut, {metrics['num_dropped']} dropped; end token {metrics['end_token']}"
    )
    console.print(Text.assemble(("preflight ", "bold"), f"{stage}: {counts}"), soft_wrap=True)
    for warning in metrics["warnings"]:
        console.print(Text(f"  warning: {visible(warning)}", style="yellow"), soft_wrap=True)


def _legend(sample: Sample, coloured: bool) -> list[str | tuple[str, str]]:
    if not coloured:
        return [] if sample.labels is None else [f"trained on is what stands between {BEGIN} and {END}"]
    masks: list[str | tuple[str, str]] = [("trained on", "green"), ", ", ("masked", "dim"), ", "]
    return [*(masks if sample.labels is not None else []), ("special", "bold magenta")]


def _written(sample: Sample, tokenizer: Any, special: set[int], coloured: bool) -> Text:
    from rich.text import Text

    labels = sample.labels or [IGNORED] * len(sample.ids)
    pieces = list(zip(sample.ids, labels, strict=True))
    head, tail = pieces[: MAX_SHOWN // 2], pieces[MAX_SHOWN // 2 :][-MAX_SHOWN // 2 :]
    text = Text("  ")
    for part in (head, tail):
        for piece, style in _runs(part, tokenizer, special, sample.labels is not None, coloured):
            text.append(piece, style)
        if part is head and len(pieces) > MAX_SHOWN:
            text.append(f" [{len(pieces) - MAX_SHOWN} tokens more] ", "yellow")
    return text


def _runs(
    pieces: list[tuple[int, int]], tokenizer: Any, special: set[int], has_labels: bool, coloured: bool
) -> Iterator[tuple[str, str]]:
    """(text, style) of neighbours that are treated alike. Without colours the trained ones stand between marks."""

    def kind(piece: tuple[int, int]) -> tuple[bool, bool]:
        return piece[1] != IGNORED, coloured and piece[0] in special

    for (trained, is_special), group in groupby(pieces, kind):
        text = visible(tokenizer.decode([token for token, _ in group]))
        if not coloured:
            yield (f"{BEGIN}{text}{END}" if trained else text), ""
        elif trained:
            yield text, "bold green underline" if is_special else "green"
        else:
            yield text, "bold magenta" if is_special else "dim" if has_labels else ""
