"""Factors per channel between layers, and what is moved between their biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.graph import Model
from quark_onnx.graph.large_weights import spilled
from quark_onnx.graph.rewrite import Outcome
from quark_onnx.numerics.equalization import Link, ceiling_of
from quark_onnx.numerics.equalization import equalize as balance
from quark_onnx.stages.equalize.bias_absorption import absorb_biases
from quark_onnx.stages.equalize.channel_spaces import Found, Space, find
from quark_onnx.stages.equalize.scalable_layer import Layer

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
