"""Applying a plan: the QDQ structure around every kind of site, exact integers, an error that the scales explain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from quantized_models import (
    Feed,
    Made,
    constants,
    executed_kernels,
    feeds,
    graph,
    graph_between,
    placed,
    quantized,
    run,
    settings,
)

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.compare import quantized_values
from quark_onnx.graph import Model, io
from quark_onnx.graph.edit import LONGEST
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

CONV = "(float[1,4,6,6] x) => (float[1,5,4,4] y) <float[5,4,3,3] w, float[5] b>"
ONE_CONV = CONV + " { [n] y = Conv (x, w, b) }"
EPS = 2.0**-23


def node(model: Model, name: str) -> ir.Node:
    (found,) = (node for node in model.graph if node.name == name)
    return found


def source(value: ir.Value | None, *op_types: str) -> ir.Value:
    """The value that goes in at the other end of these operators, the last one first."""
    for op_type in op_types:
        assert value is not None
        producer = value.producer()
        assert producer is not None
        assert producer.op_type == op_type
        value = producer.inputs[0]
    assert value is not None
    return value


def ops(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def array(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def test_a_layer_reads_integers_only_and_has_one_quantizer_behind_it() -> None:
    made = quantized(graph(ONE_CONV))
    conv = node(made.quantized, "n")
    assert ops(made.quantized) == {"QuantizeLinear": 2, "DequantizeLinear": 4, "Conv": 1}
    assert source(conv.inputs[0], "DequantizeLinear", "QuantizeLinear").name == "x"
    assert array(source(conv.inputs[1], "DequantizeLinear")).dtype == np.int8
    assert array(source(conv.inputs[2], "DequantizeLinear")).dtype == np.int32
    (output,) = made.quantized.graph.outputs
    assert source(output, "DequantizeLinear", "QuantizeLinear") is conv.outputs[0]
    assert not {"w", "b"} & made.quantized.graph.initializers.keys()


def test_q_and_dq_of_one_tensor_share_scale_and_zero_point_and_so_does_a_group() -> None:
    text = "(float[1,4,6,6] x) => (float[A,B,C,D] y) { [p] y = MaxPool <kernel_shape=[2,2]> (x) }"
    made = quantized(graph_between(text))
    quantizers = [n for n in made.quantized.graph if n.op_type.endswith("Linear") and n.name.startswith(("x_", "y_"))]
    parameters = [tuple(n.inputs[1:]) for n in quantizers]
    assert len(parameters) == 4
    assert len(set(parameters)) == 1
    assert {"x", "y"} & made.plan.qparams.keys() == {"x"}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weight_type", ["int8", "uint8"])
def test_weight_integers_are_exact(per_channel: bool, weight_type: str) -> None:
    """The nearest code of every weight: by the definition, in float32 as onnxruntime divides."""
    model = graph(ONE_CONV)
    freely = {"weight_pairs": "off"} if weight_type == "int8" else {}
    made = quantized(model, per_channel=per_channel, weight_type=weight_type, activation_type="uint8", **freely)
    w = constants(model)["w"]
    axes = (1, 2, 3) if per_channel else None
    low, high = w.min(axis=axes, keepdims=per_channel), w.max(axis=axes, keepdims=per_channel)
    if weight_type == "int8":
        scale, zero_point = np.maximum(-low, high).astype(np.float64) / 127, 0
    else:
        scale = (high.astype(np.float64) - low) / 255
        zero_point = np.rint(-low / np.float32(scale).astype(np.float64))
    scale = np.float32(scale)
    dq = node(made.quantized, "n").inputs[1].producer()
    assert dq is not None
    assert dq.attributes.get_int("axis", -1) == (0 if per_channel else -1)
    codes, stored_scale, stored_zero = map(array, dq.inputs)
    np.testing.assert_array_equal(stored_scale, np.squeeze(scale))
    np.testing.assert_array_equal(stored_zero, np.squeeze(np.broadcast_to(zero_point, scale.shape)))
    np.testing.assert_array_equal(codes, np.rint(w / scale) + zero_point)
    assert codes.dtype == weight_type


LAYERS = {
    "Conv": ONE_CONV,
    "Conv, grouped": "(float[1,4,6,6] x) => (float[1,6,4,4] y) <float[6,2,3,3] w, float[6] b> "
    "{ [n] y = Conv <group=2> (x, w, b) }",
    "Conv, 1d, strides and pads": "(float[1,4,9] x) => (float[1,5,5] y) <float[5,4,3] w, float[5] b> "
    "{ [n] y = Conv <strides=[2], pads=[1,1]> (x, w, b) }",
    "ConvTranspose": "(float[1,4,6,6] x) => (float[1,5,8,8] y) <float[4,5,3,3] w, float[5] b> "
    "{ [n] y = ConvTranspose (x, w, b) }",
    "ConvTranspose, grouped": "(float[1,4,6,6] x) => (float[1,6,8,8] y) <float[4,3,3,3] w, float[6] b> "
    "{ [n] y = ConvTranspose <group=2> (x, w, b) }",
    "Gemm": "(float[3,4] x) => (float[3,5] y) <float[4,5] w, float[5] b> { [n] y = Gemm (x, w, b) }",
    "Gemm, transposed": "(float[3,4] x) => (float[3,5] y) <float[5,4] w, float[1,5] b> "
    "{ [n] y = Gemm <transB=1> (x, w, b) }",
    "Gemm, one bias": "(float[3,4] x) => (float[3,5] y) <float[4,5] w, float[1] b> { [n] y = Gemm (x, w, b) }",
    "MatMul": "(float[3,4] x) => (float[3,5] y) <float[4,5] w> { [n] y = MatMul (x, w) }",
    "MatMul, weight on the left": "(float[4,5] x) => (float[3,5] y) <float[3,4] w> { [n] y = MatMul (w, x) }",
}
by_layer = pytest.mark.parametrize("text", LAYERS.values(), ids=LAYERS)
KINDS = {
    "S8S8": {},
    "U8S8": {"activation_type": "uint8"},
    "U8U8": {"activation_type": "uint8", "weight_type": "uint8"},
    "S8S8 symmetric": {"ActivationSymmetric": True},
    "S16S8": {"activation_type": "int16"},
    "S8S4": {"weight_type": "int4"},
    "U8U4": {"activation_type": "uint8", "weight_type": "uint4"},
}
by_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@by_layer
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_bias_scale_is_exactly_input_times_weight_scale(text: str, per_channel: bool) -> None:
    model = graph(text)
    made = quantized(model, per_channel=per_channel)
    layer = node(made.quantized, "n")
    if "MatMul" in text:
        assert len(layer.inputs) == 2
        return
    x, w, b = (value.producer() for value in layer.inputs if value is not None)
    assert len(b.inputs) == 2  # no zero point
    codes, scale = map(array, b.inputs)
    product = array(x.inputs[1]) * array(w.inputs[1])
    assert codes.dtype == np.int32
    assert codes.ndim == 1
    np.testing.assert_array_equal(scale, np.resize(product, scale.shape))
    bias = constants(model)["b"].reshape(-1)
    expected = np.rint(np.broadcast_to(bias, codes.shape).astype(np.float64) / np.float64(scale))
    np.testing.assert_array_equal(codes, expected)


def bound(made: Made, text: str, feed: Feed) -> np.ndarray:
    """How far the quantized layer may be from the float one, element by element.

    y = Σ w x + b. Rounding moves x by sx/2, w by sw/2, b by sb/2 and y by sy/2, if a quantizer stands behind it, so y
    moves by at most Σ |w| sx/2 + Σ (|x| + sx/2) sw/2 + sb/2 + sy/2. Both sums are runs of the layer itself on
    non-negative numbers. Values outside the calibrated ranges would be clamped: the feed must be calibration data.
    """
    (x,) = feed.values()
    arrays = constants(made.model)
    plan = made.plan

    def step(tensor: str) -> np.ndarray:
        axis = plan.sites[tensor].format.axis
        shape = [-1 if i == axis else 1 for i in range(arrays[tensor].ndim)] if axis is not None else ()
        return plan.qparams_of(tensor).scale.astype(np.float64).reshape(shape)

    def layer(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        other = {"w": w.astype(np.float32)} | ({"b": np.zeros_like(arrays["b"])} if "b" in arrays else {})
        (y,) = run(graph(text, opset=21, **other), {"x": x.astype(np.float32)})
        return y.astype(np.float64)

    sx, sy = (step_of(plan, tensor) for tensor in "xy")
    sw = np.broadcast_to(step("w"), arrays["w"].shape)
    sb = sx * float(sw.max()) if "b" in arrays else 0.0
    return layer(np.full(x.shape, sx / 2), abs(arrays["w"])) + layer(abs(x) + sx / 2, sw / 2) + sb / 2 + sy / 2


def step_of(plan: Plan, tensor: str) -> float:
    """The scale of an activation; 0 of what stays float."""
    return float(plan.qparams_of(tensor).scale) if tensor in plan.sites else 0.0


@by_layer
@by_kind
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_error_is_what_the_scales_explain(text: str, kind: dict[str, Any], per_channel: bool) -> None:
    """The bound above; 1 % more for the float32 sums. It is not idle: the error uses more than a tenth of it."""
    model = graph(text, opset=21)
    data = feeds(model)
    made = quantized(model, data, per_channel=per_channel, **kind)
    for feed in data:
        error = np.abs(run(model, feed)[0].astype(np.float64) - run(made.quantized, feed)[0])
        limit = bound(made, text, feed)
        assert np.all(error <= 1.01 * limit)
        assert error.max() > 0.1 * limit.min()


@by_layer
@pytest.mark.parametrize("kind", ["S8S8", "U8S8", "S8S8 symmetric", "S16S8", "S8S4"])
def test_integer_kernels_agree_with_the_model_as_written_to_one_step(text: str, kind: str) -> None:
    """Integer and float sums round differently at most once, at the output; where that is float, by the roundings of
    float32 sums: n·eps·Σ|products|. reduce_range: without VNNI the products of two full 8-bit pairs saturate in 16
    bits.

    From onnxruntime 1.32 on, products of 16-bit inputs and 8-bit weights run on MatMulNBits, which rounds its input to
    8 bits by itself.
    """
    model = graph(text, opset=21)
    data = feeds(model)
    made = quantized(model, data, reduce_range="4" not in kind, **KINDS[kind])
    limit = step_of(made.plan, "y") * (1 + 2**16 * EPS)
    rounds_input = "MatMulNBits" in executed_kernels(made.quantized)
    for feed in data:
        as_written, optimized = (run(made.quantized, feed, optimized=flag)[0] for flag in (False, True))
        x, w = feed["x"], constants(model)["w"]
        own = half_a_step_of_8_bits(x, w) if rounds_input else 0.0
        floats = 0.0 if limit else 2 * x.size * EPS * x.size * float(np.abs(x).max() * np.abs(w).max())
        assert np.abs(as_written - optimized).max() <= limit + own + floats


def half_a_step_of_8_bits(x: np.ndarray, w: np.ndarray) -> float:
    """How far Σ x w (K ≤ 32, one block) moves when every row of x is rounded to max |x| / 127: Σ |w| half a step."""
    return float(np.abs(x).max() / 127 / 2 * np.abs(w).sum(0).max() * 1.02)  # quantized, |x| and |w| are a code larger


@pytest.mark.parametrize("activation_type", ["int8", "uint8"])
def test_a_shared_input_gives_the_same_values_stored_signed_or_unsigned(activation_type: str) -> None:
    text = "(float[3,4] x) => (float[3,5] y, float[3,5] z) <float[4,5] w, float[4,5] v> {"
    made = quantized(graph(text + " y = MatMul (x, w) z = MatMul (x, v) }"), activation_type=activation_type)
    alone = [
        quantized(graph(f"(float[3,4] x) => (float[3,5] {o}) <float[4,5] {k}> {{ {o} = MatMul (x, {k}) }}"))
        for o, k in ("yw", "zv")
    ]
    (feed, *_) = feeds(made.model)
    for got, single in zip(run(made.quantized, feed), alone, strict=True):
        np.testing.assert_array_equal(got, run(single.quantized, feed)[0])


def interface(model: Model) -> list[tuple[str | None, object, str]]:
    return [(v.name, v.type, str(v.shape)) for v in (*model.graph.inputs, *model.graph.outputs)]


INTERFACES = {
    "one layer": ONE_CONV,
    "two outputs, one inside": "(float[2,4] x) => (float[2,5] y, float[2,4] h) <float[4,4] v, float[4,5] w> "
    "{ [a] h = MatMul (x, v) [n] y = MatMul (h, w) }",
    "an input that is an output": "(float[4,4] x, float[4,4] z) => (float[4,4] y, float[4,4] z) "
    "{ [n] y = MatMul (x, z) }",
    "an output twice": ONE_CONV.replace("(float[1,5,4,4] y)", "(float[1,5,4,4] y, float[1,5,4,4] y)"),
    "a clamp at the end": CONV + " { [n] h = Conv (x, w, b) [r] y = Relu (h) }",
    "symbolic batch": "(float[N,4] x) => (float[N,5] y) <float[4,5] w> { [n] y = MatMul (x, w) }",
}


@pytest.mark.parametrize("text", INTERFACES.values(), ids=INTERFACES)
def test_inputs_and_outputs_keep_name_order_type_and_shape(text: str) -> None:
    made = quantized(graph(text))
    assert interface(made.quantized) == interface(made.model)
    assert made.plan.sites
    (feed, *_) = feeds(made.model)
    for x, y in zip(run(made.model, feed), run(made.quantized, feed), strict=True):
        assert np.abs(x - y).max() < 0.1 * np.abs(x).max()


def test_a_graph_output_that_a_layer_reads_is_the_dequantized_value() -> None:
    text = "(float[1,4,4,4] x) => (float[1,4,4,4] y, float[1,4,4,4] h) <float[4,4,1,1] v, float[4,4,1,1] w> "
    made = quantized(graph(text + "{ [a] h = Conv (x, v) [n] y = Conv (h, w) }"))
    inner = made.quantized.graph.outputs[1]
    assert node(made.quantized, "n").inputs[0] is inner
    assert source(inner, "DequantizeLinear", "QuantizeLinear") is node(made.quantized, "a").outputs[0]


def test_a_graph_output_that_is_computed_in_float_is_what_was_computed() -> None:
    made = quantized(graph(INTERFACES["two outputs, one inside"]))
    inner = made.quantized.graph.outputs[1]
    assert inner is node(made.quantized, "a").outputs[0]
    assert source(node(made.quantized, "n").inputs[0], "DequantizeLinear", "QuantizeLinear") is inner


def test_an_excluded_reader_of_a_shared_weight_keeps_the_float_weight() -> None:
    text = (
        "(float[3,4] x) => (float[3,5] y, float[3,5] z) <float[4,5] w> { [n] y = MatMul (x, w) [m] z = MatMul (x, w) }"
    )
    made = quantized(graph(text), nodes_to_exclude=["m"])
    weight = node(made.quantized, "m").inputs[1]
    np.testing.assert_array_equal(array(weight), constants(made.model)["w"])
    assert array(source(node(made.quantized, "n").inputs[1], "DequantizeLinear")).dtype == np.int8
    both = quantized(graph(text)).quantized
    assert node(both, "m").inputs[1] is node(both, "n").inputs[1]
    assert "w" not in both.graph.initializers


SHAPED = "(float[N,4,8,8] x) => (float[N,4,8,8] y, TYPE s) <float[4,4,1,1] w, float[4,4,1,1] v> { "
ISLAND = SHAPED + "h = Conv (x, w) e = Erf (h) f = Neg (e) y = Conv (f, v) "


@pytest.mark.parametrize("asks", ["Shape", "Size"])
@pytest.mark.parametrize("of", ["x", "h", "f"])
def test_who_asks_for_the_shape_alone_reads_the_codes(asks: str, of: str) -> None:
    """Of an input, of what an integer kernel makes, and of what is computed in float."""
    text = ISLAND.replace("TYPE", "int64[R]" if asks == "Shape" else "int64")
    made = quantized(graph(f"{text} [n] s = {asks} ({of}) }}"))
    assert node(made.quantized, "n").inputs[0].name == f"{of}_quantized"
    assert executed_kernels(made.quantized)["DequantizeLinear"] == 2  # for Erf, and behind the model
    feed = feeds(made.model)[0]
    for optimized in (False, True):
        np.testing.assert_array_equal(run(made.quantized, feed, optimized=optimized)[1], run(made.model, feed)[1])


@pytest.mark.parametrize(("of", "read"), [("x", "x"), ("h", "h_dequantized"), ("f", "f")])
def test_who_reads_the_values_reads_the_floats_where_there_are_some(of: str, read: str) -> None:
    """An integer kernel makes none."""
    made = quantized(graph(ISLAND.replace("TYPE", "bool[N,4,8,8]") + f"[n] s = IsNaN ({of}) }}"))
    assert node(made.quantized, "n").inputs[0].name == read
    assert source(node(made.quantized, "Conv_y").inputs[0], "DequantizeLinear", "QuantizeLinear").name == "f"


def test_an_excluded_reader_of_an_activation_reads_the_dequantized_one_of_a_layer_alone() -> None:
    text = "(float[1,4,3,3] i) => (float[1,4,3,3] y, float[1,4,3,3] z) <float[4,4,1,1] w, float[4,4,1,1] v> "
    both = "[n] y = Conv (x, w) [m] z = Conv (x, w) }"
    made = quantized(graph(text + "{ x = Conv (i, v) " + both), nodes_to_exclude=["m"])
    assert node(made.quantized, "m").inputs[0] is node(made.quantized, "n").inputs[0]
    made = quantized(graph(text + "{ x = Erf (i) " + both), nodes_to_exclude=["m"])
    assert node(made.quantized, "m").inputs[0].name == "x"


BODY = "(float[2,4] x, bool c) => (float[2,4] y, float[2,4] z) <float[4,4] w, float[4,4] v> {"
IF = (
    "[i] z = If (c) <then_branch = g () => (float[2,4] t) { [n] t = MatMul (h, w) }, "
    "else_branch = g () => (float[2,4] e) { e = Neg (x) }> }"
)


@pytest.mark.parametrize("taken", [True, False])
def test_a_body_that_reads_quantized_tensors_stays_valid(taken: bool) -> None:
    """Its node has the name of one outside and reads the same weight: it is another, and keeps the float weight."""
    made = quantized(graph(BODY + " [n] h = MatMul (x, w) [a] y = MatMul (h, v) " + IF))
    assert made.plan.nodes.keys() == {"n", "a"}
    feed = feeds(made.model)[0] | {"c": np.array(taken)}
    for optimized in (False, True):
        for x, y in zip(run(made.model, feed), run(made.quantized, feed, optimized=optimized), strict=True):
            assert np.abs(x - y).max() < 0.05 * np.abs(x).max()
    branch = node(made.quantized, "i").attributes["then_branch"].as_graph()
    assert branch[0].inputs[1].name == "w"
    assert branch[0].inputs[0] is node(made.quantized, "n").outputs[0]  # the floats that the product returns


def test_a_plan_for_another_model_is_refused() -> None:
    plan = quantized(graph(ONE_CONV)).plan
    other = graph(ONE_CONV, b=np.zeros(5, np.float32))
    with pytest.raises(PlanError, match=f"made for model {plan.model}, this one is {io.fingerprint(other)}"):
        apply(other, plan)


INCOMPLETE = {
    "no ranges": (lambda plan: replace(plan, qparams={}), "no scale for 'w': its ranges were never chosen"),
    "one missing": (
        lambda plan: replace(plan, qparams={g: q for g, q in plan.qparams.items() if g != "y"}),
        "no scale for 'y'",
    ),
    "a tensor too many": (
        lambda plan: replace(plan, sites={**plan.sites, "z": replace(plan.sites["x"], tensor="z")}),
        "a site on 'z', no tensor of the model",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_an_incomplete_plan_is_refused(spoil: Any, message: str) -> None:
    made = quantized(graph(ONE_CONV))
    with pytest.raises(PlanError, match=message):
        apply(made.model, spoil(made.plan))


def test_an_empty_plan_leaves_the_model_as_it_is() -> None:
    for text in (ONE_CONV, "(float[2,4] x) => (float[2,4] x) { }"):
        model = graph(text)
        result = apply(model, Plan(io.fingerprint(model)))
        assert ops(result) == ops(model)
        (feed, *_) = feeds(model)
        np.testing.assert_array_equal(run(result, feed)[0], run(model, feed)[0])


@pytest.mark.parametrize(("kind", "dtype"), [("int4", ir.DataType.INT4), ("uint4", ir.DataType.UINT4)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_four_bit_weights_are_packed(kind: str, dtype: ir.DataType, per_channel: bool) -> None:
    """All 16 codes are used, 15 of a symmetric grid; two share a byte."""
    fields = {"weight_type": kind, "activation_type": "uint8", "per_channel": per_channel}
    low = -1 if kind == "int4" else 0
    weights = np.linspace(low, 1, 5 * 4 * 3 * 3, dtype=np.float32).reshape(3, 3, 4, 5).transpose()
    made = quantized(graph(ONE_CONV, opset=21, w=weights), **fields)
    dq = node(made.quantized, "n").inputs[1].producer()
    assert dq is not None
    codes, _, zero_point = dq.inputs
    assert codes.const_value.dtype == zero_point.const_value.dtype == dtype
    assert codes.const_value.nbytes == 5 * 4 * 3 * 3 // 2
    values = array(codes).astype(np.int32)
    assert (values.min(), values.max()) == ((-7, 7) if kind == "int4" else (0, 15))


def test_applying_twice_gives_the_same_bytes() -> None:
    made = quantized(graph(CONV + " { [n] h = Conv (x, w, b) [r] y = Relu (h) }"), per_channel=True)
    first, second = (io.to_proto(apply(made.model, made.plan)).SerializeToString(deterministic=True) for _ in "ab")
    assert first == second


def test_a_saved_plan_gives_the_same_bytes(tmp_path: Any) -> None:
    made = quantized(graph(CONV + " { [n] h = Conv (x, w, b) [r] y = Relu (h) }"), per_channel=True)
    loaded = Plan.load(made.plan.save(tmp_path / "plan"))
    first, second = (io.to_proto(apply(made.model, plan)) for plan in (made.plan, loaded))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_names_that_are_taken_are_not_taken_again() -> None:
    text = "(float[2,4] x) => (float[2,4] y) <float[4] x_scale, float[4] x_quantized, float[4] y_float>"
    nodes = (
        "{ [x_QuantizeLinear] a = Add (x, x_scale) s = Sigmoid (a) [n] b = Add (s, x_quantized) t = Sigmoid (b) "
        "[m] y = Mul (t, y_float) }"
    )
    made = quantized(graph_between(text + nodes))
    assert {"x_QuantizeLinear", "n", "m"} <= made.plan.nodes.keys()
    names = [n.name for n in made.quantized.graph] + [v.name for n in made.quantized.graph for v in n.outputs]
    assert len(set(names)) == len(names)


LONG = "h" + "_of_a_deep_model" * 12
"""A tensor name as exporters write them, 193 characters."""


def made_names(made: Made) -> list[str]:
    """Names of values and nodes that the float model does not have."""
    before, after = (
        [n.name for n in g] + [v.name for n in g for v in n.outputs] + [*g.initializers]
        for g in (made.model.graph, made.quantized.graph)
    )
    assert len(set(after)) == len(after)
    return sorted({*after} - {*before})


@pytest.mark.parametrize("fields", [{}, {"activation_type": "uint6"}, {"use_dynamic_quant": True}])
def test_what_is_made_of_a_long_name_has_a_short_one(fields: dict[str, Any]) -> None:
    """Two tensors that differ in the middle, which is what is left out."""
    a, b = (f"{LONG}_{letter}{LONG}" for letter in "ab")
    text = f"""(float[2,3,40] x) => (float[2,3,6] y) <float[40,36] w, float[36,36] v, float[36,6] u> {{
        [n] {a} = MatMul (x, w) [m] {b} = MatMul ({a}, v) [o] y = MatMul ({b}, u) }}"""
    plain = text.replace(a, "a").replace(b, "b")
    made, twin = (quantized(graph(t, opset=21), **fields) for t in (text, plain))
    names = made_names(made)
    assert max(len(name) for name in names) <= LONGEST + len("_1")
    assert len(names) == len(made_names(twin))
    assert sum(name.startswith("h_of_a") and "deep_model_quantized" in name for name in names) == 2
    back = {a: "a", b: "b"}
    long, short = quantized_values(made.quantized), quantized_values(twin.quantized)
    assert {back.get(name, name) for name in long} == short.keys()
    (feed, *_) = feeds(made.model)
    np.testing.assert_array_equal(run(made.quantized, feed), run(twin.quantized, feed))


def test_equal_zero_points_are_one() -> None:
    made = quantized(graph(CONV + " { [n] h = Conv (x, w, b) [r] y = Relu (h) }"))
    zeros = [n.inputs[2] for n in made.quantized.graph if n.op_type.endswith("eLinear") and len(n.inputs) > 2]
    kinds = {str(value.name): (array(value).dtype.name, array(value).item()) for value in zeros if value is not None}
    assert kinds == {f"{dtype}_zero_point_{number}": (dtype, number) for dtype, number in kinds.values()}
    assert len(kinds) == len(set(kinds.values())) < len({site.group for site in made.plan.sites.values()})


@pytest.mark.parametrize(
    ("sizes", "per_channel", "raised"),
    [
        ([1e-5] * 5, False, [True]),
        ([1e-5] * 5, True, [True] * 5),
        ([1, 1, 1e-5, 1, 1], True, [False, False, True, False, False]),
        ([1, 1, 1e-5, 1, 1], False, [False]),
    ],
)
def test_a_bias_that_does_not_fit_raises_the_weight_scale(
    sizes: list[float], per_channel: bool, raised: list[bool]
) -> None:
    """|b| = 3e4 is 2e13 steps of sx · sw ≈ 0.02 · 1e-5 / 127; with the raised scale the layer is exact to a step."""
    weight = np.ones((5, 4, 3, 3), np.float32) * np.float32(sizes).reshape(5, 1, 1, 1)
    model = graph(ONE_CONV, w=weight, b=np.full(5, 3e4, np.float32))
    made = quantized(model, per_channel=per_channel, weight_pairs="off")
    natural = np.float32(sizes if per_channel else max(sizes)) / np.float32(127)
    scale = made.plan.qparams_of("w").scale
    assert np.atleast_1d(scale > 1.01 * natural).tolist() == raised
    assert ("scale raised up to" in made.plan.remarks.get("w", "")) is any(raised)
    (feed, *_) = feeds(model)
    for optimized in (False, True):
        got = run(made.quantized, feed, optimized=optimized)[0]
        assert np.abs(got - run(model, feed)[0]).max() <= float(made.plan.qparams_of("y").scale)


def test_a_layer_whose_bias_costs_too_much_stays_float() -> None:
    """129 terms of 16-bit inputs: the raised scale could cost 1/256 of the bias. 128 terms could not."""
    text = "(float[1,K] x) => (float[1,1] y) <float[K,1] w, float[1] b> { [n] y = Gemm (x, w, b) }"
    for terms, kept in ((128, True), (129, False)):
        model = graph(
            text.replace("K", str(terms)), opset=21, w=np.full((terms, 1), 1e-9, np.float32), b=np.float32([1e6])
        )
        plan = quantized(model, activation_type="int16").plan
        assert ("n" in plan.nodes) is kept
        if not kept:
            assert plan.notes["n"] == "'b': the bias does not fit into int32 at these scales"


MASK = "(float[1,4,2,2] x, float[1,4,2,2] k) => (float[A,B,C,D] y, float[A,B,C,D] z, float[A,B,C,D] i) "
MASK += "<float[4,4,1,1] w, float[4,4,1,1] v> {"


@pytest.mark.parametrize("value", [-np.inf, np.nan, -3.4028235e38, -1e4])
def test_what_has_no_range_stays_float_with_what_needs_it(value: float) -> None:
    nodes = " [m] h = Conv (x, w) [a] f = Add (h, k) [b] g = Add (h, x) [c] y = Conv (f, v) [d] z = Conv (g, v) "
    model = graph(MASK + nodes + "[e] i = Conv (k, v) }")
    data = [feed | {"k": np.array([value, 0, 0, 1] * 4, np.float32).reshape(1, 4, 2, 2)} for feed in feeds(model)]
    made = quantized(model, data)
    assert made.plan.nodes.keys() == {"m", "b", "d"}
    assert made.plan.notes["a"].startswith("'k': ")
    assert "k" not in made.plan.sites
    got, want = (run(m, data[0])[0] for m in (made.quantized, model))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))


def test_weights_that_are_not_finite_stay_float() -> None:
    w = np.ones((4, 5), np.float32)
    w[0, 0] = np.inf
    made = quantized(graph("(float[3,4] x) => (float[3,5] y) <float[4,5] w> { [n] y = MatMul (x, w) }", w=w))
    assert made.plan.notes == {"n": "'w': holds infinite or NaN values"}


def test_a_group_keeps_its_scale_when_its_leader_is_not_quantized() -> None:
    """The aligned Concat is dropped because of `k`; `h` was to follow its output `y`, and still has a quantizer."""
    text = "(float[1,4,6,6] x, float[1,4,6,6] k) => (float[1,4,4,4] z) <float[4,4,3,3] w, float[4,8,1,1] v> {"
    nodes = "[c] h = Conv (x, w) [p] g = MaxPool <kernel_shape=[3,3]> (k) [n] y = Concat <axis=1> (h, g) "
    nodes += "[d] z = Conv (y, v) }"
    model = graph(text + nodes, v=np.full((4, 8, 1, 1), np.inf, np.float32))  # nor is the layer that reads it
    data = feeds(model)
    data[0]["k"][0, 0, 0, 0] = -3e38
    made = quantized(model, data, AlignConcat=True)
    assert made.plan.nodes.keys() == {"c"}
    assert made.plan.sites["h"].group == "y"
    assert made.plan.qparams.keys() == {"x", "w", "y"}


def test_a_known_range_needs_no_data_and_constants_are_measured() -> None:
    text = "(float[3,4] x) => (float[3,4] y) <float[4] k, float[4,4] w> {"
    model = graph_between(text + " a = Sigmoid (x) b = Mul (a, k) y = MatMul (b, w) }")
    plan = placed(model)
    assert observed_tensors(plan) == ["outer_x", "x", "b", "y"]
    made = quantized(model)
    assert float(made.plan.qparams_of("a").scale) == np.float32(1 / 255)
    k = constants(model)["k"].astype(np.float64)
    assert float(made.plan.qparams_of("k").scale) == np.float32((max(k.max(), 0) - min(k.min(), 0)) / 255)


def test_ranges_do_not_depend_on_batches_or_their_order() -> None:
    model = graph("(float[N,4] x) => (float[N,5] y) <float[4,5] w> { y = MatMul (x, w) }")
    data = feeds(model, 6)
    whole = [{"x": np.concatenate([feed["x"] for feed in data])}]
    plans = [quantized(model, d, calibrate_method="Percentile", Percentile=90).plan for d in (data, data[::-1], whole)]
    for plan in plans[1:]:
        assert all(q.same(plans[0].qparams[group]) for group, q in plan.qparams.items())


def test_choose_ranges_only_reads() -> None:
    model = graph(ONE_CONV)
    sites = placed(model)
    before = io.fingerprint(model)
    with pytest.raises(KeyError):
        choose_ranges(model, sites, {}, settings())
    assert io.fingerprint(model) == before
