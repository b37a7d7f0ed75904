"""From the quantizers that the configuration leaves on to the sites of a plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, Role, Site
from quark_onnx.core.settings.aimet_runtime_config import RuntimeConfig
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.view import is_constant, numpy_dtype
from quark_onnx.stages.simulated_placement.fusions import fused
from quark_onnx.stages.simulated_placement.operator_exceptions import exceptions, per_channel
from quark_onnx.stages.simulated_placement.quantizers import Board, Quantizer, configure
from quark_onnx.stages.simulated_placement.shared_quantizers import tie
from quark_onnx.stages.simulated_placement.units import Circuit, Unit

ACTIVATION = Format(8, signed=False)

WEIGHT = Format(8, signed=True, symmetric=True)


@dataclass(frozen=True)
class Simulated:
    """Where quantizers stand.

    plan      with sites, nodes and notes; scales are still open
    off       tensor → the site it would have: a quantizer could stand there, but the configuration wants none
    channels  parameter → axis of its output channels, where it has one, whether or not they have scales of their own
    """

    plan: Plan
    off: Mapping[str, Site]
    channels: Mapping[str, int]


def simulated_sites(
    model: Model, config: RuntimeConfig, activation: Format = ACTIVATION, weight: Format = WEIGHT
) -> Simulated:
    """The quantizers of a model, on and off.

    Args:
        model: constants lifted, nodes named, types inferred: `stages.prepare` with `optimize=False`, or the passes.
        activation: width, signedness and kind of scale; symmetry is the configuration's.
        weight: the same of parameters; their axis, too, is the configuration's.

    Raises:
        ConfigError: two operator types of the configuration contradict each other at a tensor.
    """
    circuit = Circuit(model.graph, fused(model.graph, config.passes))
    board = Board(circuit, activation.bits, weight.bits)
    configure(board, config)
    remarks = per_channel(board, config)
    exceptions(board, config)
    tie(board)
    both = {v.name or "": (q.on, _site(v, q, activation, weight)) for v, q in board.of.items()}
    sites = {tensor: site for tensor, (on, site) in both.items() if on}
    nodes = around(model.graph, sites)
    notes = _notes(model.graph, circuit, nodes)
    kept = {tensor: remark for tensor, remark in remarks.items() if tensor in sites}
    off = {tensor: site for tensor, (on, site) in both.items() if not on}
    axes = {q.owner.name or "": unit.channel_axis(q.owner) for unit, _, q in board.params()}
    channels = {tensor: axis for tensor, axis in axes.items() if axis is not None}
    return Simulated(Plan(io.fingerprint(model), sites, nodes, notes, remarks=kept), off, channels)


def around(graph: Graph, sites: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Node → the tensors in `sites` that it reads or computes, for the nodes that have any."""
    values = {node.name or "": [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None] for node in graph}
    found = {node: tuple(dict.fromkeys(name for name in names if name in sites)) for node, names in values.items()}
    return {node: tensors for node, tensors in found.items() if tensors}


def _site(value: Value, quantizer: Quantizer, activation: Format, weight: Format) -> Site:
    """The quantizer of a tensor; its range is that of the tensor it was made for."""
    role: Role = "constant" if is_constant(value) else "activation"
    if quantizer.param:
        role = "bias" if quantizer.param == "bias" else "weight"
    low, high = quantizer.constraint or (None, None)
    known = None if low is None or high is None else (low, high)
    return Site(
        value.name or "",
        role,
        _format(quantizer, weight if quantizer.param else activation),
        quantizer.owner.name or "",
        quantizer.rule,
        range=known,
        low=low if known is None else None,
    )


def _format(quantizer: Quantizer, base: Format) -> Format:
    """Grids of less than 8 bits are stored with 8: the values are the same, and any operator set will do."""
    return replace(
        base,
        bits=quantizer.bits,
        symmetric=quantizer.symmetric,
        axis=quantizer.axis,
        block=None,
        strict=quantizer.symmetric and quantizer.strict,
        one_sided=quantizer.symmetric and quantizer.unsigned,
        stored=8 if quantizer.bits < 8 else None,
    )


def _notes(graph: Graph, circuit: Circuit, nodes: Collection[str]) -> dict[str, str]:
    """Why there is no quantizer around the other nodes."""
    inside = {node: unit for unit in circuit.units if len(unit.nodes) > 1 for node in unit.nodes}
    return {node.name or "": _why_none(node, inside.get(node)) for node in graph if node.name not in nodes}


def _why_none(node: Node, unit: Unit | None) -> str:
    if unit is not None:
        return f"inside one {unit.type} of the target"
    for value in (*node.outputs, *node.inputs):
        dtype = None if value is None else numpy_dtype(value)
        if value is not None and value.name and dtype is not None and dtype != "float32":
            return f"{value.name!r} holds {dtype}; only float32 is quantized"
    return "the runtime configuration puts no quantizer around it"
