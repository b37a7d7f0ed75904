"""Range methods: statistics in, (lo, hi) out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.observers import OCTAVE, Statistics, edges

ABSURD = 2.0**66
"""No activation of a working network is this large; a mask constant such as −3.4e38 is."""

LOUD = 1000.0
"""Below this magnitude a few values far above the rest are ordinary (a peaked softmax); above it they are suspect."""


def minmax(s: Statistics) -> tuple[float, float]:
    """The smallest and the largest value seen."""
    return s.lo, s.hi


def percentile(s: Statistics, percent: float, symmetric: bool) -> tuple[float, float]:
    """The range that keeps `percent` of the values, never wider than what was seen.

    symmetric: one threshold on |x| (Quark's and onnxruntime's default); otherwise (100 − percent)/2 is cut at either
    end. Between the edges of a bin (0.8 % apart) the values are taken as evenly spread.
    """
    if symmetric:
        reach = _quantile(s.positive + s.negative, percent / 100)
        ends = -reach, reach
    else:
        tail = (100 - percent) / 200
        ends = _signed_quantile(s, tail), _signed_quantile(s, 1 - tail)
    lo, hi = (min(max(end, s.lo), s.hi) for end in ends)
    return lo, hi


def _quantile(counts: NDArray[np.int64], part: float) -> float:
    """The magnitude below which `part` of the counted values lie."""
    total = np.cumsum(counts)
    if not total.size or total[-1] == 0:
        return 0.0
    rank = part * float(total[-1])
    k = min(int(np.searchsorted(total, rank)), total.size - 1)
    inside = (rank - float(total[k] - counts[k])) / float(counts[k]) if counts[k] else 1.0
    lower, upper = edges(np.array([k, k + 1]))
    return float(lower + inside * (upper - lower))


def _signed_quantile(s: Statistics, part: float) -> float:
    below = int(s.negative.sum())
    rank = part * (below + int(s.positive.sum()))
    if rank < below:
        return -_quantile(s.negative, 1 - rank / below)
    return _quantile(s.positive, (rank - below) / max(int(s.positive.sum()), 1))


def why_unusable(s: Statistics, levels: int) -> str | None:
    """Why no range can be taken from these statistics, or None.

    Case 1: infinities or NaN were seen: a clamp would change what they do.
    Case 2: values of absurd size, e.g. an attention mask of −3.4e38: the scale would be absurd too.
    Case 3: loud values with a gap to all others that is wider than the grid has `levels`: every other value would
            be rounded to zero, e.g. a mask of −1e4 over scores within ±10.
    """
    if s.nonfinite:
        return f"{s.nonfinite} values seen in calibration are infinite or NaN"
    reach = max(-s.lo, s.hi)
    seen = f"values reach {s.lo:.3g}..{s.hi:.3g}"
    if reach >= ABSURD:
        return f"{seen}: a mask constant would rule the range"
    magnitudes = s.positive + s.negative
    used = np.flatnonzero(magnitudes[OCTAVE:]) + OCTAVE  # bins below are zero and subnormal numbers
    wide = np.flatnonzero(np.diff(used) >= OCTAVE * math.log2(levels))
    if reach >= LOUD and wide.size and edges(used[wide[-1] + 1]) >= LOUD:
        rest = float(edges(used[wide[-1]] + 1))
        return f"{seen} while all others stay within ±{rest:.3g}: they would all be rounded to zero"
    return None
