"""Range methods: statistics in, (lo, hi) out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.observers import OCTAVE, Statistics, edges
from quark_onnx.numerics.spread import Spread

ABSURD = 2.0**66
"""No activation of a working network is this large; a mask constant such as −3.4e38 is."""

LOUD = 1000.0
"""Below this magnitude a few values far above the rest are ordinary (a peaked softmax); above it they are suspect."""

MARGIN = 10.0
"""How far below the other scores of an attention masked ones are kept."""


def minmax(s: Statistics | Spread) -> tuple[float, float]:
    """The smallest and the largest value seen."""
    return s.lo, s.hi


def percentile(s: Statistics | Spread, percent: float, symmetric: bool) -> tuple[float, float]:
    """The range that keeps `percent` of the values, never wider than what was seen.

    symmetric: one threshold on |x| (Quark's and onnxruntime's default); otherwise (100 − percent)/2 is cut at either
    end. An end is the smallest value that has at least its part of the values at or below it; inside a bin of the
    histogram (0.8 % wide) values are taken as evenly spread.
    """
    seen = s if isinstance(s, Spread) else Spread.of(s)
    if percent == 100 or not seen.low.size:
        return seen.lo, seen.hi
    if symmetric:
        reach = _quantile(seen.folded(), percent)
        ends = -reach, reach
    else:
        tail = (100 - percent) / 2
        ends = _quantile((seen,), tail), _quantile((seen,), 100 - tail)
    lo, hi = (min(max(end, s.lo), s.hi) for end in ends)
    return lo, hi


def _quantile(parts: tuple[Spread, ...], percent: float) -> float:
    """The smallest value that has `percent` of all values of the parts at or below it."""
    points = np.unique(np.concatenate([ends for part in parts for ends in (part.low, part.high)]))
    upto: NDArray[np.float64] = np.sum([part.below(points, "right") for part in parts], axis=0)
    rank = percent * upto[-1] / 100
    k = min(int(np.searchsorted(upto, rank)), points.size - 1)
    before = float(sum(part.below(points[k]) for part in parts))
    if k == 0 or before < rank:
        return float(points[k])
    share = (rank - upto[k - 1]) / (before - upto[k - 1])
    return float(points[k - 1] + share * (points[k] - points[k - 1]))


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
    loud = _loud_from(s, levels)
    if loud is None:
        return None
    rest = float(edges(_used(s)[_used(s) < loud][-1] + 1))
    return f"{seen} while all others stay within ±{rest:.3g}: they would all be rounded to zero"


def _used(s: Statistics) -> NDArray[np.intp]:
    """Magnitude bins that hold values; those of zero and of subnormal numbers do not count."""
    return np.flatnonzero((s.positive + s.negative)[OCTAVE:]) + OCTAVE


def _loud_from(s: Statistics, levels: int) -> int | None:
    """The first magnitude bin of values above `LOUD` behind a gap wider than a grid has levels; None: no such gap."""
    used = _used(s)
    wide = np.flatnonzero(np.diff(used) >= OCTAVE * math.log2(levels))
    if wide.size and edges(used[wide[-1] + 1]) >= LOUD:
        return int(used[wide[-1] + 1])
    return None


def range_with_mask(s: Statistics, levels: int) -> tuple[float, float] | None:
    """The range of a tensor to which a mask was added, such as −3.4e38 in front of a Softmax; None: it is no such one.

    Masked values are clipped to `MARGIN` below all others, where a Softmax still makes nothing of them: e⁻¹⁰ is a
    hundredth of a step of 8 bits. A tensor of nothing but zeros and the mask, which is added to others, gets −`LOUD`.
    """
    if s.nonfinite:
        return None
    absurd = int(np.searchsorted(edges(np.arange(s.positive.size)), ABSURD))
    loud = _loud_from(s, levels) if max(-s.lo, s.hi) < ABSURD else absurd
    if loud is None or s.positive[loud:].any():
        return None
    above, below = (np.flatnonzero(side[:loud]) for side in (s.positive, s.negative))
    hi = min(float(edges(above[-1] + 1)), max(s.hi, 0.0)) if above.size else 0.0
    lo = -float(edges(below[-1] + 1)) if below.size else 0.0
    return (lo - MARGIN, hi) if max(hi, -lo) > edges(OCTAVE) else (-LOUD, 0.0)
