"""The quantizer: grid laws by hypothesis, and the same bits as onnxruntime's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from quark_onnx.core.formats import TYPES, Format
from quark_onnx.core.plan import QParams
from quark_onnx.numerics.quant import SMALLEST_SCALE, along, dequantize, qparams, quantize

EPS = 2.0**-23
MAX = float(np.finfo(np.float32).max)
BIG = 2.0**126  # a range of ±BIG has a width that float32 holds

formats = st.builds(Format, st.integers(2, 16), st.booleans(), st.booleans())
finite = st.floats(-BIG, BIG, width=32)
ranges = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))
law = settings(deadline=None, max_examples=200)


def spread(lo: float, hi: float, count: int = 97) -> np.ndarray:
    """Float32 values over the range that qparams makes of (lo, hi), its ends and 0 included."""
    low, high = min(lo, 0.0), max(hi, 0.0)
    values = np.concatenate([np.linspace(low, high, count), [low, high, 0.0]])
    return np.clip(values, low, high).astype(np.float32)


@law
@given(ranges, formats)
def test_scale_is_a_normal_number_and_the_zero_point_a_code(ends: tuple[float, float], format: Format) -> None:
    q = qparams(*ends, format)
    assert q.scale.dtype == np.float32
    assert SMALLEST_SCALE <= q.scale <= MAX
    assert format.lo <= q.zero_point <= format.hi


@law
@given(ranges, formats)
def test_zero_is_exact(ends: tuple[float, float], format: Format) -> None:
    q = qparams(*ends, format)
    codes = quantize(np.zeros(1, np.float32), q, format)
    assert codes == q.zero_point
    assert dequantize(codes, q, format) == 0


@law
@given(ranges, formats)
def test_rounding_error_is_half_a_step(ends: tuple[float, float], format: Format) -> None:
    """|v − v̂| ≤ s/2, but for float32: the scale, v/s and (q − z)·s are each rounded, v is at most `levels` steps."""
    q = qparams(*ends, format)
    values = spread(*ends)
    error = np.abs(values.astype(np.float64) - dequantize(quantize(values, q, format), q, format))
    levels = 2**format.bits
    assert np.all(error <= float(q.scale) * (0.5 + 3 * levels * EPS))


@law
@given(ranges, formats)
def test_the_range_is_used_to_its_ends(ends: tuple[float, float], format: Format) -> None:
    """Both ends lie within half a step of the grid's, or the scale is at its floor: no code is wasted."""
    q = qparams(*ends, format)
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    steps = (high - low) / float(q.scale)
    if low == high == 0:
        assert q.scale == 1
    elif q.scale > SMALLEST_SCALE * (1 + EPS):
        reach = max(-low, high) / float(q.scale) if format.symmetric else steps
        levels = format.hi - (format.middle if format.symmetric else format.lo)
        assert reach == pytest.approx(levels, rel=2 * EPS)


@law
@given(st.lists(finite, min_size=1, max_size=50), ranges, formats)
def test_quantizing_again_changes_nothing(values: list[float], ends: tuple[float, float], format: Format) -> None:
    q = qparams(*ends, format)
    array = np.array(values, np.float32)
    with np.errstate(over="ignore"):  # v/s may be beyond float32 where v is far outside the range: it is clamped
        codes = quantize(array, q, format)
    again = quantize(dequantize(codes, q, format), q, format)
    np.testing.assert_array_equal(again, codes)
    assert codes.min() >= format.lo
    assert codes.max() <= format.hi


@law
@given(ranges, formats)
def test_symmetric_formats_have_their_zero_point_in_the_middle(ends: tuple[float, float], format: Format) -> None:
    q = qparams(*ends, replace(format, symmetric=True))
    assert q.zero_point == (0 if format.signed else 2 ** (format.bits - 1))
    mirrored = qparams(-ends[1], -ends[0], replace(format, symmetric=True))
    assert q.same(mirrored)


@law
@given(ranges, st.integers(2, 16), st.booleans())
def test_storage_as_signed_or_unsigned_is_the_same_grid(ends: tuple[float, float], bits: int, symmetric: bool) -> None:
    """Equal within the range. A symmetric unsigned grid has one code more at its low end, which no range reaches."""
    signed, unsigned = (Format(bits, kind, symmetric) for kind in (True, False))
    q, u = qparams(*ends, signed), qparams(*ends, unsigned)
    values = spread(*ends)
    assert q.scale == u.scale
    assert u.zero_point - q.zero_point == 2 ** (bits - 1)
    restored = dequantize(quantize(values, q, signed), q, signed)
    np.testing.assert_array_equal(restored, dequantize(quantize(values, u, unsigned), u, unsigned))


@law
@given(st.lists(ranges, min_size=1, max_size=4), formats, st.integers(0, 2))
def test_per_channel_is_per_tensor_slice_by_slice(rows: list[tuple[float, float]], format: Format, axis: int) -> None:
    values = np.stack([spread(*ends, count=9) for ends in rows]).reshape(len(rows), 3, 4)
    values = np.moveaxis(values, 0, axis)
    channelwise = replace(format, axis=axis)
    q = qparams(*np.array(rows, np.float32).T, channelwise)
    codes = quantize(values, q, channelwise)
    restored = dequantize(codes, q, channelwise)
    for i, ends in enumerate(rows):
        own = qparams(*ends, format)
        assert own.same(QParams(q.scale[i], q.zero_point[i]))
        slices = (values.take(i, axis), codes.take(i, axis), restored.take(i, axis))
        np.testing.assert_array_equal(slices[1], quantize(slices[0], own, format))
        np.testing.assert_array_equal(slices[2], dequantize(slices[1], own, format))


def test_all_zero_channels_among_others_get_scale_one() -> None:
    q = qparams(np.zeros(3), np.array([0.0, 2.0, 0.0]), Format(8, True, True, axis=0))
    np.testing.assert_array_equal(q.scale, np.array([1, 2 / 127, 1], np.float32))


def test_along_shapes_parameters_for_broadcasting() -> None:
    assert along(np.ones(3), 4, 1).shape == (1, 3, 1, 1)
    assert along(np.ones(()), 4, 1).shape == ()
    assert along(np.ones(3), 1, None).shape == (3,)


EIGHT_AND_SIXTEEN = [name for name, (bits, _) in TYPES.items() if bits > 4]


def onnx_quantizer(dtype: str, axis: int | None) -> ort.InferenceSession:
    """x, scale, zero_point → codes and dequantized values, by onnxruntime as written."""
    kind = TensorProto.DataType.Value(dtype.upper())
    parameter: list[None] = [] if axis is None else [None]
    inputs = [("x", TensorProto.FLOAT, [None] * 3), ("s", TensorProto.FLOAT, parameter), ("z", kind, parameter)]
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    outputs = [("q", kind, [None] * 3), ("y", TensorProto.FLOAT, [None] * 3)]
    graph = helper.make_graph(
        nodes, "g", *([helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs))
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def samples(q: QParams, format: Format, rng: np.random.Generator) -> np.ndarray:
    """(3, 5, 67) values: on the grid, half-way between (ties), in between, and far outside."""
    steps = rng.integers(format.lo - 20, format.hi + 20, (3, 5, 67))
    offsets = rng.choice([0.0, 0.5, -0.5, 0.25, rng.standard_normal() * 1000], steps.shape)
    scale, zero_point = (along(p, 3, format.axis) for p in (q.scale, q.zero_point))
    return ((steps - zero_point + offsets) * scale).astype(np.float32)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", EIGHT_AND_SIXTEEN)
def test_same_bits_as_onnxruntime(dtype: str, symmetric: bool, axis: int | None) -> None:
    format = Format(*TYPES[dtype], symmetric, axis)
    session = onnx_quantizer(dtype, axis)
    rng = np.random.default_rng(0)
    for scale in (1e-6, 0.0123, 1.0, 700.0):
        ends = rng.standard_normal((2, *([] if axis is None else [(3, 5)[axis]]))) * scale
        q = qparams(ends.min(axis=0), ends.max(axis=0), format)
        x = samples(q, format, rng)
        if dtype[0] == "i" and symmetric:  # the one code that a strict signed grid leaves to onnxruntime alone
            x = np.maximum(x, dequantize(np.full(x.shape, format.lo), q, format))
        codes, values = session.run(None, {"x": x, "s": q.scale, "z": q.zero_point.astype(dtype)})
        mine = quantize(x, q, format)
        np.testing.assert_array_equal(mine, codes)
        np.testing.assert_array_equal(dequantize(mine, q, format).view(np.int32), values.view(np.int32))
