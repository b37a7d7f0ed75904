"""Gains of the channels of one tensor, kept apart from their common size so that deep models do not overflow."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Gain(NamedTuple):
    """Gains of mean 1 along `axis`, and the logarithm of what they were divided by; one number: all alike."""

    values: Array
    log: float = 0.0
    axis: int = 1

    @property
    def alike(self) -> bool:
        """Whether there is one number for all channels."""
        return self.values.size == 1


ALIKE = Gain(np.ones(1))


def gain_of(values: Array, log: float, axis: int) -> Gain | None:
    """Values times exp(log); None where they are nothing or not finite."""
    mean = float(values.mean())
    return Gain(values / mean, log + math.log(mean), axis) if np.isfinite(values).all() and mean > 0 else None


def added(one: Gain | None, other: Gain | None) -> Gain | None:
    """Both, weighed by their size; a tensor of which one reader is not understood is not understood."""
    if one is None or other is None:
        return None
    if not (one.alike or other.alike) and (one.axis != other.axis or one.values.size != other.values.size):
        return None
    top = max(one.log, other.log)
    axis = other.axis if one.alike else one.axis
    return gain_of(one.values * math.exp(one.log - top) + other.values * math.exp(other.log - top), top, axis)
