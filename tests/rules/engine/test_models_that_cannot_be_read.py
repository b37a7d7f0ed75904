"""Models whose damage checkers let pass; and whose fault it is where one does not run: its own, or that of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from text_models import normal, text_model

from quark_onnx import ConfigError, DataError, ModelError, ModelQuantizer, get_default_config
from quark_onnx.engine.blamed_model import blaming
from quark_onnx.graph import io

TEXT = "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv (x, w) y = Relu (c) }"
FEEDS = [{"x": normal(2, 3, 8, 8, seed=seed)} for seed in range(3)]


def model(**weights: Any) -> onnx.ModelProto:
    return text_model(TEXT, **({"w": normal(4, 3, 3, 3)} | weights))


def quantize(source: Any, data: Any = FEEDS, **options: Any) -> Any:
    return ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(source, None, data, **options)


def longer(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data += b"1234"


def other_dims(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 3


def too_few(proto: onnx.ModelProto) -> None:
    """Numbers in a list of their own."""
    tensor = proto.graph.initializer[0]
    tensor.float_data.extend([1.0] * 5)
    tensor.ClearField("raw_data")


def in_a_constant(proto: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto()
    tensor.CopyFrom(proto.graph.initializer.pop())
    tensor.dims[1] = 2
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))


def in_a_branch(proto: onnx.ModelProto) -> None:
    """A constant that nobody reads before the branch runs."""
    branches = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (bool t) => (float[4] y) { y = If (t) <'
        "then_branch = a () => (float[4] p) { p = Constant <value = float[4] {1,2,3,4}> () },"
        "else_branch = b () => (float[4] q) { q = Constant <value = float[4] {1,2,3,4}> () }> }"
    )
    proto.CopyFrom(branches)
    tensor = proto.graph.node[0].attribute[0].g.node[0].attribute[0].t
    tensor.raw_data, tensor.dims[0] = bytes(20), 4
    tensor.ClearField("float_data")


@pytest.mark.parametrize("spoil", [longer, other_dims, too_few, in_a_constant, in_a_branch])
def test_data_that_are_not_what_they_are_said_to_be(spoil: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    proto = model()
    spoil(proto)
    onnx.save(proto, tmp_path / "m.onnx")
    for source in (proto, tmp_path / "m.onnx"):
        with pytest.raises(ModelError) as caught:
            quantize(source)
        told = str(caught.value)
        assert ("the data of 'w' are not FLOAT" in told) or ("the data of 'p' are" in told) or spoil is too_few
        assert caught.value.__cause__ is not None


def test_narrow_and_empty_data_are_sound() -> None:
    """4 bits share bytes, an empty constant has none, and texts are no numbers."""
    tensors = {
        "w4": onnx.helper.make_tensor("w4", onnx.TensorProto.INT4, [3], [1, -2, 3]),
        "none": onnx.helper.make_tensor("none", onnx.TensorProto.FLOAT, [0, 4], []),
        "text": onnx.helper.make_tensor("text", onnx.TensorProto.STRING, [2], [b"a", b"b"]),
        "half": onnx.helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0]),
    }
    proto = model()
    proto.graph.initializer.extend(tensors.values())
    assert "Conv_c" in quantize(proto).plan.nodes


GROUPS = "g (float[N,4,8,8] x) => (float[N,4,8,8] y) { y = Conv <group = 0, pads = [1,1,1,1]> (x, w) }"
MANY = GROUPS.replace("0,", f"{2**62},")
INDEX = "g (float[N,2] x) => (float[N,4] y) { t = Gather (e, k) y = MatMul (x, t) }"
SHAPE = "g (float[2,4] x) => (float[a,b,c] y) { r = MatMul (x, w) s = Identity (k) y = Reshape (r, s) }"
BROKEN = {
    "group 0": (text_model(GROUPS, w=normal(4, 4, 3, 3)), {"x": normal(1, 4, 8, 8)}),
    "more groups than channels": (
        text_model(GROUPS.replace("0,", f"{2**62},"), w=normal(4, 4, 3, 3)),
        {"x": normal(1, 4, 8, 8)},
    ),
    "an index beyond its table": (text_model(INDEX, e=normal(3, 4), k=[1, 9]), {"x": normal(1, 2)}),
    "a shape of other size": (text_model(SHAPE, w=normal(4, 4), k=[3, 3, 3]), {"x": normal(2, 4)}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_model_that_runs_on_nothing_is_at_fault(name: str) -> None:
    proto, feed = BROKEN[name]
    with pytest.raises(ModelError):
        quantize(proto, [feed])


def test_a_fault_of_ours_is_not_that_of_the_model() -> None:
    for (proto, feed), kind in (((model(), FEEDS[0]), ZeroDivisionError), (BROKEN["group 0"], ModelError)):
        with pytest.raises(kind), blaming(io.load(proto), feed):
            raise ZeroDivisionError
    with pytest.raises(ConfigError), blaming(io.load(model())):
        raise ConfigError("ours")


def test_what_is_said_of_a_constant_does_not_count() -> None:
    """Its own type and shape do; those of a model input that has a default are the interface."""
    proto = model(v=normal(4, 1))
    proto.graph.value_info.extend([onnx.helper.make_tensor_value_info("w", onnx.TensorProto.INT8, [7])])
    proto.graph.input.extend([onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["a", 1])])
    values = io.load(proto).graph.initializers
    assert (values["w"].dtype.name, values["w"].shape) == ("FLOAT", (4, 3, 3, 3))
    assert str(values["v"].shape[0]) == "a"
    assert "Conv_c" in quantize(proto).plan.nodes


CALLS = """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N,4] x) => (float[N,4] y)
<float[1] w = {2}> { h = MatMul (x, m) y = own.gate (h) }
<opset_import: ["": 17], domain: "own"> gate (z) => (o) { s = Sigmoid (z) o = Mul (s, READ) }"""


def test_a_function_that_reads_what_is_around_it() -> None:
    for source, taken in (("z", True), ("w", False), ("elsewhere", False)):
        proto = parse_model(CALLS.replace("READ", source))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 4), "m"))
        if taken:
            assert quantize(proto, [{"x": normal(2, 4)}]).plan.nodes
            continue
        with pytest.raises(ModelError, match=rf"own.gate reads '{source}'|not a valid ONNX model"):
            quantize(proto, [{"x": normal(2, 4)}])


def test_constants_of_a_function_may_be_given_by_its_caller() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N,4] x) => (float[N,4] y)
    { h = MatMul (x, m) y = own.shift <by = float {2}> (h) }
    <opset_import: ["": 17], domain: "own"> shift <by> (z) => (o) {
        k = Constant <value: tensor = @by> () o = Add (z, k)
    }"""
    proto = parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 4), "m"))
    assert quantize(proto, [{"x": normal(2, 4)}]).plan.nodes


def test_a_constant_without_a_value() -> None:
    proto = model()
    node = onnx.helper.make_node("Constant", [], ["k"], value_float=1.0)
    proto.graph.node.extend([node, onnx.helper.make_node("Add", ["y", "k"], ["z"])])
    proto.graph.output[0].name = "z"
    assert quantize(proto).plan.nodes
    proto.graph.node[-2].attribute[0].name = "value_flaot"
    with pytest.raises(ModelError, match="the Constant 'k' has no value"):
        quantize(proto)


def test_a_type_that_is_none() -> None:
    proto = model()
    proto.graph.input[0].type.tensor_type.elem_type = 0
    with pytest.raises(ModelError):
        quantize(proto)


LOOKUP = "g (int64[N] k, float[N,4] x) => (float[N,4] y) { t = Gather (e, k) z = MatMul (t, w) y = Add (z, x) }"
LENGTHS = "g (float[N,4] x, float[M,4] z) => (float[P,4] y) { a = MatMul (x, w) y = Add (a, z) }"
SOUND = {
    "an index beyond the table": (
        text_model(LOOKUP, e=normal(3, 4), w=normal(4, 4)),
        {"k": np.array([1, 9]), "x": normal(2, 4)},
    ),
    "lengths that do not meet": (text_model(LENGTHS, w=normal(4, 4)), {"x": normal(2, 4), "z": normal(3, 4)}),
}


@pytest.mark.parametrize("name", SOUND)
def test_data_that_a_sound_model_does_not_take_are_at_fault(name: str) -> None:
    proto, feed = SOUND[name]
    with pytest.raises(DataError, match="fails on the input"):
        quantize(proto, [feed])
