"""The quantizer: grid laws by hypothesis, and the same bits as onnxruntime's Clip, QuantizeLinear, DequantizeLinear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from newer_onnxruntime import needs_opset
from onnx import TensorProto, helper

from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.core.plan import QParams
from quark_onnx.numerics.quantizer import (
    SMALLEST_SCALE,
    along,
    carrier,
    clip_bounds,
    code_limits,
    dequantize,
    ends,
    qparams,
    quantize,
    reaching,
    stored_codes,
)

EPS = 2.0**-23
MAX = float(np.finfo(np.float32).max)
BIG = 2.0**126  # a range of ±BIG has a width that float32 holds

stricts = st.sampled_from([None, True, False])
formats = st.builds(Format, st.integers(2, 16), st.booleans(), st.booleans(), strict=stricts)
scales = st.sampled_from(["float", "pow2", "half"])
any_format = st.builds(lambda f, scale, one: replace(f, scale=scale, one_sided=one), formats, scales, st.booleans())
finite = st.floats(-BIG, BIG, width=32)
ranges = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))
law = settings(deadline=None, max_examples=200)


def spread(lo: float, hi: float, count: int = 97) -> np.ndarray:
    """Float32 values over the range that qparams makes of (lo, hi), its ends and 0 included."""
    low, high = min(lo, 0.0), max(hi, 0.0)
    values = np.concatenate([np.linspace(low, high, count), [low, high, 0.0]])
    return np.clip(values, low, high).astype(np.float32)


@law
@given(ranges, any_format)
def test_scale_is_a_normal_number_and_the_zero_point_a_code(range: tuple[float, float], format: Format) -> None:
    q = qparams(*range, format)
    assert q.scale.dtype == np.float32
    assert SMALLEST_SCALE <= q.scale <= MAX
    assert format.lo <= q.zero_point <= format.hi
    if format.scale == "pow2":
        assert np.frexp(q.scale)[0] == 0.5
    if format.scale == "half":
        assert np.finfo(np.float16).tiny <= q.scale == np.float16(q.scale)


@law
@given(ranges, any_format)
def test_special_scales_are_the_next_ones_up(range: tuple[float, float], format: Format) -> None:
    """Not smaller than the plain scale, which would clip, and not the one after the next; float16 ends at 65504."""
    plain, special = (float(qparams(*range, replace(format, scale=kind)).scale) for kind in ("float", format.scale))
    if format.scale == "half":
        assert special >= min(plain, 65504) * (1 - EPS)
        assert special <= max(plain, 2.0**-14) * (1 + 2.0**-10 + EPS)
    else:
        factor = 2 if format.scale == "pow2" else 1
        assert min(plain, 2.0**127) * (1 - EPS) <= special <= plain * factor * (1 + EPS)


@law
@given(ranges, any_format)
def test_zero_is_exact(ends: tuple[float, float], format: Format) -> None:
    q = qparams(*ends, format)
    codes = quantize(np.zeros(1, np.float32), q, format)
    assert codes == q.zero_point
    assert dequantize(codes, q, format) == 0


@law
@given(ranges, any_format)
def test_ends_give_scale_and_zero_point_back(range: tuple[float, float], format: Format) -> None:
    q = qparams(*range, format)
    assert qparams(*ends(q, format), format).same(q)


@law
@given(ranges, formats)
def test_a_lower_end_is_reached_by_the_grid(ends_of: tuple[float, float], format: Format) -> None:
    """And by no more than a step, where the grid has a zero point to choose."""
    lo, hi = min(ends_of[0], 0.0), max(ends_of[1], 0.0)
    q = qparams(reaching(lo, hi, format), hi, format)
    lowest, step = float(ends(q, format)[0]), float(q.scale)
    if step > 2 * SMALLEST_SCALE:
        assert lowest <= lo + 2 * EPS * max(-lo, hi)
        assert format.symmetric or lowest >= lo - step * (1 + EPS * (format.hi - format.lo))


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
    if low == high == 0:
        assert q.scale == 1
    elif q.scale > SMALLEST_SCALE * (1 + EPS):
        whole = (high - low) / (format.hi - format.lo)
        sides = high / (format.hi - format.middle), -low / (format.middle - format.lo)
        assert (max(sides) if format.symmetric else whole) == pytest.approx(float(q.scale), rel=2 * EPS)


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
    """A strict grid is the same for a range and its mirror image; else there is one code more below the middle."""
    symmetric, strict = (replace(format, symmetric=True, strict=kind) for kind in (False, True))
    for kind in (symmetric, strict):
        assert qparams(*ends, kind).zero_point == (0 if format.signed else 2 ** (format.bits - 1))
    mirrored = qparams(-ends[1], -ends[0], strict)
    assert qparams(*ends, strict).same(mirrored)
    assert np.all(qparams(-max(map(abs, ends)), 0.0, symmetric).scale <= qparams(*ends, strict).scale)


@law
@given(ranges, formats)
def test_one_sided_grids_begin_at_zero_where_nothing_is_negative(range: tuple[float, float], format: Format) -> None:
    """All codes are above zero then, and a quantizer of the whole type is a Relu. Other ranges: as if it were not."""
    one = replace(format, symmetric=True, one_sided=True)
    q = qparams(*range, one)
    if format.strict is None:
        assert one.lo == (-(2 ** (format.bits - 1)) if format.signed else 0)
    if range[0] < 0:
        assert q.same(qparams(*range, replace(one, one_sided=False, strict=bool(format.strict))))
        return
    assert q.zero_point == one.lo
    if range[1] / (one.hi - one.lo) > SMALLEST_SCALE * (1 + EPS):
        assert float(q.scale) * (one.hi - one.lo) == pytest.approx(range[1], rel=2 * EPS)


@law
@given(ranges, any_format)
def test_storage_as_signed_or_unsigned_is_the_same_grid(range: tuple[float, float], format: Format) -> None:
    signed = replace(format, signed=True)
    unsigned = signed.unsigned
    assert not unsigned.signed
    q, u = qparams(*range, signed), qparams(*range, unsigned)
    values = spread(*range)
    assert q.scale == u.scale
    assert u.zero_point - q.zero_point == 2 ** (format.bits - 1)
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
    for i, row in enumerate(rows):
        own = qparams(*row, format)
        assert own.same(QParams(q.scale[i], q.zero_point[i]))
        slices = (values.take(i, axis), codes.take(i, axis), restored.take(i, axis))
        np.testing.assert_array_equal(slices[1], quantize(slices[0], own, format))
        np.testing.assert_array_equal(slices[2], dequantize(slices[1], own, format))


def test_all_zero_channels_among_others_get_scale_one() -> None:
    q = qparams(np.zeros(3), np.array([0.0, 2.0, 0.0]), Format(8, True, True, axis=0))
    np.testing.assert_array_equal(q.scale, np.array([1, 2 / 127, 1], np.float32))


def test_along_shapes_parameters_for_broadcasting() -> None:
    shape = (2, 3, 4, 5)
    assert along(np.ones(3), shape, Format(axis=1)).shape == (1, 3, 1, 1)
    assert along(np.ones(()), shape, Format(axis=1)).shape == ()
    assert along(np.ones(()), shape, Format()).shape == ()
    blocks = np.arange(40.0).reshape(2, 1, 4, 5).repeat(2, axis=1) + 100 * np.arange(2).reshape(1, 2, 1, 1)
    wide = along(blocks, shape, Format(axis=1, block=2))
    np.testing.assert_array_equal(wide, blocks[:, [0, 0, 1]])


@law
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 2**32 - 1))
def test_blocks_are_quantized_one_by_one(size: int, other: int, block: int, first: bool, seed: int) -> None:
    """The last block may be shorter; along the first or the last axis of a matrix."""
    axis, cuts = 0 if first else 1, range(block, size, block)
    values = np.random.default_rng(seed).standard_normal((size, other) if first else (other, size)).astype(np.float32)
    format, plain = Format(4, axis=axis, block=block), Format(4, axis=1 - axis)
    parts = np.split(values, cuts, axis)
    q = qparams(*(np.stack([end(part, axis) for part in parts], axis) for end in (np.min, np.max)), format)
    codes = quantize(values, q, format)
    pieces = [np.split(array, cuts, axis) for array in (codes, dequantize(codes, q, format))]
    for i, part in enumerate(parts):
        own = QParams(q.scale.take(i, axis), q.zero_point.take(i, axis))
        assert own.same(qparams(part.min(axis), part.max(axis), plain))
        np.testing.assert_array_equal(pieces[0][i], quantize(part, own, plain))
        np.testing.assert_array_equal(pieces[1][i], dequantize(pieces[0][i], own, plain))


@law
@given(st.lists(finite, min_size=1, max_size=50), ranges, formats)
def test_clipping_in_front_makes_a_narrower_grid(
    values: list[float], range: tuple[float, float], format: Format
) -> None:
    """QuantizeLinear saturates at its type; behind a Clip to the ends of the grid it is the grid's own quantizer."""
    wide = replace(format, stored=2 * format.storage_bits)
    q = qparams(*range, wide)
    array = np.array([*values, *spread(*range), np.inf, -np.inf], np.float32)
    with np.errstate(over="ignore"):
        codes = np.rint(np.clip(array, *clip_bounds(q, wide)) / q.scale) + q.zero_point
        np.testing.assert_array_equal(codes, quantize(array, q, wide))
        np.testing.assert_array_equal(codes, stored_codes(array, q, wide))


def test_types_are_saturated_whole_and_narrower_grids_at_their_ends() -> None:
    strict = Format(8, True, True)
    assert (strict.lo, code_limits(strict)) == (-127, (-128, 127))
    assert code_limits(replace(strict, bits=7)) == (-63, 63)
    assert code_limits(replace(strict, stored=16)) == (-127, 127)
    assert code_limits(Format(4, False)) == (0, 15)
    q, far = QParams(np.asarray(1, np.float32), np.asarray(0, np.int32)), np.float32([-1e6, 1e6])
    for format, codes in ((strict, [-128, 127]), (replace(strict, bits=7), [-63, 63]), (Format(4), [-8, 7])):
        stored = stored_codes(far, q, format)
        assert (stored.dtype, stored.tolist()) == ("int8", codes)


def onnx_quantizer(format: Format) -> ort.InferenceSession:
    """x, scale, zero_point → codes and dequantized values, by onnxruntime as written; 2 and 4 bits travel as bytes."""
    kind, plain = (TensorProto.DataType.Value(name.upper()) for name in (format.dtype, carrier(format)))
    parameter: list[None] = [] if format.axis is None else [None]
    inputs = [("x", TensorProto.FLOAT, [None] * 3), ("s", TensorProto.FLOAT, parameter), ("zero", plain, parameter)]
    inputs += [(name, TensorProto.FLOAT, []) for name in ("low", "high") if format.simulated]
    attributes = {} if format.axis is None else {"axis": format.axis}
    source = "clipped" if format.simulated else "x"
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["clipped"])] if format.simulated else []
    nodes += [
        helper.make_node("Cast", ["zero"], ["z"], to=kind),
        helper.make_node("QuantizeLinear", [source, "s", "z"], ["codes"], **attributes),
        helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["y"], **attributes),
        helper.make_node("Cast", ["codes"], ["q"], to=plain),
    ]
    outputs = [("q", plain, [None] * 3), ("y", TensorProto.FLOAT, [None] * 3)]
    graph = helper.make_graph(
        nodes, "g", *([helper.make_tensor_value_info(*v) for v in values] for values in (inputs, outputs))
    )
    proto = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", format.opset)])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def samples(q: QParams, format: Format, rng: np.random.Generator) -> np.ndarray:
    """(3, 5, 67) values: on the grid, half-way between (ties), in between, and far outside."""
    steps = rng.integers(format.lo - 20, format.hi + 20, (3, 5, 67))
    offsets = rng.choice([0.0, 0.5, -0.5, 0.25, rng.standard_normal() * 1000], steps.shape)
    scale, zero_point = (along(p, steps.shape, format) for p in (q.scale, q.zero_point))
    return ((steps - zero_point + offsets) * scale).astype(np.float32)


STORED = [name for name, (bits, _) in TYPES.items() if not Format(bits).simulated]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", STORED)
def test_same_bits_as_onnxruntime(dtype: str, symmetric: bool, axis: int | None) -> None:
    assert_same_bits(Format(*TYPES[dtype], symmetric, axis))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [name for name in TYPES if name not in STORED])
def test_same_bits_as_onnxruntime_behind_a_clip(dtype: str, symmetric: bool) -> None:
    assert_same_bits(Format(*TYPES[dtype], symmetric))


def assert_same_bits(format: Format) -> None:
    needs_opset(format.opset)
    session = onnx_quantizer(format)
    rng = np.random.default_rng(0)
    for scale in (1e-6, 0.0123, 1.0, 700.0):
        sides = rng.standard_normal((2, *([] if format.axis is None else [(3, 5)[format.axis]]))) * scale
        q = qparams(sides.min(axis=0), sides.max(axis=0), format)
        x = samples(q, format, rng)
        if code_limits(format)[0] < format.lo:  # the one code that a strict signed grid leaves to onnxruntime alone
            x = np.maximum(x, dequantize(np.full(x.shape, format.lo), q, format))
        bounds = dict(zip(("low", "high"), clip_bounds(q, format), strict=True)) if format.simulated else {}
        feed = {"x": x, "s": q.scale, "zero": q.zero_point.astype(carrier(format)), **bounds}
        codes, values = session.run(None, feed)
        mine = quantize(x, q, format)
        np.testing.assert_array_equal(mine, codes)
        np.testing.assert_array_equal(dequantize(mine, q, format).view(np.int32), values.view(np.int32))
