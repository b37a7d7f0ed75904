"""Models as they are found in the wild: whatever surrounds the layers, the layers are quantized and the result runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from newer_onnxruntime import needs_opset
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import session
from onnx_text import parse_model

from quark_onnx import ModelError, ModelQuantizer, QuantizationConfig, Result, get_default_config

PRESETS = {name: get_default_config(name) for name in ("S8S8_AAWS", "A8W8")}
PRESET = PRESETS["S8S8_AAWS"]
SHAPES = {"w": (4, 3, 3, 3), "v": (4, 4, 1, 1), "b": (4,), "k": (4, 5)}
"""Weights that a model gets when it names them: of two convolutions, their bias, a matrix."""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def parse(text: str, opset: int = 17, ir_version: int = 8, **arrays: np.ndarray) -> onnx.ModelProto:
    """The model with weights for the names of `SHAPES` that it reads but does not compute, and with `arrays`."""
    imports = f'"": {opset}, "local": 1, "com.microsoft": 1'
    model = parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]> {text}")
    read = {name for node in model.graph.node for name in _reads(node)}
    given = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    known = {name: normal(*shape) for name, shape in SHAPES.items() if name in read - given}
    for name, array in (known | arrays).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def _reads(node: onnx.NodeProto) -> set[str]:
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(*(_reads(inner) for body in bodies for inner in body.node))


def images(count: int = 4, batch: int = 2) -> list[Mapping[str, Any]]:
    return [{"x": normal(batch, 3, 8, 8, seed=seed)} for seed in range(count)]


def quantize(model: onnx.ModelProto, feeds: list[Any], config: QuantizationConfig = PRESET) -> Result:
    """Quantize, and check what holds for every result: valid, loadable, named, near the float model."""
    result = ModelQuantizer(config).quantize_model(model, None, feeds)
    onnx.checker.check_model(result.model)
    names = [node.name for node in result.model.graph.node]
    assert all(names)
    assert len(names) == len(set(names))
    assert all(result.report.float_nodes.values())
    quantized = {node for part in result.plan.parts() for node in part.nodes}
    assert all(row.node in quantized or result.plan.reasons[row.node] for row in result.report.ledger)
    before, after = session(model), session(result.model)
    assert before is not None
    assert after is not None
    for want, got in zip(before.run(None, dict(feeds[0])), after.run(None, dict(feeds[0])), strict=True):
        check_close(want, got)
    return result


def check_close(want: Any, got: Any) -> None:
    """Same shape and type; floats within 20 dB, the noise of 8 bits behind a few layers, all else equal."""
    if isinstance(want, list):
        for x, y in zip(want, got, strict=True):
            check_close(x, y)
    elif want.dtype.kind == "f":
        assert (want.shape, want.dtype) == (got.shape, got.dtype)
        noise = np.square(want.astype(np.float64) - got).sum()
        assert noise <= 0.01 * np.square(want.astype(np.float64)).sum()
    else:
        np.testing.assert_array_equal(got, want)


def quantized_types(model: onnx.ModelProto, result: Result) -> set[str]:
    """Operator types of the quantized nodes; names survive preparing."""
    types = {row.node: row.op_type for row in result.report.ledger}
    return {types[name] for name in result.plan.nodes}


CONV = "g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }"


# What the data may be


def test_ragged_batches() -> None:
    feeds = [{"x": normal(batch, 3, 8, 8)} for batch in (1, 5, 2, 3)]
    assert quantize(parse(CONV), feeds).report.samples == 4


def test_dynamic_sizes() -> None:
    model = parse(CONV.replace("8, 8", "H, W"))
    feeds = [{"x": normal(1, 3, height, width)} for height, width in ((8, 8), (5, 9), (16, 3))]
    assert quantize(model, feeds).plan.nodes


def test_unknown_sizes() -> None:
    model = parse(CONV)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    assert quantize(model, images()).plan.nodes


def test_fixed_batch_fed_with_many() -> None:
    model = parse(CONV.replace("[N,", "[1,"))
    result = ModelQuantizer(PRESET).quantize_model(model, None, [{"x": normal(16, 3, 8, 8)}])
    assert result.report.samples == 16


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "S8S8_AAWS_ADAROUND"])
def test_scalar_input(preset: str) -> None:
    text = (
        "g (float[N, 3, 8, 8] x, float s) => (float[N, 4, 6, 6] y) { c = Conv (x, w)  m = Mul (c, s)  y = Conv (m, v) }"
    )
    model = parse(text)
    feeds = [feed | {"s": np.array(1.5, np.float32)} for feed in images()]
    assert quantized_types(model, quantize(model, feeds, get_default_config(preset))) == {"Conv", "Mul"}


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "S8S8_AAWS_ADAROUND"])
def test_string_input_beside_a_string(preset: str) -> None:
    """Of the input the model asks whether it is one of its own, and the plan belongs to the model with just these."""
    text = """g (float[N, 3, 8, 8] x, string[1] s) => (float[N, 4, 6, 6] y)
        { c = Conv (x, w)  e = Equal (s, name)  f = Cast <to = 1> (e)  y = Mul (c, f) }"""
    feeds = [feed | {"s": np.array(["left"], dtype=object)} for feed in images(12)]
    plans = []
    for name in ("left", "right"):
        model = parse(text, opset=19, name=np.array([name], dtype=object))
        result = quantize(model, feeds, get_default_config(preset))
        assert "Conv" in quantized_types(model, result)
        plans.append(result.plan.model)
    assert plans[0] != plans[1]


def test_string_input() -> None:
    """Strings only pass by."""
    model = parse(
        "g (float[N, 3, 8, 8] x, string[1] s) => (float[N, 4, 6, 6] y, string[1] z)"
        "{ c = Conv (x, w)  f = Cast <to = 1> (s)  y = Mul (c, f)  z = Identity (s) }"
    )
    feeds = [feed | {"s": np.array(["1.5"], dtype=object)} for feed in images()]
    assert "Conv" in quantized_types(model, quantize(model, feeds))


def test_integer_input() -> None:
    """An embedding in front of a layer."""
    model = parse(
        "g (int64[N, 2] i) => (float[N, 2, 5] y) { e = Gather (table, i)  y = MatMul (e, k) }", table=normal(9, 4)
    )
    feeds = [{"i": np.array([[seed, 2 * seed]])} for seed in range(4)]
    assert "MatMul" in quantized_types(model, quantize(model, feeds))


def test_input_that_nobody_reads() -> None:
    model = parse(CONV.replace("x) =>", "x, float[3] unused) =>"))
    feeds = [feed | {"unused": normal(3)} for feed in images()]
    assert quantize(model, feeds).plan.nodes


def test_all_zeros() -> None:
    """Nothing can be said of the range, and every zero is exact."""
    assert quantize(parse(CONV), [{"x": np.zeros((2, 3, 8, 8), np.float32)}]).plan.nodes


# What comes out


def test_sequence_output() -> None:
    text = "{ c = Conv (x, w)  s = SplitToSequence <axis = 1> (c) }"
    model = parse(f"g (float[N, 3, 8, 8] x) => (seq(float[N, 1, 6, 6]) s) {text}")
    assert quantized_types(model, quantize(model, images())) == {"Conv"}


def test_output_that_is_read_again() -> None:
    model = parse(
        "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] c, float[N, 4, 6, 6] y) { c = Conv (x, w)  y = Conv (c, v) }"
    )
    assert len(quantize(model, images()).plan.nodes) == 2


def test_outputs_that_are_inputs_and_constants() -> None:
    model = parse(
        "g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] same, float[2] fixed, float[N, 4, 6, 6] y)"
        "{ same = Identity (x)  fixed = Constant <value_floats = [1.0, 2.0]> ()  y = Conv (x, w) }"
    )
    assert quantized_types(model, quantize(model, images())) == {"Conv"}


def test_no_nodes_are_left() -> None:
    """All of the model is a constant."""
    model = parse("g () => (float[2] y) { a = Constant <value_floats = [1.0, 2.0]> ()  y = Add (a, a) }")
    result = ModelQuantizer(PRESET).quantize_model(model)
    assert not result.plan.nodes
    np.testing.assert_array_equal(session(result.model).run(None, {})[0], [2, 4])


@pytest.mark.parametrize(
    ("opset", "end"),
    [(9, "y = Softmax <axis = 1> (l)"), (17, "y = Softmax (l)"), (17, "p = Sigmoid (l)  y = Transpose (p)")],
)
def test_probabilities_that_leave_the_model(opset: int, end: str) -> None:
    """They stay float, moved or not: most would be 0 in steps of 1/256. Raising opset 9 adds a Reshape at the end."""
    model = parse(f"g (float[N, 4] x) => (float[A, B] y) {{ l = Gemm (x, k, b)  {end} }}", opset=opset, b=normal(5))
    del model.opset_import[1:]
    result = quantize(model, [{"x": normal(8, 4, seed=seed)} for seed in range(4)])
    assert "Gemm" in quantized_types(model, result)
    last = next(node for node in result.model.graph.node if "y" in node.output)
    assert last.op_type in ("Softmax", "Reshape", "Transpose")


# What is around the layers


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_listed_as_inputs(ir_version: int) -> None:
    model = parse(CONV, ir_version=ir_version, opset=9)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    result = quantize(model, images())
    assert quantized_types(model, result) == {"Conv"}
    assert [value.name for value in result.model.graph.input] == ["x"]


TWO = "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { c = Conv (x, w)  r = Relu (c)  y = Conv (r, v) }"


def test_nodes_without_names() -> None:
    model = parse(TWO)
    assert not any(node.name for node in model.graph.node)
    assert len(quantize(model, images()).plan.nodes) == 3


def test_nodes_with_equal_names() -> None:
    """onnxruntime refuses such a model."""
    model = parse(TWO)
    for node in model.graph.node:
        node.name = "twice"
    with pytest.raises(ModelError, match=r"same node name \(twice\); give each node a name of its own"):
        ModelQuantizer(PRESET).quantize_model(model, None, images())


def test_names_that_quantizers_would_get() -> None:
    """And names with signs that no identifier has."""
    model = parse(CONV)
    taken = {"x": "a/b:0", "w": "a/b:0_scale", "b": "a/b:0_zero_point", "y": "a/b:0_quantized"}
    for holder in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        holder.name = taken[holder.name]
    node = model.graph.node[0]
    node.name, node.input[:], node.output[:] = "a/b:0_QuantizeLinear", map(taken.get, node.input), ["a/b:0_quantized"]
    feeds = [{"a/b:0": feed["x"]} for feed in images()]
    result = quantize(model, feeds)
    assert list(result.plan.nodes) == ["a/b:0_QuantizeLinear"]


def test_local_function() -> None:
    model = parse("g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { y = local.block (x, w, b) }")
    nodes = [helper.make_node("Conv", ["a", "f", "c"], ["d"]), helper.make_node("Relu", ["d"], ["e"])]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "block", ["a", "f", "c"], ["e"], nodes, opset))
    assert quantized_types(model, quantize(model, images())) == {"Conv", "Relu"}


def test_foreign_operator_that_onnxruntime_knows() -> None:
    model = parse(
        "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y)"
        "{ c = Conv (x, w)  f = com.microsoft.Trilu (c)  y = Conv (f, v) }"
    )
    result = quantize(model, images())
    assert quantized_types(model, result) == {"Conv"}
    assert any("com.microsoft.Trilu" in reason for reason in result.report.float_nodes.values())


def test_dead_nodes_and_weights() -> None:
    model = parse(CONV.replace("{", "{ dead = Relu (x)  deader = Conv (dead, w)"), unread=normal(5))
    assert quantize(model, images()).plan.nodes


def test_optional_input_left_out() -> None:
    model = parse("g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { y = Conv (x, w) }")
    model.graph.node[0].input.append("")
    assert quantize(model, images()).plan.nodes


def test_metadata_stays() -> None:
    model = parse(CONV)
    model.producer_name, model.doc_string = "somebody", "about"
    model.metadata_props.add(key="license", value="MIT")
    after = quantize(model, images()).model
    assert (after.producer_name, after.doc_string) == ("somebody", "about")
    assert {entry.key: entry.value for entry in after.metadata_props}["license"] == "MIT"


# Control flow


IF = """g (float[N, 3, 8, 8] x, bool flag) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z) {
    c = Conv (x, w)
    y = If (flag) <then_branch = yes () => (float[N, 4, 6, 6] a) { a = Conv (c, v) },
                else_branch = no () => (float[N, 4, 6, 6] n) { n = Neg (c) }>
    z = Conv (c, v)
}"""

LOOP = """g (float[N, 3, 8, 8] x, int64 n) => (float[N, 4, 6, 6] y) {
    c = Conv (x, w)
    go = Constant <value = bool {1}> ()
    y = Loop (n, go, c) <body = step (int64 i, bool on, float[N, 4, 6, 6] s) => (bool more, float[N, 4, 6, 6] r)
        { more = Identity (on)  d = Conv (c, v)  r = Add (s, d) }>
}"""


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("branch", [False, True])
def test_if_captures_what_is_quantized(branch: bool, preset: str) -> None:
    """The bodies read the dequantized tensor; the weight that they share is quantized where the branch is taken."""
    model = parse(IF)
    result = quantize(model, [feed | {"flag": np.array(branch)} for feed in images()], PRESETS[preset])
    assert len(result.plan.nodes) == 2
    (inside,) = result.plan.bodies.values()
    assert bool(inside.nodes) is branch


@pytest.mark.parametrize("preset", PRESETS)
def test_loop_captures_what_is_quantized(preset: str) -> None:
    model = parse(LOOP)
    result = quantize(model, [feed | {"n": np.array(3)} for feed in images()], PRESETS[preset])
    assert quantized_types(model, result) == {"Conv"}
    assert any(site.role == "weight" for site in result.plan.bodies["Loop_y/body"].sites.values())


# Weights


def test_shared_weights() -> None:
    """One weight and one bias, read by two layers with inputs of different scale."""
    model = parse(
        "g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) { c = Conv (x, v, b)  m = Mul (c, s)  y = Conv (m, v, b) }",
        s=np.float32(50),
    )
    feeds = [{"x": normal(2, 4, 8, 8, seed=seed)} for seed in range(4)]
    for config in PRESETS.values():
        assert "Conv" in quantized_types(model, quantize(model, feeds, replace(config, per_channel=True)))


@pytest.mark.parametrize(
    ("weight", "stored"),
    [
        ("k = Transpose <perm = [1, 0]> (raw)", normal(5, 4)),
        ("k = Identity (raw)", normal(4, 5)),
        ("i = Identity (raw)  k = Identity (i)", normal(4, 5)),
        ("k = Cast <to = 1> (raw)", normal(4, 5).astype(np.float16)),
        ("shape = Constant <value_ints = [4, 5]> ()  k = Reshape (raw, shape)", normal(20)),
    ],
    ids=["Transpose", "Identity", "two Identity", "Cast", "Reshape"],
)
@pytest.mark.parametrize("layer", ["MatMul", "Gemm"])
def test_weight_behind_something(layer: str, weight: str, stored: np.ndarray) -> None:
    model = parse(f"g (float[N, 4] x) => (float[N, 5] y) {{ {weight}  y = {layer} (x, k) }}", raw=stored)
    feeds = [{"x": normal(8, 4, seed=seed)} for seed in range(4)]
    assert len(quantize(model, feeds).plan.nodes) == 1


def test_weight_in_a_constant_node() -> None:
    model = parse("g (float[N, 4] x) => (float[N, 5] y) { y = MatMul (x, k) }")
    value = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=value))
    feeds = [{"x": normal(8, 4, seed=seed)} for seed in range(4)]
    assert len(quantize(model, feeds).plan.nodes) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite(value: float) -> None:
    """Its layer stays float and says why; the other one is quantized."""
    bad = normal(4, 4, 1, 1)
    bad[2, 1] = value
    model = parse(
        "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z)"
        "{ [good] y = Conv (x, w)  r = Relu (y)  [bad] z = Conv (r, broken) }",
        broken=bad,
    )
    result = ModelQuantizer(PRESET).quantize_model(model, None, images())
    assert "good" in result.plan.nodes
    assert "infinite or NaN" in result.plan.notes["bad"]
    assert session(result.model) is not None


def test_empty_tensor() -> None:
    """A Concat with nothing, as exporters write it for an empty cache."""
    model = parse(
        "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { c = Conv (x, w)  y = Concat <axis = 1> (c, nothing) }",
        nothing=np.zeros((2, 0, 6, 6), np.float32),
    )
    assert "Conv" in quantized_types(model, quantize(model, images()))


# Types


@pytest.mark.parametrize(("kind", "taken"), [(TensorProto.FLOAT16, True), (TensorProto.DOUBLE, False)])
def test_float16_is_quantized_and_float64_stays_as_it_is(kind: int, *, taken: bool) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    model = parse("g (float[N, 4] x) => (float[N, 5] y) { m = MatMul (x, k)  y = Relu (m) }")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(normal(4, 5).astype(dtype), "k"))
    result = quantize(model, [{"x": normal(8, 4).astype(dtype)}])
    assert bool(result.plan.nodes) is taken
    refused = any(f"{dtype}; only float32 is quantized" in reason for reason in result.report.float_nodes.values())
    assert refused is not taken
    assert all(value.type.tensor_type.elem_type == kind for value in result.model.graph.output)


def test_float_island_in_a_half_model() -> None:
    """Cast, layer, Cast: the layer is float32 and quantized."""
    model = parse(
        "g (float16[N, 4] x) => (float16[N, 5] y) { f = Cast <to = 1> (x)  m = MatMul (f, k)  y = Cast <to = 10> (m) }"
    )
    result = quantize(model, [{"x": normal(8, 4).astype(np.float16)}])
    assert quantized_types(model, result) == {"MatMul"}


# Operator sets


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
def test_opset(opset: int, preset: str) -> None:
    """The operators whose form changed in between: BatchNormalization, Dropout, Softmax, Add, Gemm, Reshape."""
    needs_opset(opset)
    text = """g (float[N, 3, 8, 8] x) => (float[N, 5] y) {
        c = Conv (x, w, b)
        n = BatchNormalization (c, gamma, beta, mean, var)
        r = Relu (n)
        d = Dropout (r)
        p = GlobalAveragePool (d)
        f = Flatten (p)
        q = Gemm (f, k, last)
        y = Softmax <axis = 1> (q)
    }"""
    parameters = {"gamma": normal(4), "beta": normal(4, seed=1), "mean": normal(4, seed=2), "var": normal(4) ** 2 + 0.1}
    model = parse(text, opset=opset, **parameters, last=normal(5))
    del model.opset_import[1:]
    result = quantize(model, images(), PRESETS[preset])
    assert {"Conv", "Relu", "Gemm"} <= quantized_types(model, result)
    assert max(entry.version for entry in result.model.opset_import if not entry.domain) == max(opset, 13)


def test_opset_that_cannot_be_raised() -> None:
    """Scan of opset 8 has a batch axis that later ones do not have."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["u"])],
        "body",
        [helper.make_tensor_value_info(name, 1, [2]) for name in "se"],
        [helper.make_tensor_value_info(name, 1, [2]) for name in "tu"],
    )
    node = helper.make_node("Scan", ["", "s0", "x"], ["s1", "y"], body=body, num_scan_inputs=1, directions=[0])
    inputs = [helper.make_tensor_value_info("s0", 1, [1, 2]), helper.make_tensor_value_info("x", 1, [1, 3, 2])]
    outputs = [helper.make_tensor_value_info("s1", 1, [1, 2]), helper.make_tensor_value_info("y", 1, [1, 3, 2])]
    graph = helper.make_graph([node], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)
    with pytest.raises(ModelError, match=r"opset 8 and cannot be raised to opset 13.*export it again with opset 13"):
        ModelQuantizer(PRESET).quantize_model(model, None, [{"s0": normal(1, 2), "x": normal(1, 3, 2)}])
