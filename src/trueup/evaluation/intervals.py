"""Win rates and their intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

LEVEL = 0.95


def wins(aligned: Sequence[float], sft: Sequence[float]) -> list[float]:
    """1 where the aligned answer scores higher, 0.5 for a tie, 0 otherwise; one for each comparison."""
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(aligned, sft, strict=True)]


def win_rate(outcomes: Sequence[float], prompt_ids: Sequence[str]) -> dict[str, float]:
    """The mean over prompts of their mean outcome, and its 95 % interval, clustered by prompt.

    The interval is Clopper and Pearson's (1934) at the effective number of comparisons of Korn and Graubard (1998,
    "Confidence intervals for proportions with small expected number of positive counts estimated from survey data"):
    p (1 - p) / v, where v is the variance of the mean as the prompts' own means show it, times the squared ratio of
    the normal quantile to Student's. It is held between the number of prompts, which is right when the comparisons of
    a prompt all agree, and the number that independent comparisons would be worth. With one comparison a prompt it is
    Clopper and Pearson's interval itself. Unlike a bootstrap it has a width where every prompt agrees.

    `outcomes` are (comparisons,) in [0, 1], and so are `prompt_ids`. Returns estimate, low, high (fractions) and
    num_prompts.
    """
    from scipy.stats import beta

    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt_id, outcome in zip(prompt_ids, outcomes, strict=True):
        by_prompt[prompt_id].append(outcome)
    means = [sum(values) / len(values) for values in by_prompt.values()]
    estimate = sum(means) / len(means)
    number = _effective_number(means, [len(values) for values in by_prompt.values()])
    won, lost, tail = estimate * number, (1 - estimate) * number, (1 - LEVEL) / 2
    return {
        "estimate": estimate,
        "low": float(beta.ppf(tail, won, lost + 1)) if won > 0 else 0.0,
        "high": float(beta.ppf(1 - tail, won + 1, lost)) if lost > 0 else 1.0,
        "num_prompts": len(means),
    }


def _effective_number(means: list[float], sizes: list[int]) -> float:
    """How many independent comparisons the prompts are worth, from each prompt's mean and number of comparisons."""
    from scipy.stats import norm, t

    num_prompts, p = len(means), sum(means) / len(means)
    most = num_prompts**2 / sum(1 / size for size in sizes)
    variance = sum((mean - p) ** 2 for mean in means) / max(num_prompts - 1, 1) / num_prompts
    if variance == 0:  # every prompt agrees, which says nothing of how far the comparisons of one prompt do
        return float(num_prompts)
    ratio = norm.ppf((1 + LEVEL) / 2) / t.ppf((1 + LEVEL) / 2, num_prompts - 1)
    return min(max(p * (1 - p) / variance * float(ratio) ** 2, float(num_prompts)), most)
