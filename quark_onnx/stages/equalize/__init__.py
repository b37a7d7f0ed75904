"""Cross-layer equalization: factors per channel between layers, so that all channels of a weight are of one size.

For W1 → f → W2 with f(t x) = t f(x):  rows of W1, and b1, times t; columns of W2 divided by t. A Clip(0, M) is such an
f only while M is not felt: it stays in the graph, channels that reach M on the data are left alone, and no factor lifts
another channel to M. The outputs stay what they were, but for rounding.

Absorbing: where a channel never goes below c > 0 in front of a Relu, b1 loses c and b2 gains W2 c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.graph import Model
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.io import copy, is_large, settle
from quark_onnx.graph.large import compute_late, let_go, spilled
from quark_onnx.graph.rewrite import Outcome
from quark_onnx.numerics.equalization import Link, ceiling_of
from quark_onnx.numerics.equalization import equalize as balance
from quark_onnx.stages.equalize.absorb import absorb_biases
from quark_onnx.stages.equalize.layer import Layer
from quark_onnx.stages.equalize.spaces import Found, Space, find

Array = NDArray[Any]
Extremes = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Equalized:
    """What to do with which initializer, and for every layer whether its rows are scaled (`equalize`, `absorb`).

    factors  an array that broadcasts to the initializer, to multiply it with
    shifts   an array of its shape, to add to the product
    """

    factors: Mapping[str, Array]
    shifts: Mapping[str, Array]
    log: tuple[Outcome, ...]


def tensors_needed(model: Model, *, absorb: bool = False) -> list[str]:
    """The tensors whose extremes per channel `equalize` reads: in front of every Clip, and of what may be absorbed."""
    found = find(model)
    free = [space for space in found.spaces if space.reason is None]
    names = [limit.tensor for space in free for limit in space.limits]
    if absorb:
        names += [found.layers[space.producers[0]].output for space in free if space.fixed_bias is None]
    return list(dict.fromkeys(names))


def equalize(model: Model, extremes: Extremes, *, sweeps: int = 20, absorb: bool = False) -> Equalized:
    """Choose the factors; the model is only read.

    Args:
        extremes: minimum and maximum per channel of `tensors_needed`; a space with a Clip needs its own.
        sweeps: rounds over all pairs of layers, at most.
        absorb: move biases too.
    """
    found = find(model)
    sizes = _sizes(found)
    reasons = [_why_not(space, sizes, extremes) for space in found.spaces]
    chosen = [space for space, reason in zip(found.spaces, reasons, strict=True) if reason is None]
    order = sorted({i for space in chosen for i in (*space.producers, *space.consumers)})
    links = [_link(space, order, extremes) for space in chosen]
    totals = balance([sizes[i] for i in order], links, sweeps)
    rows: dict[int, Array] = {}
    columns: dict[int, Array] = {}
    for space, total in zip(chosen, totals, strict=True):
        rows |= dict.fromkeys(space.producers, total)
        columns |= dict.fromkeys(space.consumers, 1 / total)
    log: dict[str, str | None] = dict(found.refused)
    log |= {found.layers[i].name: r for s, r in zip(found.spaces, reasons, strict=True) for i in s.producers}
    outcomes = [Outcome("equalize", node.name or "", log[node.name or ""]) for node in model.graph if node.name in log]
    shifts: dict[str, Array] = {}
    if absorb:
        held = [link.fixed for link in links]
        shifts, absorbed = absorb_biases(found.layers, chosen, held, rows, extremes)
        outcomes += absorbed
    return Equalized(_factors(found.layers, rows, columns), shifts, tuple(outcomes))


def rescale(model: Model, factors: Mapping[str, Array], shifts: Mapping[str, Array]) -> Model:
    """A copy with `initializer · factor + shift` in place of the initializers named."""
    scaled = copy(model)
    names = dict.fromkeys((*factors, *shifts))
    makers = {
        name: partial(_rescaled, scaled.graph.initializers[name].const_value, factors.get(name), shifts.get(name))
        for name in names
    }
    if is_large(scaled):
        compute_late(scaled.graph, makers)
        settle(scaled)
        return scaled
    for name, make in makers.items():
        (use,) = scaled.graph.initializers[name].uses()  # `find` takes no other
        set_constant(use.node, use.idx, make(), name)
    return scaled


def _rescaled(tensor: Any, factor: Array | None, shift: Array | None) -> Array:
    array: Array = tensor.numpy()
    result = array if factor is None else array * factor
    result = result if shift is None else result + shift
    for used in (tensor, factor):
        let_go(used)
    return result.astype(array.dtype, copy=False)


def _sizes(found: Found) -> dict[int, Array]:
    """Of the layers of all spaces that may be scaled, by index."""
    free = [space for space in found.spaces if space.reason is None]
    indices = {i for space in free for i in (*space.producers, *space.consumers)}
    return {i: spilled(found.layers[i].sizes()) for i in sorted(indices)}


def _why_not(space: Space, sizes: Mapping[int, Array], extremes: Extremes) -> str | None:
    if space.reason is not None:
        return space.reason
    if not all(np.isfinite(sizes[i]).all() for i in (*space.producers, *space.consumers)):
        return "a weight holds infinite or NaN values"
    for limit in space.limits:
        if limit.tensor not in extremes:
            return f"the range of {limit.tensor!r}, in front of a Clip, is not known"
        if not np.isfinite(extremes[limit.tensor]).all():
            return f"{limit.tensor!r} holds infinite or NaN values"
    return None


def _link(space: Space, order: Sequence[int], extremes: Extremes) -> Link:
    """The space in terms of `numerics`, whose layers are numbered along `order`."""
    nothing = np.zeros(space.channels)
    ceiling, fixed = ceiling_of(nothing, nothing)
    for limit in space.limits:
        low, high = (extreme.reshape(-1, limit.repeat) for extreme in extremes[limit.tensor])
        lower, reached = ceiling_of(high.max(1), low.min(1), limit.upper, limit.lower)
        ceiling, fixed = np.minimum(ceiling, lower), fixed | reached
    producers, consumers = (tuple(order.index(i) for i in side) for side in (space.producers, space.consumers))
    return Link(producers, consumers, ceiling, fixed)


def _factors(layers: Sequence[Layer], rows: Mapping[int, Array], columns: Mapping[int, Array]) -> dict[str, Array]:
    factors = {}
    for i, layer in enumerate(layers):
        if i in rows or i in columns:
            factors[layer.kernel.value.name or ""] = spilled(layer.factor(rows.get(i), columns.get(i)))
        if i in rows:
            factors |= layer.for_bias(rows[i])
    return factors
