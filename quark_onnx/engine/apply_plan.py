"""Apply a plan: the float model with QuantizeLinear and DequantizeLinear where the plan has sites. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.operators import SHAPE_ALONE
from quark_onnx.core.plan import TABLE, Plan, QParams, Site
from quark_onnx.engine.looked_up_tables import Table, by_row
from quark_onnx.engine.plan_against_model import refuse_misfit
from quark_onnx.graph import Graph, Model, Node, Value, io
from quark_onnx.graph.bodies import put_back
from quark_onnx.graph.edit import (
    add_constant,
    become,
    forget_types,
    fresh_name,
    new_node,
    read_instead,
    take_input,
)
from quark_onnx.graph.large_weights import let_go
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.shared_constants import reunite, share_constants, turn_tables
from quark_onnx.graph.view import constant, input_at, is_op, rank, sole_reader
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import carrier, clip_bounds, quantize


def apply(model: Model, plan: Plan, bodies: Mapping[str, Model] | None = None) -> Model:
    """The QDQ model. `model` is left as it is.

    Args:
        bodies: what takes the places of bodies, by key (`graph.bodies`); it is used up.

    Raises:
        PlanError: the plan was made for another model, does not fit its tensors, or is not complete.
    """
    if io.fingerprint(model) != plan.model:
        raise PlanError(
            f"the plan was made for model {plan.model}, this one is {io.fingerprint(model)}; make a new plan for it"
        )
    refuse_misfit(model, plan)
    quantized = io.copy(model)
    put_back(quantized, bodies or {})
    if plan.sites:  # the graph may be empty otherwise
        Writer(quantized.graph, plan).write()
    remove_unused(quantized)
    reunite(quantized.graph)
    turn_tables(quantized.graph)
    if bodies:
        share_constants(quantized)
    forget_types(quantized.graph)
    return quantized


def apply_codes(part: Model, plan: Plan, floats: Collection[str] = ()) -> Model:
    """A segment of the model, quantized, that takes and returns integer codes where its ends carry a quantizer.

    Tensors that are quantized at run time are floats at the ends of a segment, and so are those in `floats`: each
    segment that reads one of them quantizes it for itself. What is handed on is quantized again, which changes nothing.
    """
    quantized = io.copy(part)
    present = {value.name for value in quantized.graph.initializers.values()} | {v.name for v in quantized.graph.inputs}
    present |= {value.name for node in quantized.graph for value in node.outputs}
    sites = {tensor: replace(site, handed=False) for tensor, site in plan.sites.items() if tensor in present}
    values = {name: array for name, array in plan.values.items() if name in present}
    writer = Writer(quantized.graph, replace(plan, sites=sites, values=values), floats)
    writer.write()
    writer.cut()
    remove_unused(quantized)
    return quantized


class Writer:
    """Puts one site after the other into a graph. `floats`: tensors that the graph takes and returns unquantized."""

    def __init__(self, graph: Graph, plan: Plan, floats: Collection[str] = ()) -> None:
        self.graph = graph
        self.plan = plan
        self.floats = floats
        self.first = graph[0]
        self.values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
        self.values |= {value.name: value for node in graph for value in node.outputs}
        self.parameters: dict[tuple[str, str], list[Value]] = {}
        self.zero_points: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self.quantizers: dict[str, Node] = {}

    def write(self) -> None:
        """All sites, in the order of the plan.

        Raises:
            PlanError: the plan is not complete, or names a tensor that the model does not have.
        """
        if unknown := self.plan.sites.keys() - self.values.keys():
            raise PlanError(f"the plan has a site on {min(unknown)!r}, no tensor of the model; make a new plan")
        groups = {site.group for site in self.plan.sites.values() if has_scale(site)}
        if unset := groups - self.plan.qparams.keys():
            raise PlanError(f"the plan has no scale for {min(unset)!r}: its ranges were never chosen; make a new plan")
        kinds = {"activation": self.activation, "dynamic": self.dynamic, "bias": self.bias}
        floats = [node for node in self.graph if self._returns_floats(node)]
        for site in self.plan.sites.values():
            kinds.get(site.role, self.weight)(site)
        for node in floats:
            self._bias_apart(node)
        for node in [node for node in self.graph if is_op(node, "MatMul", "Gemm")]:
            self._clamp_apart(node)
        for tensor in sorted(self.plan.values.keys() - self.plan.sites.keys()):
            read_instead(self.values[tensor], add_constant(self.graph, self.plan.values[tensor], f"{tensor}_tuned"))

    def cut(self) -> None:
        """Inputs and outputs of the graph become the codes behind, and before, their quantizers."""
        inputs, outputs = self.graph.inputs, self.graph.outputs
        for i, value in enumerate(inputs):
            quantizer = self.quantizers.get(value.name or "")
            if quantizer is not None and value.name not in self.floats:
                inputs[i] = take_input(quantizer, self.plan.sites[value.name or ""].format.dtype)
        for i, value in enumerate(outputs):
            producer = value.producer()
            if is_op(producer, "DequantizeLinear") and producer is not None and producer.inputs[0] is not None:
                outputs[i] = producer.inputs[0]

    def activation(self, site: Site) -> None:
        """value → QuantizeLinear → DequantizeLinear → every reader, graph output included; or those who asked for it.

        Who asks for nothing but the shape reads the codes: onnxruntime would dequantize the tensor for it alone. A grid
        that is narrower than its type has a Clip in front, so that no code of the type lies outside.
        """
        if site.handed:
            return
        value, q = self.values[site.tensor], self.plan.qparams_of(site.tensor)
        parameters = self._scale_and_zero_point(site, q)
        clip = [self._clip(value, site, q)] if site.format.simulated else []
        source = clip[0].outputs[0] if clip else value
        quantizer = self._node("QuantizeLinear", [source, *parameters], site, f"{site.tensor}_quantized")
        restored = self._node(
            "DequantizeLinear", [quantizer.outputs[0], *parameters], site, f"{site.tensor}_dequantized"
        )
        self.quantizers[site.tensor] = quantizer
        nodes = [*clip, quantizer, restored]
        readers = [node for node in value.consumers() if node not in nodes]
        placed = self.placed(site, value, nodes)
        self._insert(value, placed)
        result = placed[-1].outputs[0]
        keep = [node for node in value.consumers() if node not in readers]
        if site.beside:
            keep += [node for node in readers if self._reads_float(value, node)]
        elif quantizer in placed:
            others = [node for node in readers if not is_op(node, *SHAPE_ALONE)]
            read_instead(value, quantizer.outputs[0], keep=[*keep, *others])
        read_instead(value, result, keep=keep)
        outside = site.beside or site.tensor in self.floats
        if value.is_graph_output() and not value.is_graph_input() and not outside:
            self._take_output(value, result)

    def placed(self, site: Site, value: Value, nodes: list[Node]) -> list[Node]:
        """The nodes that go into the graph between a float value and its readers, which read what the last one makes.

        Args:
            nodes: that quantize and dequantize `value`, in order.
        """
        return nodes

    def _clip(self, value: Value, site: Site, q: QParams) -> Node:
        """Clip to the real values at the ends of the grid."""
        bounds = clip_bounds(q, site.format)
        ends = (add_constant(self.graph, b, f"{site.tensor}_{n}") for b, n in zip(bounds, ("low", "high"), strict=True))
        return new_node(self.graph, "Clip", [value, *ends], f"{site.tensor}_Clip", f"{site.tensor}_clipped")

    def _insert(self, value: Value, nodes: list[Node]) -> None:
        """Nodes behind the one that computes the value; in front of all where it is an input."""
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.first, nodes)
        else:
            self.graph.insert_after(producer, nodes)

    def dynamic(self, site: Site) -> None:
        """value → DynamicQuantizeLinear → DequantizeLinear → the layers that asked for it; others read it as it is."""
        value = self.values[site.tensor]
        readers = [node for node in value.consumers() if not self._reads_float(value, node)]
        quantizer = self._node("DynamicQuantizeLinear", [value], site, f"{site.tensor}_quantized")
        quantizer.resize_outputs(3)
        for output, part in zip(quantizer.outputs[1:], ("scale", "zero_point"), strict=True):
            output.name = fresh_name(self.graph, f"{site.tensor}_{part}")
        restored = self._node("DequantizeLinear", list(quantizer.outputs), site, f"{site.tensor}_dequantized")
        self._insert(value, [quantizer, restored])
        for node in readers:
            self._bias_apart(node)
        read_instead(value, restored.outputs[0], keep=[quantizer, *self._float_readers(value)])

    def _take_output(self, value: Value, result: Value) -> None:
        """The dequantized value becomes the graph output, under the public name."""
        name = value.name or ""
        for i, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[i] = result
        result.type, result.shape = value.type, value.shape
        value.name = fresh_name(self.graph, f"{name}_float")
        result.name = name

    def _bias_apart(self, node: Node) -> None:
        """A layer whose output is float, and its float bias, so that onnxruntime multiplies integers.

        It has no kernel for a Gemm with a float bias and no quantizer behind it, and none for a Gemm with integer
        weights alone and a Relu behind it.
        """
        added = input_at(node, 2)
        if is_op(node, "MatMul"):
            self._addition_apart(node)
        elif is_op(node, "Gemm") and added is not None and not is_op(added.producer(), "DequantizeLinear"):
            product = new_node(self.graph, "Gemm", node.inputs[:2], "", f"{node.outputs[0].name}_product")
            product.attributes.update(node.attributes)
            self.graph.insert_before(node, product)
            self.first = product if self.first is node else self.first
            become(node, "Add", [product.outputs[0], added])
            product.name, node.name = node.name, fresh_name(self.graph, f"{node.name}_bias")

    def _returns_floats(self, node: Node) -> bool:
        """Whether it multiplies matrices of integers, and the next that reads it takes floats.

        With a quantizer behind what is added, a Gemm of matrices has an integer kernel; of more axes, none.
        """
        tensors = self.plan.nodes.get(node.name or "", ())
        ranged = any(tensor in self.plan.sites and self.plan.sites[tensor].role == "activation" for tensor in tensors)
        if not is_op(node, "MatMul", "Gemm") or not ranged:
            return False
        inputs, output = {value.name for value in node.inputs if value is not None}, node.outputs[0]
        adds_axes = is_op(node, "MatMul") and output.name not in self.plan.sites and (rank(output) or 0) > 2
        return adds_axes or inputs.issuperset(tensors)

    def _addition_apart(self, product: Node) -> None:
        """The Add behind a product of integers, written so that onnxruntime makes no float Gemm of both.

        It does so of matrices, whatever is added, and of more axes where what is added has one. Numbers with two axes
        it leaves alone there; a Sum it leaves alone anyway, but adds it up in one thread.
        """
        add = sole_reader(product.outputs[0])
        if add is None or not is_op(add, "Add"):
            return
        others = [value for value in add.inputs if value is not None and value is not product.outputs[0]]
        axes = rank(product.outputs[0])
        if axes is None or not others or (axes > 2 and rank(others[0]) != 1):
            return
        array = constant(others[0])
        if axes <= 2 or array is None:
            become(add, "Sum", list(add.inputs))
            return
        array = self.plan.values.get(others[0].name or "", array)
        add.replace_input_with(
            0 if add.inputs[0] is others[0] else 1, add_constant(self.graph, array[None], f"{others[0].name}_row")
        )

    def _clamp_apart(self, product: Node) -> None:
        """The Relu or Clip behind a product of integers that returns floats: a Max of two, or with a Max in front.

        onnxruntime looks for the quantizer that makes the clamp needless, and where there is none, multiplies floats.
        """
        clamp, makers = sole_reader(product.outputs[0]), [v.producer() for v in product.inputs if v is not None]
        if clamp is None or not is_op(clamp, "Relu", "Clip") or not any(is_op(n, "DequantizeLinear") for n in makers):
            return
        readers = list(clamp.outputs[0].consumers())
        if not readers or any(is_op(node, "QuantizeLinear", "Clip") for node in readers):
            return
        if is_op(clamp, "Relu"):
            zero = add_constant(self.graph, np.zeros((), np.float32), f"{clamp.name}_zero")
            become(clamp, "Max", [product.outputs[0], zero])
        else:
            apart = new_node(self.graph, "Max", [product.outputs[0]], f"{clamp.name}_Max", f"{clamp.name}_input")
            self.graph.insert_before(clamp, apart)
            clamp.replace_input_with(0, apart.outputs[0])

    def weight(self, site: Site) -> None:
        """Integer initializer → DequantizeLinear → the quantized nodes that asked for it; others keep the float one."""
        q = self.plan.qparams_of(site.tensor)
        for node in self.values[site.tensor].consumers():
            if self.plan.nodes.get(node.name or "") == (site.tensor,) and is_op(node, "Gemm"):
                self._bias_apart(node)
        coded = self.plan.coded(site.tensor)
        codes = quantize(self._array(site), q, site.format) if coded is None else coded.codes
        if site.rule == TABLE and by_row(site.format, q):
            self._looked_up(site, codes, q)
            return
        self._dequantized(site, codes, self._scale_and_zero_point(site, q))

    def _looked_up(self, site: Site, codes: NDArray[Any], q: QParams) -> None:
        """Rows of integers, made float behind the nodes that asked for them."""
        value = self.values[site.tensor]
        table = Table(self.graph, site.tensor, codes, q, site.format)
        for node in [node for node in value.consumers() if not self._reads_float(value, node)]:
            first = table.read_by(node)
            self.first = first if self.first is node else self.first
        let_go(value.const_value)

    def _array(self, site: Site) -> NDArray[Any]:
        array = constant(self.values[site.tensor])
        assert array is not None
        return self.plan.values.get(site.tensor, array)

    def bias(self, site: Site) -> None:
        """int32 initializer → DequantizeLinear with scale input · weight; narrower ones have a scale of their own."""
        if has_scale(site):
            self.weight(site)
            return
        x, w = (self.plan.qparams_of(factor) for factor in site.factors)
        codes, scale = integer_bias.stored(self._array(site), x.scale, w.scale)
        self._dequantized(site, codes, [add_constant(self.graph, scale, f"{site.tensor}_scale")])

    def _dequantized(self, site: Site, codes: NDArray[Any], parameters: list[Value]) -> None:
        stored = add_constant(
            self.graph, codes.astype(carrier(site.format)), f"{site.tensor}_quantized", site.format.dtype
        )
        dq = self._node("DequantizeLinear", [stored, *parameters], site, f"{site.tensor}_dequantized")
        value = self.values[site.tensor]
        dq.outputs[0].type = value.type
        readers = [node for node in value.consumers() if not self._reads_float(value, node)]
        placed = self.placed(site, value, [dq])
        self.graph.insert_before(self.first, placed)
        read_instead(value, placed[-1].outputs[0], keep=[node for node in value.consumers() if node not in readers])
        let_go(value.const_value)

    def _node(self, op_type: str, inputs: list[Value], site: Site, output: str) -> Node:
        attributes = {} if site.format.axis is None else {"axis": site.format.axis}
        attributes |= {"block_size": site.format.block} if site.format.block else {}
        return new_node(self.graph, op_type, inputs, f"{site.tensor}_{op_type}", output, attributes)

    def _float_readers(self, value: Value) -> Iterable[Node]:
        """Who did not ask for integers."""
        return (node for node in value.consumers() if self._reads_float(value, node))

    def _reads_float(self, value: Value, node: Node) -> bool:
        """Nodes in bodies always do, whatever their name."""
        return node.graph is not self.graph or value.name not in self.plan.nodes.get(node.name or "", ())

    def _scale_and_zero_point(self, site: Site, q: QParams) -> list[Value]:
        """Initializers: a scale per group, and a zero point for all that have this one."""
        key = site.group, site.format.dtype
        if key not in self.parameters:
            scale = add_constant(self.graph, q.scale, f"{site.group}_scale")
            self.parameters[key] = [scale, self._zero_point(site, q.zero_point.astype(carrier(site.format)))]
        return self.parameters[key]

    def _zero_point(self, site: Site, array: NDArray[Any]) -> Value:
        dtype, first = site.format.dtype, array.reshape(-1)[:1]
        key = dtype, array.shape, array.tobytes()
        if key not in self.zero_points:
            alike = f"{dtype}_zero_point_{first.item()}" if (array == first).all() else f"{site.group}_zero_point"
            self.zero_points[key] = add_constant(self.graph, array, alike, dtype)
        return self.zero_points[key]


def has_scale(site: Site) -> bool:
    """Whether the plan holds a scale for the site: not for what is quantized at run time, nor for int32 biases."""
    return site.role != "dynamic" and not (site.role == "bias" and site.format.bits == 32)
