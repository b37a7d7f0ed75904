"""Apply a plan: the float model with QuantizeLinear and DequantizeLinear where the plan has sites. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.edit import add_constant, forget_types, fresh_name, new_node, read_instead
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import constant
from quark_onnx.numerics import bias
from quark_onnx.numerics.quant import quantize


def apply(model: Model, plan: Plan) -> Model:
    """The QDQ model. `model` is left as it is.

    Raises:
        PlanError: the plan was made for another model, or is not complete.
    """
    if io.fingerprint(model) != plan.model:
        raise PlanError(
            f"the plan was made for model {plan.model}, this one is {io.fingerprint(model)}; make a new plan for it"
        )
    quantized = io.copy(model)
    if plan.sites:  # the graph may be empty otherwise
        _Writer(quantized.graph, plan).write()
    remove_unused(quantized)
    forget_types(quantized.graph)
    return quantized


class _Writer:
    """Puts one site after the other into a graph."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.first = graph[0]
        self.values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
        self.values |= {value.name: value for node in graph for value in node.outputs}
        self.parameters: dict[tuple[str, str], list[Value]] = {}

    def write(self) -> None:
        """All sites, in the order of the plan.

        Raises:
            PlanError: the plan is not complete, or names a tensor that the model does not have.
        """
        if unknown := self.plan.sites.keys() - self.values.keys():
            raise PlanError(f"the plan has a site on {min(unknown)!r}, no tensor of the model; make a new plan")
        if unset := {s.group for s in self.plan.sites.values() if s.role != "bias"} - self.plan.qparams.keys():
            raise PlanError(f"the plan has no scale for {min(unset)!r}: its ranges were never chosen; make a new plan")
        kinds = {"activation": self.activation, "constant": self.weight, "weight": self.weight, "bias": self.bias}
        for site in self.plan.sites.values():
            kinds[site.role](site)

    def activation(self, site: Site) -> None:
        """value → QuantizeLinear → DequantizeLinear → every reader, graph output included."""
        value = self.values[site.tensor]
        parameters = self._scale_and_zero_point(site, self.plan.qparams_of(site.tensor))
        q = self._node("QuantizeLinear", [value, *parameters], site, f"{site.tensor}_quantized")
        dq = self._node("DequantizeLinear", [q.outputs[0], *parameters], site, f"{site.tensor}_dequantized")
        result = dq.outputs[0]
        read_instead(value, result, keep=[q])
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.first, [q, dq])
        else:
            self.graph.insert_after(producer, [q, dq])
        if value.is_graph_output() and not value.is_graph_input():
            self._take_output(value, result)

    def _take_output(self, value: Value, result: Value) -> None:
        """The dequantized value becomes the graph output, under the public name."""
        name = value.name or ""
        for i, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[i] = result
        result.type, result.shape = value.type, value.shape
        value.name = fresh_name(self.graph, f"{name}_float")
        result.name = name

    def weight(self, site: Site) -> None:
        """Integer initializer → DequantizeLinear → the quantized nodes that asked for it; others keep the float one."""
        q = self.plan.qparams_of(site.tensor)
        array = constant(self.values[site.tensor])
        assert array is not None
        self._dequantized(site, quantize(array, q, site.format), self._scale_and_zero_point(site, q))

    def bias(self, site: Site) -> None:
        """int32 initializer → DequantizeLinear with scale input · weight."""
        x, w = (self.plan.qparams_of(factor) for factor in site.factors)
        array = constant(self.values[site.tensor])
        assert array is not None
        groups = array.size // w.scale.size if w.scale.ndim and array.size > w.scale.size else 1
        scale = bias.scale(x.scale, w.scale, groups)
        flat = np.broadcast_to(array.reshape(-1), scale.shape) if array.size == 1 and scale.ndim else array.reshape(-1)
        parameter = add_constant(self.graph, scale, f"{site.tensor}_scale")
        self._dequantized(site, bias.codes(flat, scale), [parameter])

    def _dequantized(self, site: Site, codes: NDArray[Any], parameters: list[Value]) -> None:
        stored = add_constant(self.graph, codes.astype(_stored(site)), f"{site.tensor}_quantized", site.format.dtype)
        dq = self._node("DequantizeLinear", [stored, *parameters], site, f"{site.tensor}_dequantized")
        value = self.values[site.tensor]
        dq.outputs[0].type = value.type
        self.graph.insert_before(self.first, dq)
        read_instead(value, dq.outputs[0], keep=list(self._float_readers(value)))

    def _node(self, op_type: str, inputs: list[Value], site: Site, output: str) -> Node:
        attributes = {} if site.format.axis is None else {"axis": site.format.axis}
        return new_node(self.graph, op_type, inputs, f"{site.tensor}_{op_type}", output, attributes)

    def _float_readers(self, value: Value) -> Iterable[Node]:
        return (use.node for use in value.uses() if value.name not in self.plan.nodes.get(use.node.name or "", ()))

    def _scale_and_zero_point(self, site: Site, q: QParams) -> list[Value]:
        """Initializers, one pair per group: equal scales are one tensor."""
        key = site.group, site.format.dtype
        if key not in self.parameters:
            scale = add_constant(self.graph, q.scale, f"{site.group}_scale")
            zero = q.zero_point.astype(_stored(site))
            self.parameters[key] = [
                scale,
                add_constant(self.graph, zero, f"{site.group}_zero_point", site.format.dtype),
            ]
        return self.parameters[key]


def _stored(site: Site) -> str:
    """The numpy type that carries codes; 4-bit codes are packed by the ONNX tensor type."""
    return site.format.dtype if site.format.storage_bits != 4 else site.format.dtype.replace("4", "8")
