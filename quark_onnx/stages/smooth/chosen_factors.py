"""How much of the range of each site moves into its weights, and where the division goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import SmoothRecord
from quark_onnx.graph import Model, Node
from quark_onnx.graph.large_weights import spilled
from quark_onnx.numerics.matrix_products import one_thread
from quark_onnx.numerics.smoothing import ALPHAS, Part, crossed_errors, ends_of, smoothing_factors
from quark_onnx.stages.smooth.channel_marks import Shapes
from quark_onnx.stages.smooth.folded_division import Fold, factor_of, fold
from quark_onnx.stages.smooth.product_sites import Site, find, has_positions, transposed
from quark_onnx.stages.smooth.site_formats import integers_of, other_integers, weights_of

Array = NDArray[Any]

GAIN = 0.5
"""dB that a site has to gain where a Mul is to stand in front of its products."""

FREE = 0.1
"""The same where the division costs nothing."""


ENOUGH = 8
"""Bits above which only weights lose something."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """What is done.

    factors   initializer → an array that broadcasts to it, to multiply it with
    smoothed  activation → what its products read it multiplied by, one number per channel
    records   of every site, in the order of the graph
    """

    factors: Mapping[str, Array]
    smoothed: Mapping[str, Array]
    records: tuple[SmoothRecord, ...]


@dataclass(frozen=True)
class How:
    """What is asked for.

    alpha     of all sites; None: the best of `ALPHAS` for each
    judged    a site is left alone unless its products gain
    products  a Mul may stand in front of products where nothing takes the division in
    """

    alpha: float | None = None
    judged: bool = True
    products: bool = True


class Place(NamedTuple):
    """A site, and what takes the division in; a fold without initializers stands for a Mul."""

    site: Site
    into: Fold


Places = Sequence[Place | SmoothRecord]
"""Of every site in the order of the graph, then of products without one; a record says why they are left alone."""


def places(model: Model, plan: Plan, shapes: Shapes, how: How) -> Places:
    """What could be smoothed.

    Args:
        plan: where quantizers stand.
        shapes: of all values, in some run.
    """
    sites, refused = find(model)
    found = ((site, _into(site, plan, shapes, how)) for site in sites)
    left = [_refused(product, reason) for product, reason in refused.items()]
    return [*(_record(s, into.reason) if isinstance(into, Skip) else Place(s, into) for s, into in found), *left]


def channels_needed(found: Places) -> dict[str, int]:
    """The activations that have to be looked at, with their channels."""
    return {one.site.name: one.site.channels for one in found if isinstance(one, Place)}


def left_alone(found: Places, reason: str) -> tuple[SmoothRecord, ...]:
    """Records of all, where nothing can be done."""
    return tuple(_record(one.site, reason) if isinstance(one, Place) else one for one in found)


def smooth(plan: Plan, found: Places, seen: Mapping[str, Sequence[Part]], how: How) -> Smoothed:
    """Choose the factors.

    Args:
        plan: where quantizers stand.
        seen: of all `channels_needed`, see `numerics.smoothing`.
    """
    factors: dict[str, Array] = {}
    smoothed: dict[str, Array] = {}
    records = []
    with one_thread():
        for one in found:
            chosen = one if isinstance(one, SmoothRecord) else _choose(one, plan, seen[one.site.name], how)
            if isinstance(chosen, SmoothRecord):
                records.append(chosen)
                continue
            records.append(chosen.record)
            for name, factor in chosen.factors.items():
                factors[name] = spilled(factor * factors[name]) if name in factors else factor
            if not chosen.place.into.divided:
                smoothed[chosen.place.site.name] = 1 / chosen.s
    return Smoothed(factors, smoothed, tuple(records))


def _refused(product: Node, reason: str) -> SmoothRecord:
    """Of a product that is part of no site."""
    data = product.inputs[0]
    return SmoothRecord("" if data is None else data.name or "", (product.name or "",), reason=reason)


def _record(site: Site, reason: str = "", **what: Any) -> SmoothRecord:
    return SmoothRecord(site.name, tuple(product.name or "" for product in site.products), reason=reason, **what)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Factors of a site."""

    place: Place
    s: Array
    record: SmoothRecord

    @property
    def factors(self) -> dict[str, Array]:
        """Of all initializers."""
        found = {name: factor_of(marks, self.s) for name, marks in self.place.into.divided.items()}
        for product in self.place.site.products:
            weight = product.inputs[1]
            assert weight is not None
            found[weight.name or ""] = self.s if transposed(product) else self.s[:, None]
        return found


def _choose(place: Place, plan: Plan, seen: Sequence[Part], how: How) -> _Chosen | SmoothRecord:
    """What becomes of a site, or why it is left alone."""
    site, into = place
    parts = [part for part in seen if len(part.rows)]
    format, weights = integers_of(site, plan), weights_of(site, plan)
    ends = [(part.low, part.high) for part in parts] + [(weight.low, weight.high) for weight in weights]
    if format is None or not parts or not all(np.isfinite(pair).all() for pair in ends):
        return _record(site, "no values are known of it, or it or a weight holds infinite or NaN values")
    alike = into.alike(site.channels)
    alphas = ALPHAS if how.alpha is None else (how.alpha,)
    errors = crossed_errors(parts, weights, format, alike, (0.0, *alphas))
    before, *tried = (-10 * math.log10(max(noise, 1e-20)) for noise in errors)
    after, best = max(zip(tried, alphas, strict=True))
    if how.judged and after < before + (FREE if into.divided else GAIN):
        return _record(site, f"its products gain too little: {before:.1f} dB, {after:.1f} at best")
    low, high = ends_of(parts)
    record = _record(site, into=into.into, alpha=best, before=before, after=after)
    return _Chosen(place, smoothing_factors(np.maximum(high, -low), weights, best, alike), record)


def _into(site: Site, plan: Plan, shapes: Shapes, how: How) -> Fold | Skip:
    """What takes the division of a site in, or why none is made."""
    format = integers_of(site, plan)
    if format is None:
        return Skip("none of its products reads integers with a scale from calibration")
    if how.judged and format.bits > ENOUGH:
        return Skip(f"{format.bits} bits leave small channels codes enough")
    if (other := other_integers(site, plan)) is not None:
        return Skip(f"{other.op_type} {other.name!r} reads it as integers, too")
    found = fold(site, shapes, partial(_free, plan))
    if not isinstance(found, Skip):
        return found
    if not how.products:
        return Skip(f"nothing takes the division in: {found.reason}")
    return Fold("a Mul of its own") if has_positions(site) else Skip("a sample has one row of it")


def _free(plan: Plan, weight: str) -> bool:
    """Whether columns of a weight may be scaled at no cost: it is float, or each has a scale of its own."""
    return weight not in plan.sites or plan.sites[weight].format.axis is not None
