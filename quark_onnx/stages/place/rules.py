"""Placement rules: what a node needs around it to run on integers, by kind of operator.

Each rule only reads: it returns a `Wish`, or `Skip` with the reason why the node stays float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from quark_onnx.core.formats import Format
from quark_onnx.core.operators import PAIRED_CLIPS, Op
from quark_onnx.core.plan import Role, Site, Skip
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, rank, shape, sole_reader
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.stages.place.exempt import data_inputs
from quark_onnx.stages.place.groups import shares_negative
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

    @property
    def ops(self) -> Mapping[str, Op]:
        """The operator table of the target."""
        return self.config.row.ops

    @property
    def aligned(self) -> Collection[str]:
        """Operator types whose inputs and outputs share one scale."""
        return self.config.row.aligned(self.config.option("AlignConcat"), self.config.option("AlignPool"))

    def silent(self, node: Node) -> bool:
        """Whether the output gets no quantizer for the sake of this node."""
        return self.config.row.inputs_only or node.op_type in self.config.option("OpTypesToExcludeOutputQuantization")


Rule = Callable[[Node, Op, Context], "Wish | Skip"]


def layer(node: Node, row: Op, context: Context) -> Wish | Skip:
    """Conv, ConvTranspose, Gemm: activation in and out, integer weight, int32 bias at input scale · weight scale."""
    weight, bias = input_at(node, 1), input_at(node, 2)
    if weight is None or constant(weight) is None:
        return Skip("the weight is computed at run time")
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return Skip("alpha or beta is not 1; optimize_model=True folds them")
    channels = _channels(node, row, weight)
    if bias is not None and constant(bias) is None:
        return Skip("the bias is computed at run time")
    if bias is not None and _row_length(bias) not in (1, channels):
        return Skip("the bias is not one number per output channel")
    wish = Wish("layer")
    wish.want_data(node.inputs[0], context.config)  # type: ignore[arg-type]
    wish.want(weight, "weight", _weight_format(context, node, weight, _axis(node, row)))
    _want_bias(wish, bias, context)
    _want_output(wish, node, context)
    return wish


def _want_bias(wish: Wish, bias: Value | None, context: Context) -> None:
    """The bias of a wish that has its data and its weight."""
    data, weight = wish.sites
    numbers = _bias_format(context, weight.format)
    if bias is not None and numbers is not None:
        wish.want(bias, "bias", numbers, factors=(data.tensor, weight.tensor))


def norm(node: Node, row: Op, context: Context) -> Wish | Skip:
    """LayerNormalization, InstanceNormalization on integers: the scale is a weight, the bias that of a layer."""
    scale, bias = input_at(node, 1), input_at(node, 2)
    if scale is None or constant(scale) is None or (bias is not None and constant(bias) is None):
        return Skip("scale or bias is computed at run time")
    if bias is not None and _row_length(bias) == 0:
        return Skip("the bias is not one number per channel")
    wish = Wish("layer")
    wish.want_data(node.inputs[0], context.config)  # type: ignore[arg-type]
    wish.want(scale, "weight", _weight_format(context, node, scale, None))
    _want_bias(wish, bias, context)
    _want_output(wish, node, context)
    return wish


def _axis(node: Node, row: Op) -> int:
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return 0 if transposed else row.weight_axis


def _channels(node: Node, row: Op, weight: Value) -> int | None:
    """Number of output channels."""
    dims = shape(weight) or ()
    axis = _axis(node, row)
    groups = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
    size = dims[axis]
    return None if size is None else size * groups


def _row_length(value: Value) -> int:
    """Number of elements of a constant that is one row, or a single number; 0 of any other."""
    array = constant(value)
    return 0 if array is None or array.shape[-1:] not in ((), (array.size,)) else int(array.size)


def _weight_format(context: Context, node: Node, weight: Value, axis: int | None) -> Format:
    """Blocks along the input axis where they are asked for and there is one, else scales as configured."""
    config = context.config
    size = config.option("BlockSize")
    across = _input_axis(node, weight) if size else None
    if across is None:
        return replace(config.weight, axis=axis if config.per_channel else None)
    return replace(config.weight, axis=across, block=size)


def _input_axis(node: Node, weight: Value) -> int | None:
    """The axis of a matrix that a product sums over; None for all other weights."""
    if node.op_type == "Gemm":
        return 1 if node.attributes.get_int("transB", 0) == 1 else 0
    if node.op_type == "MatMul" and rank(weight) == 2:
        return 0 if node.inputs[1] is weight else 1
    return None


def _bias_format(context: Context, weight: Format) -> Format | None:
    """None where the bias stays float: so configured, or there is no scale per output that int32 codes could count in.

    The int32 accumulator has a scale per channel if the weight has; narrower biases have one of their own.
    """
    bits, plain = context.config.bias_bits, context.config.weight
    if bits is None or weight.block:
        return None
    if bits == 32:
        return Format(32, True, True, None if weight.axis is None else 0)
    return Format(bits, True, True, scale=plain.scale, strict=plain.strict)


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
            axis = 1 if row.per_channel and value is b and rank(b) == 2 else None
            wish.want(value, "weight", _weight_format(context, node, value, axis))
    if not any(site.role == "activation" for site in wish.sites):
        return Skip("both inputs are constant")
    add = _bias_add(node.outputs[0], context) if row.adds_bias else None
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
    if not all(_survives(input_at(node, i), context.config.activation) for i in row.exact):
        return Skip(f"input {row.exact[0]} must be a constant that integers hold exactly")
    known = row.known_range(context.config.activation.bits)
    wish = Wish("fixed range" if known else "activation")
    for value in data_inputs(node, row) if not row.reads_float else ():
        wish.want_data(value, context.config)
    if wish.sites and all(site.role == "constant" for site in wish.sites):
        return Skip("all inputs are constant")
    if row.range and context.config.row.shown_float and only_shown(node.outputs[0], context.ops):
        return Skip(SHOWN)
    if node.op_type not in context.aligned or context.silent(node):
        _want_output(wish, node, context, known)
    elif len(inputs := [site.tensor for site in wish.sites]) > 1:  # the output holds what all inputs hold
        _want_output(wish, node, context, leads=True)
        wish.ties |= dict.fromkeys(inputs, node.outputs[0].name or "")
    else:  # the input holds what the output holds
        _want_output(wish, node, context)
        wish.ties[wish.sites[-1].tensor] = inputs[0]
    return wish


def _survives(value: Value | None, format: Format) -> bool:
    """Whether a constant comes back unchanged from its quantizer."""
    array = constant(value)
    if array is None:
        return False
    q = qparams(array.min(initial=0.0), array.max(initial=0.0), format)
    return bool((dequantize(quantize(array, q, format), q, format) == array).all())


def same(node: Node, row: Op, context: Context) -> Wish | Skip:
    """Operators that only move values: every output has the scale of the input."""
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return Skip("its Indices output is read")
    if node.op_type == "Pad" and not _pads_with_zero(node):
        return Skip("pads with a value other than 0")
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "cubic":
        return Skip("cubic interpolation leaves the range of its input")
    if context.config.row.shown_float and moves_shown(node, context.ops):
        return Skip(SHOWN)
    wish = Wish("same scale")
    source = node.inputs[0]
    assert source is not None
    wish.want_data(source, context.config)
    if context.silent(node):
        return wish
    last = _take(wish, node, context)
    for value in last.outputs if last.op_type == "Split" else last.outputs[:1]:
        wish.want_data(value, context.config)
        wish.ties[value.name or ""] = source.name or ""
    return wish


def _pads_with_zero(node: Node) -> bool:
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = input_at(node, 2)
    array = constant(value)
    return value is None or (array is not None and not array.any())


def _want_output(
    wish: Wish, node: Node, context: Context, known: tuple[float, float] | None = None, *, leads: bool = False
) -> None:
    """The quantizer behind `node`: after the clamp that follows it, where there is one.

    Case 1: Relu or Clip(0, M) and asymmetric activations: the range begins at 0 and ends within M, so the quantizer
            clamps exactly as they do, and onnxruntime drops them.
    Case 2: any other clamp, and one whose output shares a scale with negative values: a quantizer before and behind
            it, with one scale, so that nothing is rounded twice.
    Case 3: the target runs both as one (`Op.takes`): a quantizer behind them only.

    leads: other tensors follow the range of the output; what is behind a clamp would be too narrow.
    """
    if context.silent(node):
        return
    last = _take(wish, node, context)
    output = last.outputs[0]
    clamp = sole_reader(output) if last is node else None
    if clamp is None or not is_op(clamp, "Relu", "Clip") or clamp.name in context.barred or context.silent(clamp):
        wish.want_data(output, context.config, range=known)
        return
    behind = clamp.outputs[0]
    wish.absorbed.append(clamp)
    exact = _clamps_at_zero(clamp) and not context.config.activation.symmetric and not leads
    if not exact or shares_negative(behind, context.ops, context.aligned, context.barred):
        wish.want_data(output, context.config)
        leader, follower = (output, behind) if leads else (behind, output)
        wish.ties[follower.name or ""] = leader.name or ""
    wish.want_data(behind, context.config)


def _take(wish: Wish, node: Node, context: Context) -> Node:
    """The last of the operators that the target runs together with `node`; the wish takes in all of them."""
    follower = sole_reader(node.outputs[0])
    if follower is None or not _runs_with(node, follower, context):
        return node
    wish.absorbed.append(follower)
    for value in data_inputs(follower, context.ops[follower.op_type])[1:]:
        wish.want_data(value, context.config)
    return _take(wish, follower, context)


def _runs_with(node: Node, follower: Node, context: Context) -> bool:
    if not is_op(follower, *context.ops[node.op_type].takes) or follower.name in context.barred:
        return False
    if context.silent(follower) or follower.inputs[0] is not node.outputs[0]:
        return False
    bounds = [constant(input_at(follower, i)) for i in (1, 2)]
    if follower.op_type == "Clip":
        return tuple(None if bound is None else float(bound.item()) for bound in bounds) in PAIRED_CLIPS
    return follower.op_type != "PRelu" or bounds[0] is not None


def _clamps_at_zero(clamp: Node) -> bool:
    if clamp.op_type == "Relu":
        return True
    low, high = constant(input_at(clamp, 1)), input_at(clamp, 2)
    return (
        low is not None and low.size == 1 and float(low.item()) == 0.0 and (high is None or constant(high) is not None)
    )


def with_known_ranges(
    graph: Graph, sites: Mapping[str, Site], nodes: Collection[str], ops: Mapping[str, Op]
) -> dict[str, Site]:
    """The sites, with the ranges that operators have in the types that the sites ended up with.

    Only where the type was changed after the rules: ranges that a user gave, and shared ones, stay.
    """
    changed = dict(sites)
    for node in graph:
        if node.name not in nodes or (row := ops[node.op_type]).wide_range is None:
            continue
        site = sites.get(node.outputs[0].name or "")
        if site is None or site.group != site.tensor or site.method is not None:
            continue
        if site.range in (row.range, row.wide_range):
            changed[site.tensor] = replace(site, range=row.known_range(site.format.bits))
    return changed


RULES: dict[str, Rule] = {
    "layer": layer,
    "matmul": matmul,
    "norm": norm,
    "act": act,
    "fixed": act,
    "clamp": act,
    "same": same,
}
"""Rule by kind; that of clamps is for those that no node before them takes in."""
