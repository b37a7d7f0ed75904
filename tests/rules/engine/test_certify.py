"""What is certified of models of any tool: types, layouts, and how weights come to a node. Laws stand in tests/laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from newer_onnxruntime import needs_version
from onnx_text import parse_model
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from operator_examples import TABLE
from quantized_models import feeds, graph, graph_between, quantized

from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.engine.saturation_certificate import Certificate, certify, is_quantized, not_exact, summary
from quark_onnx.graph import Model, io

LARGE, SMALL = 127, 64
"""Two of the former do not fit into 16 bits, two of the latter do."""


def model(text: str, **arrays: Any) -> Model:
    proto = parse_model(f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g {text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items())
    return io.load(proto)


def verdict(text: str, **arrays: Any) -> str:
    """Of the node n."""
    return certify(model(text, **arrays))["n"].verdict


def weight(*shape: int, value: int = LARGE, kind: Any = np.int8) -> np.ndarray:
    return np.full(shape, value, kind)


QDQ = """(float[2,4] x) => (float[A,B] y) <float s = {{0.1}}, {kind} z = {{{zero}}}, {weights} wz = {{{shift}}}>
    {{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) {made} e = DequantizeLinear (w, s, wz)
    [n] m = MatMul (d, e) p = QuantizeLinear (m, s, z) y = DequantizeLinear (p, s, z) }}"""


def qdq(made: str = "", kind: str = "uint8", weights: str = "int8") -> str:
    shifts = {"uint8": 128, "int8": 0}
    return QDQ.format(kind=kind, zero=shifts[kind], weights=weights, shift=shifts[weights], made=made)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_activations_of_both_kinds(kind: str) -> None:
    """onnxruntime makes uint8 of int8 while it loads a model with quantizers."""
    assert verdict(qdq(kind=kind), w=weight(4, 3)) == "may saturate"
    assert verdict(qdq(kind=kind), w=weight(4, 3, value=SMALL)) == "exact"


def test_unsigned_weights_are_exact() -> None:
    assert verdict(qdq(weights="uint8"), w=weight(4, 3, value=255, kind=np.uint8)) == "exact"


def test_signs_count_and_so_does_the_neighbour() -> None:
    opposite, apart = weight(4, 3), weight(4, 3, value=0)
    opposite[1::2] = -LARGE
    apart[1:3] = LARGE  # the second of one pair, the first of the next
    assert [verdict(qdq(), w=w) for w in (opposite, apart)] == ["exact", "exact"]


def test_figures() -> None:
    w = weight(5, 3, value=1)  # the fifth stands alone
    w[:2, 1] = -LARGE
    text = "(uint8[2,5] x) => (int32[A,B] y) { [n] y = MatMulInteger (x, w) }"
    found = certify(model(text, w=w))["n"]
    assert found == Certificate("may saturate", "1 of 6 pairs of weights are too large, in 1 of 3 rows", 6, 1, 3, 1)


WAYS = {
    "transposed": ("w = Transpose <perm=[1,0]> (v)", (3, 4)),
    "reshaped": ("w = Reshape (v, shape)", (12,)),
    "a constant": ("w = Constant <value = int8[4,3] {127,127,127,127,127,127,127,127,127,127,127,127}> ()", None),
}


@pytest.mark.parametrize(("made", "shape"), WAYS.values(), ids=WAYS)
def test_weights_that_are_computed_of_constants_are_known(made: str, shape: tuple[int, ...] | None) -> None:
    given = {} if shape is None else {"v": weight(*shape), "shape": np.array([4, 3])}
    assert verdict(qdq(made), **given) == "may saturate"
    if shape is not None:
        assert verdict(qdq(made), **given | {"v": weight(*shape, value=SMALL)}) == "exact"


def test_weights_that_nobody_knows() -> None:
    text = "(uint8[2,4] x, int8[4,3] w) => (int32[A,B] y) { [n] y = MatMulInteger (x, w) }"
    found = certify(model(text))
    assert (found["n"].verdict, found["n"].reason) == (
        "unknown",
        "no side is a constant, so no code is known beforehand",
    )
    assert summary(found) == "0 of 1 integer nodes exact on every processor, 1 cannot be known (n)"
    assert certify(model(text.replace("int8[4,3]", "uint8[4,3]")))["n"].verdict == "exact"  # u8 × u8, whatever it is


def test_a_weight_that_callers_may_replace_is_not_known() -> None:
    text = "(uint8[2,4] x, int8[4,3] w) => (int32[A,B] y) { [n] y = MatMulInteger (x, w) }"
    assert verdict(text, w=weight(4, 3, value=SMALL)) == "unknown"


def test_signed_by_signed_is_exact_in_operators_that_are_not_rewritten() -> None:
    text = "(int8[2,4] x) => (int32[A,B] y) { [n] y = MatMulInteger (x, w) }"
    assert verdict(text, w=weight(4, 3)) == "exact"


def test_a_weight_that_two_nodes_read_is_certified_for_each() -> None:
    text = """(uint8[2,4] x, int8[2,4] z) => (int32[A,B] y, int32[C,D] v)
        { [n] y = MatMulInteger (x, w) [m] v = MatMulInteger (z, w) }"""
    assert [c.verdict for c in certify(model(text, w=weight(4, 3))).values()] == ["may saturate", "exact"]


def test_bodies_of_control_flow_are_looked_at() -> None:
    text = """(bool b, uint8[2,4] x) => (int32[A,B] y) { y = If (b) <
        then_branch = t () => (int32[A,B] p) { [n] p = MatMulInteger (x, w) },
        else_branch = e () => (int32[A,B] q) { [o] q = MatMulInteger (x, v) }> }"""
    found = certify(model(text, w=weight(4, 3), v=weight(4, 3, value=SMALL)))
    assert {name: one.verdict for name, one in found.items()} == {"n": "may saturate", "o": "exact"}


def test_nodes_without_a_name_are_called_by_their_output() -> None:
    text = "(uint8[2,4] x) => (int32[A,B] y, int32[A,B] z) { y = MatMulInteger (x, w) z = MatMulInteger (x, v) }"
    found = certify(model(text, w=weight(4, 3), v=weight(4, 3, value=SMALL)))
    assert not_exact(found) == ["MatMulInteger_y"]
    assert list(found) == ["MatMulInteger_y", "MatMulInteger_z"]


def test_the_model_is_not_touched() -> None:
    given = model("(uint8[2,4] x) => (int32[A,B] y) { y = MatMulInteger (x, w) }", w=weight(4, 3))
    before = io.to_proto(given).SerializeToString(deterministic=True)
    certify(given)
    assert io.to_proto(given).SerializeToString(deterministic=True) == before


def test_a_float_model_has_none() -> None:
    given = graph("(float[2,4] x) => (float[2,5] y) <float[4,5] w> { y = MatMul (x, w) }")
    assert certify(given) == {} and summary({}) == "" and not is_quantized(given)


LSTM = """(float[1,2,4] x) => (float[A,B,C,D] y) <float[1] s = {0.1}, int8[1] z = {0}>
    { [n] y = com.microsoft.DynamicQuantizeLSTM <hidden_size=2> (x, w, r, , , , , , s, z, s, z) }"""
ATTENTION = """(uint8[1,3,4] x) => (float[A,B,C] y) <float s = {0.1}, uint8 z = {0}, int8 wz = {0}, float[12] b>
    { [n] y = com.microsoft.QAttention <num_heads=2> (x, w, b, s, s, , z, wz) }"""


@pytest.mark.parametrize("value", [LARGE, SMALL])
def test_kernels_that_others_place(value: int) -> None:
    expected = "may saturate" if value == LARGE else "exact"
    assert verdict(LSTM, w=weight(1, 4, 8, value=value), r=weight(1, 2, 8, value=SMALL)) == expected
    assert verdict(LSTM, w=weight(1, 4, 8, value=SMALL), r=weight(1, 2, 8, value=value)) == expected
    zeros = {"b": np.zeros(12, np.float32)}
    assert verdict(ATTENTION.replace(", float[12] b", ""), w=weight(4, 12, value=value), **zeros) == expected


def test_integer_convolution_multiplies_weights_by_inputs() -> None:
    """There the kernel is the left side: only uint8 weights on int8 inputs saturate, above 256 in a pair."""
    needs_version("1.24", "ConvInteger with weights of int8")
    text = "({}[1,2,4,4] x) => (int32[A,B,C,D] y) {{ [n] y = ConvInteger (x, w) }}"
    wide, narrow = (weight(3, 2, 2, 2, value=v, kind=np.uint8) for v in (129, 128))
    assert verdict(text.format("int8"), w=wide) == "may saturate"
    assert verdict(text.format("int8"), w=narrow) == "exact"
    assert verdict(text.format("uint8"), w=wide) == "exact"
    assert verdict(text.format("uint8"), w=weight(3, 2, 2, 2)) == "exact"


class Reader(CalibrationDataReader):
    """A few inputs for onnxruntime's own quantizer."""

    def __init__(self, given: Model) -> None:
        self.left = feeds(given)

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


CHAIN = """(float[1,4,6,6] x) => (float[A,B] y) <float[8,4,3,3] w, float[8,1,3,3] d, float[128,5] m>
    { [c] h = Conv <pads=[1,1,1,1]> (x, w) [e] g = Conv <group=8> (h, d) [f] k = Flatten (g) [g] y = MatMul (k, m) }"""


@pytest.mark.parametrize("format", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8])
def test_models_of_onnxruntimes_quantizer(tmp_path: Path, format: QuantFormat, weights: QuantType) -> None:
    given = graph(CHAIN)
    io.save(given, tmp_path / "m.onnx", source=given)
    quantize_static(
        tmp_path / "m.onnx",
        tmp_path / "q.onnx",
        Reader(given),
        quant_format=format,
        activation_type=QuantType.QUInt8,
        weight_type=weights,
    )
    made = io.load(tmp_path / "q.onnx")
    found = [one.verdict for one in certify(made).values()]
    assert is_quantized(made)
    assert found == (["may saturate", "exact", "may saturate"] if weights == QuantType.QInt8 else ["exact"] * 3)


def test_what_is_quantized_at_run_time(tmp_path: Path) -> None:
    given = graph("(float[2,12] x) => (float[2,5] y) <float[12,5] w> { [n] y = MatMul (x, w) }")
    io.save(given, tmp_path / "m.onnx", source=given)
    for kind, expected in ((QuantType.QInt8, "may saturate"), (QuantType.QUInt8, "exact")):
        quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", weight_type=kind)
        (found,) = certify(io.load(tmp_path / "q.onnx")).values()
        assert found.verdict == expected


# the ledger


@pytest.mark.parametrize("op_type", TABLE)
def test_every_integer_node_of_the_ledger_has_a_certificate(op_type: str) -> None:
    made = quantized(graph_between(TABLE[op_type][0]))
    for row in ledger(made.model, made.plan, made.quantized):
        assert (row.certificate is not None) == (row.status == "integer")
        if row.node.startswith("outer_"):
            continue  # may be one column wide, without a pair
        products = row.kernel in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
        if row.certificate is not None:
            assert products or row.certificate.verdict == "exact"
            assert (row.certificate.pairs > 0) == products


U8U8 = {"activation_type": "uint8", "weight_type": "uint8"}


@pytest.mark.parametrize("fields", [{}, {"reduce_range": True}, {"target": "cpu-avx2"}, U8U8])
def test_ways_to_be_exact(fields: dict[str, Any]) -> None:
    given = graph(CHAIN, w=np.ones((8, 4, 3, 3), np.float32))
    made, safe = quantized(given, weight_pairs="off"), quantized(given, **fields)
    rows = {row.node: row.certificate for row in ledger(made.model, made.plan, made.quantized) if row.certificate}
    assert not_exact(rows) == ["c", "g"]
    assert rows["c"].unsafe_pairs == rows["c"].pairs == 8 * 18
    rows = {row.node: row.certificate for row in ledger(safe.model, safe.plan, safe.quantized) if row.certificate}
    assert not_exact(rows) == [] and len(rows) == 3 + ("f" in rows)


def test_weights_of_few_bits_beside_floats_are_exact() -> None:
    text = "(float[2,32] x) => (float[2,5] y) <float[32,5] w> { [n] y = MatMul (x, w) }"
    made = quantized(graph(text, opset=21), WeightsOnly=True, weight_type="int4", BlockSize=16)
    (row,) = ledger(made.model, made.plan, made.quantized)
    assert row.kernel == "MatMulNBits"
    assert row.certificate == Certificate("exact", "its sums have room for all codes")


def test_weights_in_a_file_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime writes them for models above 2 GB."""
    given = model("(uint8[2,64] x) => (int32[A,B] y) { [n] y = MatMulInteger (x, w) }", w=weight(64, 64))
    expected = certify(given)
    monkeypatch.setattr(io, "EXTERNAL_ABOVE", 1000)
    assert io.is_large(given)
    assert certify(given) == expected
