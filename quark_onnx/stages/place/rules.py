"""Placement rules: what a node needs around it to run on integers, by kind of operator.

Each rule only reads: it returns a `Wish`, or `Skip` with the reason why the node stays float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.formats import Format
from quark_onnx.core.ops import CPU, Op
from quark_onnx.core.plan import Role, Site, Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, rank, shape, sole_reader
from quark_onnx.stages.place.exempt import data_inputs
from quark_onnx.stages.place.shown import REASON as SHOWN
from quark_onnx.stages.place.shown import moves_shown, only_shown


@dataclass
class Wish:
    """Sites that one node needs, and which tensors follow the range of another one (`ties`: follower → leader).

    `absorbed`: nodes behind this one that its output quantizer, or its accumulator, takes in.
    """

    rule: str
    sites: list[Site] = field(default_factory=list)
    ties: dict[str, str] = field(default_factory=dict)
    absorbed: list[Node] = field(default_factory=list)

    def want(self, value: Value, role: Role, format: Format, **more: object) -> None:
        name = value.name or ""
        if all(site.tensor != name for site in self.sites):
            self.sites.append(Site(name, role, format, name, self.rule, **more))  # type: ignore[arg-type]

    def want_data(self, value: Value, config: QuantizationConfig, **more: object) -> None:
        self.want(value, "activation" if constant(value) is None else "constant", config.activation, **more)


@dataclass(frozen=True)
class Context:
    """What rules may ask: the configuration and which nodes must stay float."""

    config: QuantizationConfig
    barred: Collection[str]


Rule = Callable[[Node, Op, Context], "Wish | Skip"]


def layer(node: Node, row: Op, context: Context) -> Wish | Skip:
    """Conv, ConvTranspose, Gemm: activation in and out, integer weight, int32 bias at input scale · weight scale."""
    weight, bias = input_at(node, 1), input_at(node, 2)
    if weight is None or constant(weight) is None:
        return Skip("the weight is computed at run time")
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return Skip("alpha or beta is not 1; optimize_model=True folds them")
    channels = _channels(node, weight)
    if bias is not None and constant(bias) is None:
        return Skip("the bias is computed at run time")
    if bias is not None and _row_length(bias) not in (1, channels):
        return Skip("the bias is not one number per output channel")
    wish = Wish("layer")
    wish.want_data(node.inputs[0], context.config)  # type: ignore[arg-type]
    wish.want(weight, "weight", _weight_format(context, _axis(node, row)))
    if bias is not None:
        accumulator = Format(32, True, True, 0 if wish.sites[-1].format.axis is not None else None)
        wish.want(bias, "bias", accumulator, factors=(wish.sites[0].tensor, weight.name or ""))
    _want_output(wish, node, context)
    return wish


def _axis(node: Node, row: Op) -> int:
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return 0 if transposed else row.weight_axis


def _channels(node: Node, weight: Value) -> int | None:
    """Number of output channels."""
    dims = shape(weight) or ()
    axis = _axis(node, CPU[node.op_type])
    groups = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    size = dims[axis]
    return None if size is None else size * groups


def _row_length(value: Value) -> int:
    """Number of elements of a constant that is one row, or a single number; 0 of any other."""
    array = constant(value)
    return 0 if array is None or array.shape[-1:] not in ((), (array.size,)) else int(array.size)


def _weight_format(context: Context, axis: int | None) -> Format:
    return replace(context.config.weight, axis=axis if context.config.per_channel else None)


def matmul(node: Node, row: Op, context: Context) -> Wish | Skip:
    """MatMul: one constant side is the weight; the constant Add behind it stays in the float accumulator."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None and b is not None
    if context.config.option("MatMulConstBOnly") and constant(b) is None:
        return Skip("MatMulConstBOnly: the second input is not constant")
    if (rank(a) or 0) < 1 or (rank(b) or 0) < 1:
        return Skip("the rank of an input is unknown")
    wish = Wish("matmul")
    for value in (a, b):
        if constant(value) is None:
            wish.want_data(value, context.config)
        else:
            # onnxruntime's kernel takes scales along the columns of a matrix on the right; all else is per-tensor
            wish.want(value, "weight", _weight_format(context, 1 if value is b and rank(b) == 2 else None))
    if not any(site.role == "activation" for site in wish.sites):
        return Skip("both inputs are constant")
    add = _bias_add(node.outputs[0], context)
    if add is not None:
        wish.absorbed.append(add)
    _want_output(wish, add or node, context)
    return wish


def _bias_add(product: Value, context: Context) -> Node | None:
    """The Add of one constant per column that is the only reader of a product."""
    add = sole_reader(product)
    if not is_op(add, "Add") or add is None or add.name in context.barred:
        return None
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    array = constant(other)
    if array is None or array.ndim > (rank(product) or 0) or any(size != 1 for size in array.shape[:-1]):
        return None
    return add


def act(node: Node, row: Op, context: Context) -> Wish | Skip:
    """Operators with a range of their own on every input and output; what is computed in float reads float."""
    if node.op_type == "Concat" and len(node.inputs) < 2:
        return Skip("a Concat of one input")
    if node.op_type == "AveragePool" and any(step != 1 for step in node.attributes.get_ints("dilations", ())):
        return Skip("onnxruntime's integer AveragePool has no dilations, and refuses a model that asks for them")
    wish = Wish("fixed range" if row.range else "activation")
    for value in data_inputs(node, row) if not row.reads_float else ():
        wish.want_data(value, context.config)
    if wish.sites and all(site.role == "constant" for site in wish.sites):
        return Skip("all inputs are constant")
    if row.range and only_shown(node.outputs[0]):
        return Skip(SHOWN)
    _want_output(wish, node, context, row.range)
    if node.op_type == "Concat" and context.config.option("AlignConcat"):
        output = wish.sites[-1].tensor
        wish.ties |= {site.tensor: output for site in wish.sites[:-1]}
    return wish


def same(node: Node, row: Op, context: Context) -> Wish | Skip:
    """Operators that only move values: every output has the scale of the input."""
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return Skip("its Indices output is read")
    if node.op_type == "Pad" and not _pads_with_zero(node):
        return Skip("pads with a value other than 0")
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "cubic":
        return Skip("cubic interpolation leaves the range of its input")
    if moves_shown(node):
        return Skip(SHOWN)
    wish = Wish("same scale")
    source = node.inputs[0]
    assert source is not None
    wish.want_data(source, context.config)
    for value in node.outputs if node.op_type == "Split" else node.outputs[:1]:
        wish.want_data(value, context.config)
        wish.ties[value.name or ""] = source.name or ""
    return wish


def _pads_with_zero(node: Node) -> bool:
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = input_at(node, 2)
    array = constant(value)
    return value is None or (array is not None and not array.any())


def _want_output(wish: Wish, node: Node, context: Context, known: tuple[float, float] | None = None) -> None:
    """The quantizer behind `node`: after the clamp that follows it, where there is one.

    Case 1: Relu or Clip(0, M) and asymmetric activations: the range begins at 0 and ends within M, so the quantizer
            clamps exactly as they do, and onnxruntime drops them.
    Case 2: any other clamp: a quantizer before and behind it, with one scale, so that nothing is rounded twice.
    """
    output = node.outputs[0]
    clamp = sole_reader(output)
    if clamp is None or not is_op(clamp, "Relu", "Clip") or clamp.name in context.barred:
        wish.want_data(output, context.config, range=known)
        return
    behind = clamp.outputs[0]
    wish.absorbed.append(clamp)
    if context.config.activation.symmetric or not _clamps_at_zero(clamp):
        wish.want_data(output, context.config)
        wish.ties[output.name or ""] = behind.name or ""
    wish.want_data(behind, context.config)


def _clamps_at_zero(clamp: Node) -> bool:
    if clamp.op_type == "Relu":
        return True
    low, high = constant(input_at(clamp, 1)), input_at(clamp, 2)
    return (
        low is not None and low.size == 1 and float(low.item()) == 0.0 and (high is None or constant(high) is not None)
    )


RULES: dict[str, Rule] = {"layer": layer, "matmul": matmul, "act": act, "fixed": act, "same": same}
"""Rule by kind. Clamps have none: the node before them takes them in."""
