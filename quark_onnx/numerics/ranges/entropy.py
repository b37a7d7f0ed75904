"""Entropy: the range whose quantized distribution diverges least from the one seen (Kullback-Leibler)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.ranges.distribution import Distribution

Floats = NDArray[np.float64]

Range = tuple[float, float]

ALMOST = 1e-4
"""What an empty bin counts as where distributions are compared: MXNet's and onnxruntime's smoothing."""


def entropy(seen: Distribution, bins: int, levels: int) -> Range:
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
    A bin without values counts as `ALMOST`, at the expense of all others in proportion: their counts are
    parts of values, of which no fixed amount can be taken. A group of Q has one value, so KL needs sums over groups
    only, and those are differences of running sums: O(levels) a candidate.
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
