"""What the products of a site read as integers, and what is needed of their weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan
from quark_onnx.graph import Node
from quark_onnx.graph.large_weights import let_go
from quark_onnx.graph.view import constant
from quark_onnx.numerics.smoothing import Weight
from quark_onnx.stages.smooth.product_sites import Site, transposed

COLUMNS = 128
"""Columns of a weight that are looked at, at most twice as many as that: each is a product of its own."""


def integers_of(site: Site, plan: Plan) -> Format | None:
    """The format that its products read it in; None: none reads integers with a scale from calibration."""
    formats = (_format(product, plan) for product in site.products)
    return next((format for format in formats if format is not None), None)


def other_integers(site: Site, plan: Plan) -> Node | None:
    """Who else reads the activation as integers: it would keep its quantizer, in front of a Mul."""
    return next((node for node in site.others if site.name in plan.nodes.get(node.name or "", ())), None)


def weights_of(site: Site, plan: Plan) -> list[Weight]:
    """Of its products that compute with integers."""
    return [_weight(product, plan) for product in site.products if _format(product, plan) is not None]


def _format(product: Node, plan: Plan) -> Format | None:
    """The format of the integers that a product reads."""
    data, weight = product.inputs[0], product.inputs[1]
    assert data is not None and weight is not None
    if not {data.name, weight.name}.issubset(plan.nodes.get(product.name or "", ())):
        return None
    one = plan.sites[data.name or ""]
    return one.format if one.role == "activation" else None


def _weight(product: Node, plan: Plan) -> Weight:
    value = product.inputs[1]
    assert value is not None
    array, format = constant(value), plan.sites[value.name or ""].format
    assert array is not None
    rows = array.T if transposed(product) else array
    low, high = (np.asarray(ends, np.float32) for ends in (rows.min(1), rows.max(1)))
    columns = np.array(rows[:, :: max(1, rows.shape[1] // COLUMNS)], np.float32, order="C")
    let_go(value.const_value)
    if format.axis is not None and transposed(product):
        format = replace(format, axis=1 - format.axis)
    return Weight(columns, low, high, format)
