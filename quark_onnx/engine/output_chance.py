"""How much worse an output seems by chance: what few numbers leave open of a ratio, and of a count."""

from __future__ import annotations

import math

from quark_onnx.core.records import Measured

SLICE = 256
"""Numbers of a slice, at least (`numerics.channel_slices`)."""

SURE = 3
"""Deviations that are allowed for."""


def below(one: Measured, other: Measured, least: float = 0.0, ceiling: float = math.inf) -> bool:
    """Whether an output is worth less than another by more than `least` dB and chance make.

    The ratio of two noises of n independent numbers is uncertain by 10/ln 10 · √(4/n) dB (docs/decisions/017), and a
    count of values that differ by its root.

    Args:
        ceiling: dB that `other` counts as at most.
    """
    if one.db is None or other.db is None:
        return False
    lost = min(other.db, ceiling) - one.db
    if one.equal is not None and other.equal is not None:
        off, usual = (one.values * (1 - equal) for equal in (one.equal, other.equal))
        return lost > least and off - usual > SURE * math.sqrt(off + usual)
    whole = one.sqnr is not None and one.db == one.sqnr
    count = one.values if whole else min(one.values, SLICE)
    return lost > least + SURE * 10 / math.log(10) * math.sqrt(4 / count)
