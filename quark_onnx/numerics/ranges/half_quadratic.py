"""HQQ, half-quadratic quantization (Badri & Shaji 2023): the grid that suits a weight, without data.

    minimize |w − ŵ|ᵖ,  ŵ = s (q − z):    e ← shrink(w − ŵ),  (s, z) ← least squares of w − e on the codes q

An error that is large, as where a value is clipped, is mostly left to e, so that the grid fits the others. Differs from
the original: the scale is fitted too, errors count in steps, zero points are whole numbers, as ONNX has them, and
of all grids on the way, from a few starts, the one with the least squared error is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format

F32 = NDArray[np.float32]
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]

POWER = 0.7

STARTS = (1.0, 0.9, 0.8, 0.7)
"""Parts of the range from the smallest to the largest value."""

ROUNDS = 3
"""Fits behind each start."""

PART = 2**22
"""Values that are worked on at once."""


def half_quadratic(weight: NDArray[Any], format: Format) -> Ends:
    """(lo, hi): scalars, one per channel, or one per block, as in `numerics.quantizer.along`."""
    axis, block = format.axis, format.block
    moved = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, -1 if block else 0)
    lines = moved.reshape(-1, moved.shape[-1]) if block else moved.reshape(len(moved), -1)
    step = max(1, PART // lines.shape[1])
    parts = [_fitted(lines[i : i + step].astype(np.float32), format) for i in range(0, len(lines), step)]
    scale, zero = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts, strict=True))
    ends = (format.lo - zero) * scale, (format.hi - zero) * scale
    if axis is None or not block:
        lo, hi = (end[0, 0] if axis is None else end[:, 0] for end in ends)
    else:
        lo, hi = (np.moveaxis(end.reshape(*moved.shape[:-1], -1), -1, axis) for end in ends)
    return lo, hi


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # what is not finite is not better
def _fitted(lines: F32, format: Format) -> tuple[F32, F32]:
    """Scale and zero point (rows, blocks) of values (rows, inputs)."""
    inputs = lines.shape[1]
    at = np.arange(0, inputs, format.block or inputs)
    sizes = np.diff(at, append=inputs).astype(np.float32)

    def wide(numbers: F32) -> F32:
        return np.repeat(numbers, format.block or inputs, 1)[:, :inputs]

    def total(values: F32) -> F32:
        return np.asarray(np.add.reduceat(values, at, 1))

    low, high = (np.minimum.reduceat(lines, at, 1).clip(max=0), np.maximum.reduceat(lines, at, 1).clip(min=0))
    best_scale, best_zero = np.ones_like(low), np.full_like(low, format.middle)
    least = np.where(high > low, np.float32(np.inf), 0)  # of zeros alone nothing can be said
    for start in STARTS:
        scale, zero = _spanning(low * np.float32(start), high * np.float32(start), format)
        for round in range(ROUNDS + 1):
            whole = np.clip(np.rint(zero), format.lo, format.hi)
            codes = np.clip(np.rint(lines / wide(scale)) + wide(whole), format.lo, format.hi)
            error = lines - wide(scale) * (codes - wide(whole))
            cost = total(error * error)
            better = (cost < least) & (scale > 0)
            best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, whole, best_zero)
            least = np.where(better, cost, least)
            if round < ROUNDS:
                wanted = lines - _shrunk(error / wide(scale)) * wide(scale)
                mean = total(codes) / sizes if not format.symmetric else np.full_like(scale, format.middle)
                about = codes - wide(mean)
                scale = total(about * wanted) / total(about * about)
                zero = mean if format.symmetric else mean - total(wanted) / sizes / scale
    return best_scale, best_zero


def _spanning(low: F32, high: F32, format: Format) -> tuple[F32, F32]:
    """The scale and the zero point whose grid reaches from low to high."""
    if format.symmetric:
        scale = np.maximum(high / (format.hi - format.middle), -low / (format.middle - format.lo))
        return scale, np.full_like(scale, format.middle)
    scale = (high - low) / np.float32(format.hi - format.lo)
    return scale, format.lo - low / scale


def _shrunk(error: F32) -> F32:
    """What is taken for an outlier: nothing of errors up to a step, nearly all of large ones."""
    size = np.abs(error)
    return np.asarray(np.sign(error) * np.maximum(size - np.maximum(size, 1e-6) ** np.float32(POWER - 1), 0))
