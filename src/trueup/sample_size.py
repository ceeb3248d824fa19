"""How many comparisons or judgements it takes to show, or to know, a share."""

from __future__ import annotations

import math

LEVEL, POWER = 0.95, 0.8


def to_show(rate: float, above: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """Comparisons needed so that, with a true share `rate`, the interval lies above `above` with probability `power`.

    n = ((z_{(1+level)/2} sqrt(p0 (1 - p0)) + z_power sqrt(p1 (1 - p1))) / (p1 - p0))^2, rounded up (Fleiss, Levin and
    Paik 2003, eq. 2.6), for independent comparisons. Raises ValueError unless 0 < above < rate < 1.
    """
    from scipy.stats import norm

    if not 0 < above < rate < 1:
        raise ValueError(f"shares {above} and {rate}, expected 0 < above < rate < 1")
    reach = norm.ppf((1 + level) / 2) * math.sqrt(above * (1 - above)) + norm.ppf(power) * math.sqrt(rate * (1 - rate))
    return math.ceil(float((reach / (rate - above)) ** 2))


def to_know(within: float, *, share: float = 0.5, level: float = LEVEL) -> int:
    """Judgements needed so that the interval of a share reaches no further than `within` to either side.

    n = z^2 p (1 - p) / d^2, rounded up (Cochran 1977, eq. 4.1); a half, the default, takes the most.
    """
    from scipy.stats import norm

    return math.ceil(float(norm.ppf((1 + level) / 2)) ** 2 * share * (1 - share) / within**2)
