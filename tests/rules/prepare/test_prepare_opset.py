"""Raising and lowering the operator set: what is converted, what stays, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from text_models import applied, assert_same, batchnorm, normal, ops, prepared, text_model, weights

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runner import newest_opset
from quark_onnx.graph import io
from quark_onnx.graph.without_weights import light_proto
from quark_onnx.stages.prepare import Prepared, prepare, rewriting


def versions(result: Prepared) -> tuple[int, int | None]:
    return result.model.opset_imports[""], result.model.ir_version


@pytest.mark.parametrize(
    ("own", "ir_version", "needed", "expected"),
    [(11, 6, 13, (13, 7)), (13, 7, 13, (13, 7)), (17, 8, 13, (17, 8)), (17, 8, 21, (21, 10)), (22, 10, 21, (22, 10))],
)
def test_versions(own: int, ir_version: int, needed: int, expected: tuple[int, int]) -> None:
    proto = text_model("g (float[2] x) => (float[2] y) { y = Relu (x) }", opset=own, ir_version=ir_version)
    result = prepared(proto, opset=needed)
    assert versions(result) == expected
    assert applied(result, "raise-opset") == ([""] if own < needed else [])
    assert_same(proto, result, {"x": normal(2)}, terms=0)


@pytest.mark.parametrize("needed", [13, 21])
@pytest.mark.parametrize(
    ("opset", "nodes", "left"),
    [
        (11, "y = Softmax <axis = 1> (x)", None),
        (11, "y = Hardmax (x)", None),
        (12, "y = Hardmax <axis = 2> (x)", None),
        (11, "y = Hardmax <axis = 0> (x)", None),
        (11, "y = Hardmax <axis = -1> (x)", None),
        (13, "y = Hardmax <axis = 1> (x)", {"Hardmax": 1}),
        (11, "s = Squeeze <axes = [0]> (x) y = Unsqueeze <axes = [0]> (s)", None),
        (11, "m = ReduceSum <axes = [2]> (x) y = Sub (x, m)", None),
        (11, "a, b = Split <axis = 1, split = [1, 2]> (x) y = Concat <axis = 1> (b, a)", None),
        (10, "y = Clip <min = -0.5, max = 0.5> (x)", None),
        (10, "y = Pad <pads = [0, 0, 0, 0, 0, 0]> (x)", None),
        (9, "d = Dropout (x) y = Relu (d)", {"Relu": 1}),
        (8, "y = BatchNormalization <spatial = 1> (x, gamma, beta, mean, var)", None),
        (17, "m = ReduceMean <axes = [2]> (x) y = Sub (x, m)", None),
        (20, "y = Gelu (x)", {"Gelu": 1}),
    ],
)
def test_conversions(opset: int, nodes: str, left: dict[str, int] | None, needed: int) -> None:
    text = f"g (float[1,3,4] x) => (float[1,3,4] y) {{ {nodes} }}"
    proto = text_model(text, opset=opset, ir_version=9 if opset > 17 else 6, **batchnorm(3))
    result = prepared(proto, opset=needed)
    assert versions(result)[0] == max(opset, needed)
    assert left is None or ops(result) == left
    assert ops(prepared(proto, opset=needed, optimize=False))["Constant"] == 0
    assert_same(proto, result, {"x": normal(1, 3, 4)}, terms=4)


def test_weights_survive_with_their_types_and_order() -> None:
    """Large ones do not pass through the converter; half precision and integers do not either."""
    text = """g (float[2,40] x) => (float[2,50] y, int8[3] q, float16[2] h) {
        m = MatMul (x, w) y = Add (m, b) q = Identity (i) h = Identity (f) }"""
    constants = {
        "w": normal(40, 50),
        "b": normal(50),
        "i": np.array([1, 2, 3], np.int8),
        "f": normal(2, dtype=np.float16),
    }
    proto = text_model(text, opset=11, ir_version=6, **constants)
    result = prepared(proto, optimize=False)
    assert list(weights(result)) == list(constants)
    for name, array in constants.items():
        np.testing.assert_array_equal(weights(result)[name], array)
        assert weights(result)[name].dtype == array.dtype
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert_same(proto, result, {"x": normal(2, 40)}, terms=0)


def test_names_survive() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { [first] a = Relu (x) [second] y = Softmax <axis = 1> (a) }"
    result = prepared(text_model(text, opset=11, ir_version=6))
    assert {"first", "second"} <= {node.name for node in result.model.graph}


def test_bodies_are_converted() -> None:
    text = """g (float[1,3] x, bool k) => (float[3] y) {
        y = If (k) <then_branch = t () => (float[3] p) { p = Squeeze <axes = [0]> (x) },
                    else_branch = e () => (float[3] q) { n = Neg (x) q = Squeeze <axes = [0]> (n) }> }"""
    proto = text_model(text, opset=11, ir_version=6)
    result = prepared(proto)
    for k in (True, False):
        assert_same(proto, result, {"x": normal(1, 3), "k": np.array(k)}, terms=0)


def test_other_domains_only() -> None:
    proto = parse_model(
        '<ir_version: 8, opset_import: ["com.acme": 1]> g (float[2] x) => (float[2] y) { y = com.acme.Twice (x) }'
    )
    result = prepared(proto)
    assert dict(result.model.opset_imports) == {"com.acme": 1, "": 13}


def test_other_domains_beside() -> None:
    text = """<ir_version: 6, opset_import: ["": 11, "com.microsoft": 1]>
        g (float[2,3] x) => (float[2,3] y) { g = com.microsoft.Gelu (x) y = Softmax <axis = 1> (g) }"""
    proto = parse_model(text)
    result = prepared(proto)
    assert dict(result.model.opset_imports) == {"": 13, "com.microsoft": 1}
    assert_same(proto, result, {"x": normal(2, 3)}, terms=4)


@pytest.mark.parametrize("nodes", ["n = LayerNormalization (x, g)", "n = SimplifiedLayerNormalization (x, g)"])
def test_operators_of_onnxruntime_alone_in_the_domain_of_onnx(nodes: str) -> None:
    """onnx has no LayerNormalization before 17, and no SimplifiedLayerNormalization at all; onnxruntime has both."""
    proto = text_model(f"g (float[2,4] x) => (float[2,4] y) {{ {nodes} y = Softmax (n) }}", 11, 6, g=normal(4))
    result = prepare(open_model(proto), opset=18, optimize=False)
    assert result.model.opset_imports == {"": 18}
    assert {node.domain for node in result.model.graph} == {""}
    assert_same(proto, result, {"x": normal(2, 4)}, terms=4)
    unknown = proto.SerializeToString().replace(b"LayerNormalization", b"LayerNormalizatiom")
    with pytest.raises(ModelError, match="LayerNormalizatiom"):
        open_model(onnx.ModelProto.FromString(unknown))


def test_refusal_names_the_way_out() -> None:
    """A BatchNormalization with statistics per position has no equal in later operator sets."""
    text = "g (float[1,3,4] x) => (float[1,3,4] y) { y = BatchNormalization <spatial = 0> (x, s, b, m, v) }"
    arrays = {name: abs(normal(3, 4)) + 1 for name in "sbmv"}
    with pytest.raises(ModelError) as caught:
        prepare(io.load(text_model(text, opset=8, ir_version=6, **arrays)), opset=21)
    message = str(caught.value)
    assert message.startswith("the model has opset 8 and cannot be raised to opset 21, which the chosen formats need: ")
    assert message.endswith("; export it again with opset 21 or newer")
    assert "\n" not in message


def test_a_changed_interface_is_refused() -> None:
    """The converter gives the Scan of opset 8 another rank of inputs."""
    text = """g (float[1,2] i, float[1,3,2] x) => (float[1,2] y, float[1,3,2] z) {
        y, z = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] n) => (float[2] t, float[2] o)
            { t = Add (s, n) o = Identity (t) }> (, i, x) }"""
    with pytest.raises(ModelError, match="would change the inputs or outputs"):
        prepare(io.load(text_model(text, opset=8, ir_version=6)), opset=13)


def test_light_protobuf() -> None:
    """However large the weights are, shape inference and conversion see a few kilobytes."""
    text = "g (float[2,1000] x) => (float[2,1000] y) { m = MatMul (x, w) s = Reshape (m, k) y = Mul (s, v) }"
    proto = text_model(text, w=normal(1000, 1000), k=np.array([2, 1000]), v=normal(1000))
    model = io.load(proto)
    before = io.fingerprint(model)
    light = light_proto(model)
    assert light.ByteSize() < 5000
    assert [tensor.name for tensor in light.graph.initializer] == ["k", "v"]
    assert [value.name for value in light.graph.input] == ["x", "w"]
    assert io.fingerprint(model) == before
    assert list(model.graph.initializers) == ["w", "k", "v"]


# Lowering: an onnxruntime whose quantizers end at some operator set, whatever the one that is installed has.


def quantizers_up_to(newest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "newest_opset", lambda at_most: min(at_most, newest))


def one_node(node: str, opset: int) -> onnx.ModelProto:
    return text_model(f"g (float[1,4,2,2] x) => (float[1,4,2,2] y) {{ {node} }}", opset=opset, ir_version=10)


def test_lowering_renames_the_set_where_no_operator_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter is not asked: it could not read the operator of another domain, nor a weight of two gigabytes."""
    quantizers_up_to(21, monkeypatch)
    monkeypatch.setattr(onnx.version_converter, "convert_version", None)
    proto = one_node("r = Relu (x) y = com.microsoft.Gelu (r)", 22)
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    result = prepared(proto)
    assert versions(result) == (21, 10)
    assert applied(result, "lower-opset") == [""]
    assert_same(proto, result, {"x": normal(1, 4, 2, 2)}, terms=0)


def test_lowering_converts_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the body of an If as well."""
    quantizers_up_to(20, monkeypatch)
    node = """s = Shape (x) r = Reshape (x, s) k = ReduceMax <keepdims = 0> (r) z = Sub (k, k) p = Less (k, z)
        y = If (p) <then_branch = t () => (float[1,4,2,2] a) { a = Identity (r) },
                    else_branch = e () => (float[1,4,2,2] b) { b = Reshape (r, s) }>"""
    proto = one_node(node, 21)
    result = prepared(proto, optimize=False)
    assert versions(result) == (20, 10)
    assert applied(result, "lower-opset") == [""]
    assert_same(proto, result, {"x": normal(1, 4, 2, 2)}, terms=0)


@pytest.mark.parametrize("optimize", [True, False])
def test_lowering_is_refused_where_an_operator_has_no_equal(optimize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers_up_to(19, monkeypatch)
    with pytest.raises(ModelError) as caught:
        prepare(io.load(one_node("y = Gelu (x)", 20)), opset=13, optimize=optimize)
    message = str(caught.value)
    assert message.startswith("the model has opset 20, the newest whose QuantizeLinear and DequantizeLinear this onnxr")
    assert "implements is 19, and the model cannot be lowered to that: Gelu changed after it (" in message
    assert message.endswith("; export it with opset 19 or lower, or update onnxruntime")
    assert "\n" not in message


def test_lowering_is_refused_where_nobody_knows_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = onnx.defs.onnx_opset_version()
    quantizers_up_to(known, monkeypatch)
    with pytest.raises(ModelError, match=rf"has opset {known + 1}, .* onnx \S+ knows operators up to opset {known}"):
        prepare(io.load(one_node("y = Relu (x)", known + 1)), opset=13)


def test_what_gets_no_quantizers_is_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers_up_to(19, monkeypatch)
    proto = one_node("y = Gelu (x)", 20)
    assert versions(prepare(io.load(proto), opset=13, quantizers=False)) == (20, 10)
    converted = ModelQuantizer(get_default_config("FP16")).quantize_model(proto).model
    assert converted.opset_import[0].version == 20
    assert {node.op_type for node in converted.graph.node} == {"Cast", "Gelu"}


def test_formats_that_onnxruntime_has_no_quantizers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers_up_to(19, monkeypatch)
    with pytest.raises(ConfigError, match=r"formats need opset 21, and the newest .* is 19: update onnxruntime, or"):
        prepare(io.load(one_node("y = Relu (x)", 13)), opset=21)


def test_the_newest_opset_is_asked_of_onnxruntime() -> None:
    """It has quantizers there, and none one set above, or onnx knows no set above."""
    known = onnx.defs.onnx_opset_version()
    newest = newest_opset(known + 1)
    assert 21 <= newest <= known + 1
    assert newest_opset(13) == 13
    assert newest_opset(newest) == newest
    proto = one_node("y = Conv (x, w)", min(known, newest + 1))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, 4, 1, 1), "w"))
    result = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(proto, None, [{"x": normal(1, 4, 2, 2)}])
    assert result.model.opset_import[0].version == min(known, newest)
    assert result.plan.nodes
