"""The win rate that answers of equal length would have, since many judges like longer answers better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trueup.evaluation.intervals import wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STRENGTH = 100.0  # C of scikit-learn: so weak that it matters only where the answers would make a weight infinite
MOST_GROUPS = 50  # fits of the jackknife


def length_controlled(
    outcomes: Sequence[float], differences: Sequence[float], prompt_ids: Sequence[str]
) -> dict[str, float]:
    """The win rate at a length difference of zero, and its 95 % interval, clustered by prompt.

    That of AlpacaEval 2 (Dubois et al. 2024, "Length-Controlled AlpacaEval", eq. 3, for one pair of models and without
    a term for how hard a prompt is): a logistic regression of the outcomes on a constant, which model it is, and on
    tanh of the difference in length in standard deviations. The rate is that of the constant alone. Each prompt weighs
    the same, and a tie is half a win and half a loss, as in `intervals.win_rate`, whose estimate this is where lengths
    do not differ.

    The interval is Wilson's at the effective number of comparisons p (1 - p) / v, v the variance of the rate as a
    jackknife over prompts shows it; of more than 50 prompts, over 50 groups of them (Efron and Stein 1981).

    `outcomes` are (comparisons,) in [0, 1], `differences` in tokens, the first model's length less the second's.
    Returns estimate, low and high (fractions).
    """
    import numpy as np

    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompt_ids))}
    group = np.array([numbers[prompt] % MOST_GROUPS for prompt in prompt_ids])
    sizes = Counter(prompt_ids)
    weights = np.array([1 / sizes[prompt] for prompt in prompt_ids])
    won, apart = np.array(outcomes, dtype=np.float64), np.array(differences, dtype=np.float64)
    spread = float(apart.std())
    term = np.tanh(apart / spread) if spread > 0 else np.zeros_like(apart)
    estimate = _rate(won, term, weights)
    number = float(len(numbers))
    if (groups := int(group.max()) + 1) > 1:
        left = np.array([_rate(won[group != g], term[group != g], weights[group != g]) for g in range(groups)])
        variance = float(((left - left.mean()) ** 2).sum()) * (groups - 1) / groups
        number = min(number, estimate * (1 - estimate) / variance) if variance > 0 else number
    low, high = wilson(estimate, number)
    return {"estimate": estimate, "low": low, "high": high}


def _rate(won: NDArray[np.float64], term: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The fitted share of wins where the length term is zero."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if not term.any():
        return float(np.average(won, weights=weights))
    features = np.column_stack([np.ones_like(term), term])
    model = LogisticRegression(C=STRENGTH, fit_intercept=False, tol=1e-8, max_iter=1000)
    both = np.concatenate([weights * won, weights * (1 - won)])
    model.fit(np.tile(features, (2, 1)), np.repeat([1, 0], len(won)), sample_weight=both)
    return float(1 / (1 + np.exp(-model.coef_[0, 0])))
