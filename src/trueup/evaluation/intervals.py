"""Win rates and their intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil, sqrt

from trueup.run.goal import FEWEST  # of fewer prompts no interval holds the truth as often as it says

LEVEL = 0.95
KURTOSIS = 0.7  # weight of the prompts' own, which is noisy: chosen on simulated truth, docs/verdict.md


def wins(aligned: Sequence[float], sft: Sequence[float]) -> list[float]:
    """1 where the aligned answer scores higher, 0.5 for a tie, 0 otherwise; one for each comparison."""
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(aligned, sft, strict=True)]


def win_rate(outcomes: Sequence[float], prompt_ids: Sequence[str]) -> dict[str, float]:
    """The mean over prompts of their mean outcome, and its 95 % interval, clustered by prompt.

    The interval is Wilson's (1927) at the effective number of comparisons, p (1 - p) / v, where v is the variance of
    the mean as the prompts' own means show it (Korn and Graubard 1998; among the intervals for clustered proportions
    that Dean and Pagano 2015 compare, the modified Wilson). That number is held between the number of prompts, which
    is right when the comparisons of a prompt all agree, and the number that independent comparisons would be worth.
    With one comparison for each prompt, none a tie, it is Wilson's interval itself. It has a width where all agree.

    Where a few prompts are far from the others, the variance is itself uncertain, and too small where chance left such
    prompts out. The end that lies nearer to one half then takes Student's quantile at Satterthwaite's (1946) degrees
    of freedom, which the kurtosis of the prompts' means gives. How often the interval holds the truth is in
    docs/verdict.md.

    `outcomes` are (comparisons,) in [0, 1], and so are `prompt_ids`. Returns estimate, low, high (fractions) and
    num_prompts.
    """
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt_id, outcome in zip(prompt_ids, outcomes, strict=True):
        by_prompt[prompt_id].append(outcome)
    means = [sum(values) / len(values) for values in by_prompt.values()]
    estimate = sum(means) / len(means)
    sizes = [len(values) for values in by_prompt.values()]
    number, inner = (_effective_number(means, sizes, quantile) for quantile in (1.0, _longer_tail(means)))
    low, _ = wilson(estimate, inner if estimate > 0.5 else number)
    _, high = wilson(estimate, inner if estimate < 0.5 else number)
    return {"estimate": estimate, "low": low, "high": high, "num_prompts": len(means)}


def wilson(share: float, number: float) -> tuple[float, float]:
    """Wilson's (1927) 95 % score interval of a `share` of `number` trials, which need not be whole."""
    from scipy.stats import norm

    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    middle, half = share + z2 / (2 * number), sqrt(z2 * share * (1 - share) / number + (z2 / (2 * number)) ** 2)
    low, high = (middle - half) / (1 + z2 / number), (middle + half) / (1 + z2 / number)
    return (0.0 if share == 0 else max(low, 0.0)), (1.0 if share == 1 else min(high, 1.0))


def change(differences: Sequence[float], sizes: Sequence[float]) -> dict[str, float] | None:
    """The sum of `differences` over that of `sizes`, (units,) each, and its 95 % interval; None with fewer than two.

    Units, such as prompts or documents, are independent. The variance is that of a ratio of means (Cochran 1977,
    "Sampling techniques", eq. 6.13), the interval Student's t; of equal sizes it is that of a paired t test. Returns
    estimate, low and high.
    """
    from scipy.stats import t

    number, total = len(differences), sum(sizes)
    if number < 2:
        return None
    ratio = sum(differences) / total
    rest = sum((y - ratio * x) ** 2 for y, x in zip(differences, sizes, strict=True))
    error = sqrt(number / (number - 1) * rest) / total
    half = float(t.ppf((1 + LEVEL) / 2, number - 1)) * error
    return {"estimate": ratio, "low": ratio - half, "high": ratio + half}


def change_by(clusters: Sequence[str], after: Sequence[float], before: Sequence[float]) -> dict[str, float] | None:
    """`change` in the mean over clusters, such as prompts, of their mean figure, from `before` to `after`, paired."""
    found: dict[str, list[float]] = defaultdict(list)
    for cluster, new, old in zip(clusters, after, before, strict=True):
        found[cluster].append(new - old)
    means = [sum(values) / len(values) for values in found.values()]
    return change(means, [1.0] * len(means))


def num_needed(found: dict[str, float], width: float = 0.2) -> int:
    """About how many prompts like these would make the interval `found` no wider than `width`; at least FEWEST."""
    return max(FEWEST, ceil(found["num_prompts"] * ((found["high"] - found["low"]) / width) ** 2))


def _effective_number(means: list[float], sizes: list[int], longer: float) -> float:
    """How many independent comparisons the prompts are worth, from each prompt's mean and number of comparisons.

    Fewer by the square of `longer`, the ratio of the quantile that an end takes to the normal one.
    """
    num_prompts, p = len(means), sum(means) / len(means)
    most = num_prompts**2 / sum(1 / size for size in sizes)
    variance = sum((mean - p) ** 2 for mean in means) / max(num_prompts - 1, 1) / num_prompts
    if variance == 0:  # every prompt agrees, which says nothing of how far the comparisons of one prompt do
        return float(num_prompts)
    return min(max(p * (1 - p) / variance / longer**2, float(num_prompts)), most)


def _longer_tail(means: list[float]) -> float:
    """The ratio of Student's quantile at the degrees of freedom of the variance of `means` to that without outliers.

    The variance of a sample variance is s^4 (2 + k) / n with excess kurtosis k, so that 2 n / (2 + k) degrees of
    freedom fit it (Satterthwaite 1946). The sample's own k counts for KURTOSIS of itself, and for none below 0.
    """
    from scipy.stats import t

    number, mean = len(means), sum(means) / len(means)
    squares = sum((one - mean) ** 2 for one in means) / number
    if squares == 0:
        return 1.0
    excess = max(sum((one - mean) ** 4 for one in means) / number / squares**2 - 3, 0.0)
    freedom = max(2 * number / (2 + KURTOSIS * excess), 2.0)
    return float(t.ppf((1 + LEVEL) / 2, freedom) / t.ppf((1 + LEVEL) / 2, number))
