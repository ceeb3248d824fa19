"""Win rates and their intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def wins(aligned: Sequence[float], sft: Sequence[float]) -> list[float]:
    """1 where the aligned answer scores higher, 0.5 for a tie, 0 otherwise; one for each comparison."""
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(aligned, sft, strict=True)]


def win_rate(outcomes: Sequence[float], prompt_ids: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Mean outcome and its 95 % bootstrap interval (BCa), resampling prompts, not comparisons.

    `outcomes` and `prompt_ids` are (comparisons,). Returns estimate, low, high (fractions) and num_prompts.
    """
    import numpy as np
    from scipy.stats import bootstrap

    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt_id, outcome in zip(prompt_ids, outcomes, strict=True):
        by_prompt[prompt_id].append(outcome)
    means = np.array([sum(values) / len(values) for values in by_prompt.values()])
    result = {"estimate": float(means.mean()), "low": 0.0, "high": 1.0, "num_prompts": len(means)}
    if len(means) > 1 and means.std() == 0:
        result |= {"low": result["estimate"], "high": result["estimate"]}
    elif len(means) > 1:
        interval = bootstrap((means,), np.mean, rng=np.random.default_rng(seed)).confidence_interval
        result |= {"low": float(interval.low), "high": float(interval.high)}
    return result
