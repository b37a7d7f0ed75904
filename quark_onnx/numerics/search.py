"""Range searches on a spread: least squared error, least divergence, the best clip of a bell, the best percentage."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.formats import Format
from quark_onnx.numerics.quant import qparams
from quark_onnx.numerics.ranges import percentile
from quark_onnx.numerics.spread import Spread

Floats = NDArray[np.float64]
Range = tuple[float, float]

ALMOST = 1e-4
"""What an empty bin counts as where distributions are compared: MXNet's and onnxruntime's smoothing."""


def squared_error(seen: Spread, format: Format, lo: Floats, hi: Floats) -> Floats:
    """(k,) sums of squared error of the grids that `qparams` makes of k ranges."""
    q = qparams(lo, hi, format)
    rounding, clipping = seen.errors(q.scale, q.zero_point, format.lo, format.hi)
    return rounding + clipping


def min_mse(seen: Spread, format: Format) -> Range:
    """The range with the least sum of squared rounding and clipping errors, within what was seen.

    Symmetric formats have one threshold on |x|, asymmetric ones have both ends free. Candidates are fractions
    2^(−j/n) of the ends; with rounding errors of step²/12 the sum is convex in both ends and a zoom finds its minimum.
    At the minimum Σ(x − end) over the clipped values is (hi − lo)·count / (12·steps²), and the largest value is in that
    sum: this tells how low a fraction can be best. One octave is added for what that model leaves out. MinMax is among
    the candidates, and wins ties.
    """
    steps = format.hi - format.lo
    octaves = 1 + math.log2(1 + seen.count / (3 * steps**2 if format.symmetric else 12 * steps**2))
    if format.symmetric:
        return _zoom_one(seen, format, octaves)
    return _zoom_two(seen, format, octaves)


def _zoom_one(seen: Spread, format: Format, octaves: float) -> Range:
    """One threshold on |x|: 16 candidates an octave, then finer around the best."""

    def ends(down: Floats) -> tuple[Floats, Floats]:
        cut = max(-seen.lo, seen.hi) * 2.0**-down
        return np.maximum(seen.lo, -cut), np.minimum(seen.hi, cut)

    down = np.arange(0, octaves + 1 / 16, 1 / 16)
    for finer in (1 / 128, 1 / 1024, None):
        lo, hi = ends(down)
        best = int(np.argmin(squared_error(seen, format, lo, hi)))
        if finer:
            down = _around(down[best], finer, 8)
    return float(lo[best]), float(hi[best])


def _zoom_two(seen: Spread, format: Format, octaves: float) -> Range:
    """Both ends: 2 candidates an octave and end, then finer around the best pair."""
    low, high = min(seen.lo, 0.0), max(seen.hi, 0.0)
    down = np.arange(0, octaves + 1 / 2, 1 / 2)
    lows, highs = (down if end else down[:1] for end in (low, high))
    for finer in (1 / 8, 1 / 32, 1 / 128, None):
        lo, hi = (grid.ravel() for grid in np.meshgrid(low * 2.0**-lows, high * 2.0**-highs, indexing="ij"))
        best = int(np.argmin(squared_error(seen, format, lo, hi)))
        i, j = divmod(best, highs.size)
        if finer:
            lows = _around(lows[i], finer, 4) if low else lows
            highs = _around(highs[j], finer, 4) if high else highs
    return float(lo[best]), float(hi[best])


def _around(centre: float, step: float, each: int) -> Floats:
    """Exponents around the best one, itself first, so that it wins ties; none beyond what was seen."""
    offsets = np.arange(-each, each + 1) * step
    near = centre + np.append(0.0, offsets[offsets != 0])
    return np.asarray(near[near >= 0])


def entropy(seen: Spread, bins: int, levels: int) -> Range:
    """The threshold on |x| whose quantized distribution tells least from the one seen (Kullback-Leibler).

    TensorRT's search (GTC 2017, S7310; NVIDIA's pytorch-quantization), with `bins` even bins over [0, max |x|], which
    for one-sided data is all of [0, max]. The lowest bin counts as the next one does, there as here: zeros are exact
    on every grid, and most of what a Relu puts out.
    """
    reach = max(-seen.lo, seen.hi)
    if not reach > 0:
        return 0.0, 0.0
    histogram = np.sum([side.linear(0.0, reach / bins, bins) for side in seen.folded()], axis=0)
    histogram[0] = histogram[min(1, bins - 1)]
    threshold = reach * (least_divergence(histogram, levels) / bins)
    return max(seen.lo, -threshold), min(seen.hi, threshold)


def least_divergence(histogram: Floats, levels: int) -> int:
    """How many bins to keep, of levels..bins: the first with the least KL(P ‖ Q).

    P  the kept bins, with all that is beyond them in the last
    Q  the kept bins without that, in `levels` even groups, each spread evenly over those of its bins that P has
    A bin without values counts as `ALMOST`, at the expense of all others in proportion: bins of a spread hold parts of
    values, of which no fixed amount can be taken. A group of Q has one value, so KL needs sums over groups only, and
    those are differences of running sums: O(levels) a candidate.
    """
    keep = np.arange(min(levels, histogram.size), histogram.size + 1)
    full = histogram > 0
    mass, filled = (np.append(0.0, np.cumsum(x)) for x in (histogram, full))
    edges = -(-keep[:, None] * np.arange(levels + 1) // levels)  # bin b is in group ⌊b · levels / keep⌋
    group, used = (np.diff(total[edges], axis=1) for total in (mass, filled))
    beyond, last = mass[-1] - mass[keep], histogram[keep - 1]
    p = group.copy()
    p[:, -1] += beyond
    used[:, -1] += (beyond > 0) & ~full[keep - 1]
    q = np.where(group > 0, group / np.maximum(used, 1), ALMOST)
    own = np.append(0.0, np.cumsum(_times_log(histogram)))[keep] - _times_log(last) + _times_log(last + beyond)
    empty = keep - used.sum(axis=1)
    without = empty + np.where(group > 0, 0, used).sum(axis=1)
    all_p, all_q = mass[-1] + ALMOST * empty, mass[keep] + ALMOST * without
    divergence = (own - (p * np.log(q)).sum(axis=1)) / all_p - np.log(all_p / all_q)
    return int(keep[np.argmin(divergence)])


def _times_log(x: Floats) -> Floats:
    """x · log x, 0 of 0."""
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))


def bell(seen: Spread, format: Format) -> Range:
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


def best_percentile(seen: Spread, format: Format, candidates: tuple[float, ...], symmetric: bool, metric: str) -> Range:
    """Of several percentages the range with the least mean error of the values, "mae" or "mse"; the first on ties."""
    ranges = np.array([percentile(seen, percent, symmetric) for percent in candidates])
    q = qparams(ranges[:, 0], ranges[:, 1], format)
    measure = seen.absolute if metric == "mae" else seen.errors
    rounding, clipping = measure(q.scale, q.zero_point, format.lo, format.hi)
    lo, hi = ranges[np.argmin(rounding + clipping)]
    return float(lo), float(hi)
