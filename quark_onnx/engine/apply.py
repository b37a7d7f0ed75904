"""Apply a plan: the float model with QuantizeLinear and DequantizeLinear where the plan has sites. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.edit import add_constant, forget_types, fresh_name, new_node, read_instead, take_input
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import constant, is_op
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


def apply_codes(part: Model, plan: Plan) -> Model:
    """A segment of the model, quantized, that takes and returns integer codes where its ends carry a quantizer."""
    quantized = io.copy(part)
    present = {value.name for value in quantized.graph.initializers.values()} | {v.name for v in quantized.graph.inputs}
    present |= {value.name for node in quantized.graph for value in node.outputs}
    sites = {tensor: site for tensor, site in plan.sites.items() if tensor in present}
    values = {name: array for name, array in plan.values.items() if name in present}
    writer = _Writer(quantized.graph, replace(plan, sites=sites, values=values))
    writer.write()
    writer.cut()
    remove_unused(quantized)
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
        for tensor in sorted(self.plan.values.keys() - self.plan.sites.keys()):
            read_instead(self.values[tensor], add_constant(self.graph, self.plan.values[tensor], f"{tensor}_tuned"))

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

    def cut(self) -> None:
        """Inputs and outputs of the graph become the codes behind, and before, their quantizers."""
        inputs, outputs = self.graph.inputs, self.graph.outputs
        for i, value in enumerate(inputs):
            readers = [use.node for use in value.uses()]
            if len(readers) == 1 and is_op(readers[0], "QuantizeLinear"):
                codes = take_input(readers[0], self.plan.sites[value.name or ""].format.dtype)
                inputs[i] = codes
        for i, value in enumerate(outputs):
            producer = value.producer()
            if is_op(producer, "DequantizeLinear") and producer is not None and producer.inputs[0] is not None:
                outputs[i] = producer.inputs[0]

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
        tuned = self.plan.codes.get(site.tensor)
        codes = quantize(self._array(site), q, site.format) if tuned is None else tuned.codes
        self._dequantized(site, codes, self._scale_and_zero_point(site, q))

    def _array(self, site: Site) -> NDArray[Any]:
        array = constant(self.values[site.tensor])
        assert array is not None
        return self.plan.values.get(site.tensor, array)

    def bias(self, site: Site) -> None:
        """int32 initializer → DequantizeLinear with scale input · weight."""
        x, w = (self.plan.qparams_of(factor) for factor in site.factors)
        array = self._array(site)
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
        """Who did not ask for integers; nodes in bodies never do, whatever their name."""
        nodes = (use.node for use in value.uses())
        return (
            n for n in nodes if n.graph is not self.graph or value.name not in self.plan.nodes.get(n.name or "", ())
        )

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
