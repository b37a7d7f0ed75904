"""Integers of weights that no processor saturates on: codes with safe pairs, or bytes with zero point 128.

Fills `Plan.rounded` for weights whose format asks for safe pairs and that have, rounded to nearest, an unsafe one.
Which rounding is best for the layer's output depends on how its inputs are distributed: see
`numerics.rounding.safe_rounding`. Where the best one still costs much, the weight is stored as bytes, which x64
multiplies without clipping, at two thirds of the speed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from quark_onnx.core.plan import Coded, Plan, QParams, Skip
from quark_onnx.engine.channel_moments import Channels, Moment, Moments
from quark_onnx.engine.layers.matrix_geometry import ConvGeometry, MatrixGeometry, geometry
from quark_onnx.engine.layers.row_grids import coded, grid_of, safe_run
from quark_onnx.graph import Model, Node
from quark_onnx.graph.large_weights import let_go, spilled
from quark_onnx.graph.view import constant, is_op
from quark_onnx.numerics.quantizer import along, representable
from quark_onnx.numerics.rounding.safe_rounding import GROWTH, Inputs, round_safely
from quark_onnx.numerics.weight_pairs import unsafe_pairs

STORED = (
    "stored as uint8 with zero point 128, exact on every processor: int8 weights that cannot saturate without VNNI "
    "would cost {:.1f} dB at the output of {!r}"
)


def channels_needed(model: Model, plan: Plan) -> list[Channels]:
    """The activations whose moments `round_weights` can use, with their axis of channels."""
    return [_channels(node) for node in _readers(model, plan).values()]


def round_weights(model: Model, plan: Plan, moments: Moments, how: str) -> Plan:
    """The plan with integers of weights that nearest ones would make unsafe.

    Args:
        moments: of `channels_needed`; of layers without, nothing is known.
        how: "auto" stores the weights of layers that would lose much as uint8; "safe" none.
    """
    sites, chosen, rounded, remarks = dict(plan.sites), dict(plan.qparams), dict(plan.rounded), dict(plan.remarks)
    members = Counter(site.group for site in sites.values())
    for tensor, node in _readers(model, plan).items():
        site, q = sites[tensor], plan.qparams_of(tensor)
        alone = members[site.group] == 1
        layer = _geometry(node)
        array = np.asarray(constant(model.graph.initializers[tensor]), np.float32)
        rows = layer.rows(array)
        let_go(model.graph.initializers[tensor].const_value)
        grid = grid_of(q, site.format, layer, rows.shape)
        inputs = _inputs(rows.shape, moments.get(_channels(node)))
        free = alone and site.range is None  # a scale that is given stays
        scales = [representable(grid.scale * np.float32(factor), site.format) for factor in GROWTH] if free else []
        found = round_safely(rows, grid, inputs, scales)
        del rows
        if found is None:
            continue
        if how == "auto" and alone and found.costs_much:
            sites[tensor] = replace(site, format=site.format.unsigned)
            chosen[site.group] = QParams(q.scale, q.zero_point + np.int32(1 << (site.format.bits - 1)))
            told = STORED.format(found.decibel, node.name)
            remarks[tensor] = f"{remarks[tensor]}; {told}" if tensor in remarks else told
            continue
        whole, scale = coded(found.codes, found.scale, q, site.format)
        del found
        rounded[tensor] = Coded(spilled(layer.weight(whole, array)), scale)
    return replace(plan, sites=sites, qparams=chosen, rounded=rounded, remarks=remarks)


def unsafe_weights(model: Model, plan: Plan) -> set[str]:
    """Weights that must have safe pairs, and whose integers in the plan have an unsafe one."""
    found = set()
    for tensor, node in _readers(model, plan).items():
        integers, q = plan.coded(tensor), plan.qparams_of(tensor)
        if integers is not None:
            format, layer = plan.sites[tensor].format, _geometry(node)
            rows = layer.rows(integers.codes - along(q.zero_point, integers.codes.shape, format))
            found |= {tensor} if unsafe_pairs(rows, safe_run(format, layer, rows.shape[-1])).any() else set()
    return found


def _readers(model: Model, plan: Plan) -> dict[str, Node]:
    """The first quantized layer of every weight that must have safe pairs."""
    wanted = {tensor for tensor, site in plan.sites.items() if site.format.safe_pairs}
    found: dict[str, Node] = {}
    for node in model.graph:
        for tensor in plan.nodes.get(node.name or "", ()):
            if tensor in wanted and is_op(node, "Conv", "Gemm", "MatMul") and _reads(node, tensor):
                found.setdefault(tensor, node)
    return found


def _reads(node: Node, tensor: str) -> bool:
    weight = node.inputs[1]
    return weight is not None and weight.name == tensor


def _geometry(node: Node) -> MatrixGeometry | ConvGeometry:
    data, weight = node.inputs[:2]
    assert data is not None and weight is not None
    found = geometry(node, weight, data, 1)
    assert not isinstance(found, Skip)  # placement asks for safe pairs only where there is one
    return found


def _channels(node: Node) -> Channels:
    data = node.inputs[0]
    assert data is not None
    across = is_op(node, "Gemm") and node.attributes.get_int("transA", 0) == 1
    return data.name or "", 1 if is_op(node, "Conv") else -2 if across else -1


def _inputs(shape: tuple[int, ...], moments: Moment | None) -> Inputs:
    """Mean and variance of what the K inputs of every group see: channels, at each position of the kernel."""
    groups, _, inputs = shape
    if moments is None:
        return Inputs.unknown((groups, inputs))
    by_group = (side.reshape(groups, 1, -1) for side in moments)
    return Inputs(*(np.tile(a, (1, inputs // a.shape[-1], 1)).reshape(groups, inputs) for a in by_group))
