"""The method `Distribution`: the best clip of a Gaussian as wide as what was seen (ACIQ)."""

from __future__ import annotations

import math
from functools import cache

from quark_onnx.core.number_formats import Format
from quark_onnx.numerics.ranges.distribution import Distribution

Range = tuple[float, float]


def bell(seen: Distribution, format: Format) -> Range:
    """Mean ± k standard deviations, within what was seen; k is the best clip of a Gaussian for the format's bits.

    ACIQ (Banner et al., 2019, arXiv:1810.05723). Values of one sign are taken as half of a bell around 0, as ACIQ does
    behind a Relu: σ² is the mean square of those that are not 0, and all codes serve the one side.
    """
    if seen.lo >= 0 or seen.hi <= 0:
        zeros = float(seen.below(0.0, "right") - seen.below(0.0))
        sigma = math.sqrt(seen.mean_square() * seen.count / max(seen.count - zeros, 1.0))
        reach = best_clip(format.bits + 1) * sigma
        return max(seen.lo, -reach), min(seen.hi, reach)
    mean = seen.mean()
    reach = best_clip(format.bits) * math.sqrt(seen.mean_square(mean))
    return max(seen.lo, mean - reach), min(seen.hi, mean + reach)


@cache
def best_clip(bits: int) -> float:
    """Where to clip a standard Gaussian so that 2^bits even steps over [−k, k] have the least squared error.

    The error is 2·∫(x − k)²φ over x > k, plus k² / (3·4^bits) of rounding (step²/12 with step 2k / 2^bits); it
    is convex, and its derivative is 0 where φ(k) − k·Q(k) = k / (6·4^bits), with Q the upper tail.
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        k = (low + high) / 2
        tail = math.exp(-k * k / 2) / math.sqrt(2 * math.pi) - k * math.erfc(k / math.sqrt(2)) / 2
        low, high = (k, high) if tail > k / (6 * 4.0**bits) else (low, k)
    return (low + high) / 2
