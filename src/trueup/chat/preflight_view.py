"""Three samples in colour: what is trained on is green, what is masked is dim, special tokens stand out."""

from __future__ import annotations

from typing import Any

from trueup.chat.tokens import IGNORED, Sample
from trueup.errors import visible

MAX_SHOWN = 160  # tokens of one sample; of longer ones the beginning and the end are shown


def show(stage: str, samples: list[Sample], tokenizer: Any, metrics: dict[str, Any]) -> None:
    """Print the samples with their masks, then the counts and the warnings."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    special = set(tokenizer.all_special_ids)
    for sample in samples:
        console.print(
            Text.assemble(
                ("preflight ", "bold"),
                f"{stage}, sample {sample.id}, {len(sample.ids)} tokens: ",
                *(() if sample.labels is None else (("trained on", "green"), ", ", ("masked", "dim"), ", ")),
                ("special", "bold magenta"),
            )
        )
        console.print(_coloured(sample, tokenizer, special), soft_wrap=True)
    counts = (
        f"{metrics['num_samples']} samples, {metrics['num_checked']} looked at, longest {metrics['longest_tokens']} "
        f"tokens, {metrics['num_cut']} cut, {metrics['num_dropped']} dropped; end token {metrics['end_token']}"
    )
    console.print(Text.assemble(("preflight ", "bold"), f"{stage}: {counts}"), soft_wrap=True)
    for warning in metrics["warnings"]:
        console.print(Text(f"  warning: {visible(warning)}", style="yellow"), soft_wrap=True)


def _coloured(sample: Sample, tokenizer: Any, special: set[int]) -> Any:
    from rich.text import Text

    labels = sample.labels or [IGNORED] * len(sample.ids)
    pieces = list(zip(sample.ids, labels, strict=True))
    head, tail = pieces[: MAX_SHOWN // 2], pieces[MAX_SHOWN // 2 :][-MAX_SHOWN // 2 :]
    text = Text("  ")
    for part in (head, tail):
        run: list[int] = []
        style = ""
        for token, label in part:
            wanted = "green" if label != IGNORED else "dim"
            wanted = f"{wanted} bold magenta" if token in special and label == IGNORED else wanted
            wanted = "bold green underline" if token in special and label != IGNORED else wanted
            if wanted != style and run:
                text.append(visible(tokenizer.decode(run)), style)
                run = []
            style = wanted
            run.append(token)
        text.append(visible(tokenizer.decode(run)), style)
        if part is head and len(pieces) > MAX_SHOWN:
            text.append(f" [{len(pieces) - MAX_SHOWN} tokens more] ", "yellow")
    return text
