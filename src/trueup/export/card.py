"""The model card: what was trained on what, from the receipt and the records of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.export.receipt import Receipt
from trueup.run.run_file import RunFile


def write(out: Path, receipt: Receipt, run: RunFile, records: Sequence[dict[str, Any]]) -> None:
    """Write README.md into the export's folder: Markdown with front matter.

    `records` are those of the stages before the export, oldest first.
    """
    rows = "\n".join(f"| {row['stage']} | `{row['fingerprint'][:16]}` | {_brief(row['metrics'])} |" for row in records)
    ways = "\n".join(f"| {way.path} | {way.how} | {_figure(way.kl_nats_per_token)} |" for way in receipt.ways)
    text = f"""---
library_name: peft
base_model: {receipt.base}
tags: [trueup, {run.method}, lora]
---

# Adapter aligned by {run.method}, with trueup

Base model: `{receipt.base}`. {" ".join(receipt.advice)}

| what | how | KL from the trained model, nats per token |
|---|---|---|
{ways}

## Lineage

| stage | artifact (SHA-256) | figures |
|---|---|---|
{rows}
"""
    (out / "README.md").write_text(text, encoding="utf-8")


def _figure(kl: float | None) -> str:
    return "not measured" if kl is None else f"{kl:.4f}"


def _brief(metrics: dict[str, Any]) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(numbers[:6])
