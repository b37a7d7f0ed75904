"""Scales for the tests of rounding."""

from __future__ import annotations

import numpy as np


def absmax_scale(weight: np.ndarray, high: int, shared: tuple[int, ...]) -> np.ndarray:
    """(G, R): the largest |weight| of those that share a scale gets the code `high`; never 0."""
    top = np.abs(weight).max(-1)
    if shared:
        top = np.broadcast_to(top.max(shared, keepdims=True), top.shape)
    return np.asarray(np.maximum(top / np.float32(high), np.float32(1e-12)))
