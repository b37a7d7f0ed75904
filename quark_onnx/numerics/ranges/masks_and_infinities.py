"""How magnitudes are spread: mask constants such as −3.4e38, infinities, NaN; and the smallest of all."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.ranges.calibration_statistics import INFINITE, Statistics, edges
from quark_onnx.numerics.ranges.octave_counts import OCTAVE

ABSURD = 2.0**66
"""No activation of a working network is this large; a mask constant such as −3.4e38 is."""

LOUD = 1000.0
"""Below this magnitude a few values far above the rest are ordinary (a peaked softmax); above it they are suspect."""

MARGIN = 10.0
"""How far below the other scores of an attention masked ones are kept."""


def why_unusable(s: Statistics, levels: int) -> str | None:
    """Why no range can be taken from these statistics, or None.

    Case 0: there are no values: the tensor was empty in every sample.
    Case 1: infinities or NaN were seen: a clamp would change what they do.
    Case 2: values of absurd size, e.g. an attention mask of −3.4e38: the scale would be absurd too.
    Case 3: loud values with a gap to all others that is wider than the grid has `levels`: every other value would
            be rounded to zero, e.g. a mask of −1e4 over scores within ±10.
    """
    if not s.count:
        return "no value of it was seen in calibration"
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


def smallest(s: Statistics) -> float:
    """The lower edge of the bin of the smallest magnitude that was seen, 0 and subnormal numbers left out; ∞: none."""
    used = _used(s)
    return float(edges(used[0])) if used.size else math.inf


def _used(s: Statistics) -> NDArray[np.intp]:
    """Magnitude bins that hold values; those of zero and of subnormal numbers do not count."""
    used = np.union1d(s.positive.filled, s.negative.filled)
    return used[used >= OCTAVE]


def _loud_from(s: Statistics, levels: int) -> int | None:
    """The first magnitude bin of values above `LOUD` behind a gap wider than a grid has levels; None: no such gap."""
    used = _used(s)
    wide = np.flatnonzero(np.diff(used) >= OCTAVE * math.log2(levels))
    if wide.size and edges(used[wide[-1] + 1]) >= LOUD:
        return int(used[wide[-1] + 1])
    return None


def range_with_mask(s: Statistics, levels: int, known: float = 0.0) -> tuple[float, float] | None:
    """The range of a tensor to which a mask was added, −3.4e38 or −∞ in front of a Softmax; None: it is no such one.

    Masked values are clipped to `MARGIN` below all others, where a Softmax still makes nothing of them: e⁻¹⁰ is a
    hundredth of a step of 8 bits. A tensor of nothing but zeros and the mask, which is added to others, gets −`LOUD`.

    Args:
        known: the mask that the tensor may hold, seen or not; one above 0 is subtracted later. 0: values have to tell.
    """
    if known > 0:
        return (0.0, LOUD) if s.lo == s.hi == 0 else None
    if s.nonfinite > s.masked:
        return None
    absurd = int(np.searchsorted(edges(np.arange(INFINITE)), ABSURD))
    loud = _loud_from(s, levels) if max(-s.lo, s.hi) < ABSURD else absurd
    loud = absurd if loud is None and (s.masked or known) else loud
    if loud is None or (s.positive.filled >= loud).any():
        return None
    above, below = (side.filled[side.filled < loud] for side in (s.positive, s.negative))
    hi = min(float(edges(above[-1] + 1)), max(s.hi, 0.0)) if above.size else 0.0
    lo = -float(edges(below[-1] + 1)) if below.size else 0.0
    return (lo - MARGIN, hi) if max(hi, -lo) > edges(OCTAVE) else (-LOUD, 0.0)
