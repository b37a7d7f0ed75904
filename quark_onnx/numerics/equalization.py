"""Cross-layer equalization (DFQ, Nagel et al. 2019, arXiv 1906.04721, §4.1) that keeps the clip.

    W1 → f → W2 with f(t x) = t f(x):   W1, b1 rows · t,   W2 columns / t,   t = √(r2 / r1)       (eq. 11)

so that every channel fills the range of the tensor it is in. Differs from the paper:
1. ReLU6 and Clip stay. They are scale-equivariant as long as the clip is not felt: the data bound t (`ceiling_of`).
2. Only channels that are constant (r1 ≈ 0) or reach the clip are left out. One that nobody reads (r2 ≈ 0) shrinks: it
   may hold the largest weights of its layer, and where they share a scale it would cost all others their precision.
3. A link may have several producers and consumers, which share t: the branches that meet in a residual Add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.matrix_products import product

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

DEAD = 1e-6
"""A range below this part of the layer's largest counts as nothing."""

MARGIN = 0.98
"""How near to the clip a channel may come."""

LIMIT = 1e4
"""t stays within [1 / LIMIT, LIMIT]."""

PART = 1 << 20
"""Elements that are scaled at a time."""


@dataclass(frozen=True, eq=False)
class Link:
    """Channels between layers, numbered as in `sizes`: the rows of the producers are columns of the consumers.

    ceiling  (channels,) largest t allowed, the least over the producers' `ceiling_of`
    fixed    (channels,) bool: t stays 1, if any of them says so
    """

    producers: tuple[int, ...]
    consumers: tuple[int, ...]
    ceiling: F64
    fixed: NDArray[np.bool_]


def ceiling_of(
    top: F32 | F64, bottom: F32 | F64, upper: float = np.inf, lower: float = 0.0
) -> tuple[F64, NDArray[np.bool_]]:
    """(largest t, fixed) of each channel behind f(v) = min(max(v, lower), upper); inf where there is no clip.

    top, bottom: (channels,) largest and smallest pre-activation seen. 0 as lower bound is a ReLU, at any scale.
    """
    if lower > 0 or upper < 0:
        return np.ones(top.shape), np.ones(top.shape, bool)
    # a value v meets its bound b at t = b / v; a value of the other sign never does
    reach = np.maximum(np.maximum(top, 0) / max(upper, 1e-30), np.minimum(bottom, 0) / lower if lower < 0 else 0)
    fixed = reach >= 1
    room = MARGIN / np.maximum(reach, MARGIN / LIMIT)
    return np.where(fixed, 1.0, np.maximum(room, 1.0)), fixed


def channel_matrix(values: NDArray[Any]) -> NDArray[Any]:
    """(G, R, C) per group → (outputs, inputs), zero outside the groups; (outputs,), the diagonal, when depthwise."""
    groups, rows, channels = values.shape
    if groups == 1:
        whole: NDArray[Any] = values[0]
        return whole
    if rows == channels == 1:
        return values.reshape(-1)
    out = np.zeros((groups, rows, groups, channels), values.dtype)
    out[np.arange(groups), :, np.arange(groups)] = values
    return out.reshape(groups * rows, groups * channels)


def magnitudes(rows: F32, channels: int) -> NDArray[Any]:
    """(outputs, inputs) absmax over the kernel of a weight (G, R, K) with `channels` inputs per group.

    This is all that equalization looks at. (outputs,) for a depthwise layer.
    """
    return channel_matrix(np.abs(rows).reshape(*rows.shape[:2], channels, -1).max(-1))


def equalize(sizes: Sequence[F32 | F64], links: Sequence[Link], sweeps: int = 20, tolerance: float = 1e-3) -> list[F64]:
    """The total t of every link, (channels,): sweeps over the links until log t is still.

    sizes[l]: `magnitudes` of layer l; only read, a few rows at a time: of fully connected layers they are as large as
    the model.
    """
    layers = [_Scaled(size, np.ones(len(size)), np.ones(size.shape[-1])) for size in sizes]
    totals = [np.ones(len(link.ceiling)) for link in links]
    for _ in range(sweeps):
        change = 0.0
        for link, total in zip(links, totals, strict=True):
            t = _step(layers, link, total)
            for layer in link.producers:
                layers[layer].rows[:] *= t
            for layer in link.consumers:
                layers[layer].columns[:] /= t
            total *= t
            change = max(change, float(np.abs(np.log(t)).max()))
        if change < tolerance:
            break
    return totals


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Sizes (outputs, inputs) and what their rows and columns are multiplied by; (outputs,) by both, when depthwise."""

    sizes: F32 | F64
    rows: F64
    columns: F64

    def largest_of_rows(self) -> F64:
        """(outputs,)"""
        if self.sizes.ndim == 1:
            return np.asarray(self.sizes * self.rows * self.columns, np.float64)
        parts = [(part * self.columns).max(1) for part in self._parts(self.sizes)]
        return np.asarray(self.rows * (parts[0] if len(parts) == 1 else np.concatenate(parts)), np.float64)

    def largest_of_columns(self) -> F64:
        """(inputs,)"""
        if self.sizes.ndim == 1:
            return self.largest_of_rows()
        parts = zip(self._parts(self.sizes), self._parts(self.rows), strict=True)
        largest = reduce(np.maximum, ((part * rows[:, None]).max(0) for part, rows in parts))
        return np.asarray(self.columns * largest, np.float64)

    def _parts(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        step = max(1, PART // self.sizes.shape[1])
        return [array[start : start + step] for start in range(0, len(array), step)]


def _step(layers: Sequence[_Scaled], link: Link, total: F64) -> F64:
    r1 = reduce(np.maximum, (layers[layer].largest_of_rows() for layer in link.producers))
    r2 = reduce(np.maximum, (layers[layer].largest_of_columns() for layer in link.consumers))
    alive = (r1 > DEAD * r1.max()) & ~link.fixed & (r2.max() > 0)
    t = np.sqrt(np.maximum(r2, DEAD * r2.max()) / np.where(alive, r1, 1))
    return np.asarray(np.where(alive, np.clip(t, 1 / (LIMIT * total), link.ceiling / total), 1.0))


def high_bias_absorption(
    bias: F32, lowest: F32, response: F64, fixed: NDArray[np.bool_] | None = None
) -> tuple[F32, F32]:
    """Move what a ReLU always lets through into the next layer: (new bias of layer 1, bias delta of layer 2).

        c = max(0, lowest):   f(v − c) = f(v) − c  for v ≥ c;   b1 − c,   b2 + W2 c       (DFQ §4.1.3)

    Exact on the data behind `lowest`, unlike the paper's c = max(0, β − 3γ), which may be passed as `lowest` too. Not
    exact where layer 2 pads its input with zeros: leave such layers out.

    Args:
        bias: (C,) of layer 1.
        lowest: (C,) smallest pre-activation of layer 1.
        response: (O, C) weight of layer 2 summed over the kernel, as of `channel_matrix`; (C,) when depthwise.
        fixed: (C,) channels that reach the upper clip and keep their bias.
    """
    c = np.maximum(lowest.astype(np.float64), 0)
    if fixed is not None:
        c[fixed] = 0
    delta = response * c if response.ndim == 1 else product(response, c)
    return (bias - c).astype(np.float32), delta.astype(np.float32)
