"""The model card: what was trained on what, from the records of the stages."""

from __future__ import annotations

from typing import Any


def write(base: str, method: str, lineage: list[dict[str, Any]], merge_kl: float) -> str:
    """Markdown with front matter. `lineage` holds (stage, fingerprint, metrics) of every stage before the export."""
    rows = "\n".join(f"| {row['stage']} | `{row['fingerprint'][:16]}` | {_brief(row['metrics'])} |" for row in lineage)
    return f"""---
library_name: peft
base_model: {base}
tags: [trueup, {method}, lora]
---

# Adapter aligned by {method}, with trueup

Base model: `{base}`. The adapter is in `adapter/`, the merged bf16 weights in `merged/`.
KL of the merged weights from the 4-bit policy, nats a token on probe texts: {merge_kl:.4f}.

## Lineage

| stage | artifact (SHA-256) | figures |
|---|---|---|
{rows}
"""


def _brief(metrics: dict[str, Any]) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(numbers[:6])
