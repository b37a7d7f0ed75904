"""How much of the range of each site moves into its weights, and where the division goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import SmoothRecord
from quark_onnx.graph import Model
from quark_onnx.graph.large_weights import spilled
from quark_onnx.numerics.matrix_products import one_thread
from quark_onnx.numerics.smoothing import ALPHAS, Half, crossed_errors, smoothing_factors
from quark_onnx.stages.smooth.channel_marks import Shapes
from quark_onnx.stages.smooth.folded_division import Fold, factor_of, fold
from quark_onnx.stages.smooth.product_sites import Site, find, has_positions, transposed
from quark_onnx.stages.smooth.site_formats import integers_of, other_integers, weights_of

Array = NDArray[Any]

GAIN = 0.5
"""dB that a site has to gain where a Mul is to stand in front of its products."""

FREE = 0.1
"""The same where the division costs nothing."""


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


def smooth(
    model: Model, plan: Plan, seen: Mapping[str, Sequence[Half]], shapes: Shapes, how: How | None = None
) -> Smoothed:
    """Choose the factors; the model is only read.

    Args:
        plan: where quantizers stand.
        seen: of the activation of every site, see `numerics.smoothing`.
        shapes: of all values, in some run.
    """
    factors: dict[str, Array] = {}
    smoothed: dict[str, Array] = {}
    records = []
    with one_thread():
        for site in find(model)[0]:
            found = _choose(site, plan, seen.get(site.name, ()), shapes, how or How())
            if isinstance(found, Skip):
                records.append(_record(site, reason=found.reason))
                continue
            records.append(found.record)
            for name, factor in found.factors(site).items():
                factors[name] = spilled(factor * factors[name]) if name in factors else factor
            if found.fold is None:
                smoothed[site.name] = 1 / found.s
    return Smoothed(factors, smoothed, tuple(records))


def left_alone(model: Model, reason: str) -> tuple[SmoothRecord, ...]:
    """Records of all sites, where nothing can be done."""
    return tuple(_record(site, reason=reason) for site in find(model)[0])


def _record(site: Site, **what: Any) -> SmoothRecord:
    return SmoothRecord(site.name, tuple(product.name or "" for product in site.products), **what)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Factors of a site; without a fold a Mul divides."""

    s: Array
    fold: Fold | None
    record: SmoothRecord

    def factors(self, site: Site) -> dict[str, Array]:
        """Of all initializers."""
        found = {} if self.fold is None else {n: factor_of(marks, self.s) for n, marks in self.fold.divided.items()}
        for product in site.products:
            weight = product.inputs[1]
            assert weight is not None
            found[weight.name or ""] = self.s if transposed(product) else self.s[:, None]
        return found


def _choose(site: Site, plan: Plan, seen: Sequence[Half], shapes: Shapes, how: How) -> _Chosen | Skip:
    """What becomes of a site, or why it is left alone."""
    halves = [half for half in seen if len(half.rows)]
    into = _into(site, plan, shapes, how) if halves else Skip("no values are known of it")
    if isinstance(into, Skip):
        return into
    format, weights = integers_of(site, plan), weights_of(site, plan)
    if format is None:
        return Skip("none of its products reads integers with a scale from calibration")
    ends = [(side.low, side.high) for side in halves] + [(weight.low, weight.high) for weight in weights]
    if not all(np.isfinite(pair).all() for pair in ends):
        return Skip("it, or a weight, holds infinite or NaN values")
    alike = into.alike(site.channels)
    alphas = ALPHAS if how.alpha is None else (how.alpha,)
    errors = crossed_errors(halves, weights, format, alike, (0.0, *alphas))
    before, *tried = (-10 * math.log10(max(noise, 1e-20)) for noise in errors)
    after, best = max(zip(tried, alphas, strict=True))
    if how.judged and after < before + (FREE if into.divided else GAIN):
        return Skip(f"its products gain too little: {before:.1f} dB, {after:.1f} at best")
    top = np.max([np.maximum(half.high, -half.low) for half in halves], axis=0)
    record = _record(site, into=into.into, alpha=best, before=before, after=after)
    return _Chosen(smoothing_factors(top, weights, best, alike), into if into.divided else None, record)


def _into(site: Site, plan: Plan, shapes: Shapes, how: How) -> Fold | Skip:
    """What takes the division in; a fold without initializers stands for a Mul."""
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
