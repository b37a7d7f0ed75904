"""How much worse an output seems by chance: what few numbers leave open of a ratio, and of a count."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from quark_onnx.core.records import Comparison, Measured

SLICE = 256
"""Numbers of a slice, at least (`numerics.channel_slices`)."""

STEP = 40.0
"""dB from which on one step of the last quantizer explains all: 8 bits over ±4 RMS make 41."""

SURE = 3
"""Deviations that are allowed for."""


def below(one: Measured, other: Measured, least: float = 0.0) -> bool:
    """Whether an output is worth less than another by more than `least` dB and chance make, as far as `STEP` counts.

    The ratio of two noises of n independent numbers is uncertain by 10/ln 10 · √(4/n) dB (docs/decisions/017), and a
    count of values that differ by its root.
    """
    if one.db is None or other.db is None:
        return False
    lost = min(other.db, STEP) - one.db
    if one.equal is not None and other.equal is not None:
        off, usual = (one.values * (1 - equal) for equal in (one.equal, other.equal))
        return lost > least and off - usual > SURE * math.sqrt(off + usual)
    whole = one.sqnr is not None and one.db == one.sqnr
    count = one.values if whole else min(one.values, SLICE)
    return lost > least + SURE * 10 / math.log(10) * math.sqrt(4 / count)


def all_below(some: Sequence[Comparison], others: Sequence[Comparison]) -> bool:
    """Whether the worst output is worth less in some samples than in the same of another run, by more than they differ.

    The numbers of one output are no independent ones: a noise in front reaches all of them, and few large ones may hold
    it all. Samples are independent, so the mean of n differences is uncertain by their deviation / √n. Of fewer than
    two samples nothing is known, and nothing is said against it.
    """
    lost = [_known(other.worst) - _known(one.worst) for one, other in zip(some, others, strict=True)]
    if len(lost) < 2:
        return True
    return statistics.fmean(lost) > SURE * statistics.stdev(lost) / math.sqrt(len(lost))


def _known(worth: float | None) -> float:
    """dB that count: between nothing and `STEP`."""
    return 0.0 if worth is None else min(max(worth, 0.0), STEP)
