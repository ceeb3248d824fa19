"""The model card: what was trained on what, from the records of the stages."""

from __future__ import annotations

from typing import Any

MERGED = """The merged bf16 weights are in `merged/`.
KL(4-bit policy || merged weights) on probe texts: {:.4f} nats per token.
"""


def write(base: str, method: str, lineage: list[dict[str, Any]], merge_kl: float | None) -> str:
    """Markdown with front matter. `lineage` holds the records of the stages before the export."""
    rows = "\n".join(f"| {row['stage']} | `{row['fingerprint'][:16]}` | {_brief(row['metrics'])} |" for row in lineage)
    merged = "" if merge_kl is None else MERGED.format(merge_kl)
    return f"""---
library_name: peft
base_model: {base}
tags: [trueup, {method}, lora]
---

# Adapter aligned by {method}, with trueup

Base model: `{base}`. The adapter is in `adapter/`.
{merged}
## Lineage

| stage | artifact (SHA-256) | figures |
|---|---|---|
{rows}
"""


def _brief(metrics: dict[str, Any]) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(numbers[:6])
