"""How much of a mean is chance: the bootstrap's standard error, over samples that are drawn anew with replacement.

    SE = std over r of (1/n) Σ_i d[k_ri],   k_ri uniform in 0 … n − 1,   r = 1 … 1,000

d are the values of n samples. For what differs between two models d are differences sample by sample: what makes a
sample hard is in both, and cancels. SE tends to std(d)/√n; 1,000 draws are within 2 % of it, two times out of three.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 1000

AT_ONCE = 1 << 20
"""Samples that are drawn at a time, which bounds the memory."""


def drawn_means(values: Floats, draws: int = DRAWS) -> Floats:
    """(draws,) the mean of as many samples as there are, drawn with replacement; the same in every run."""
    rng, count = np.random.default_rng(0), len(values)
    rows = max(1, AT_ONCE // count)
    sizes = (min(rows, draws - start) for start in range(0, draws, rows))
    return np.concatenate([values[rng.integers(0, count, (size, count))].mean(1) for size in sizes])


def standard_error(values: Floats) -> float:
    """By how much the mean of these samples would differ with others; `values` are two or more."""
    return float((drawn_means(values - values.mean())).std())
