"""Rounding as AIMET does: the array function and the graph of `exact_simulation` agree to the bit, and differ from
`quantize` and QuantizeLinear at ties only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_text import parse_model

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.exact_simulation import exact
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize, quantize_half_up

law = settings(deadline=None, max_examples=100)
graph_law = settings(deadline=None, max_examples=60)  # each makes a session

ends = st.tuples(st.floats(-1e6, 0, width=32), st.floats(0, 1e6, width=32)).filter(lambda pair: pair[0] < pair[1])
formats = st.builds(Format, st.integers(2, 16), st.booleans(), st.booleans(), strict=st.booleans())
stored = formats.map(lambda f: replace(f, stored=16 if f.bits > 8 else 8))  # types that every QuantizeLinear has

TEXT = '<ir_version: 10, opset_import: ["": 21]> g (float[n] x) => (float[n] y) { y = Identity(x) }'


def quantized(format: Format, q: QParams) -> Model:
    """One quantizer, as `apply` writes it."""
    model = io.load(parse_model(TEXT))
    plan = Plan(io.fingerprint(model), {"x": Site("x", "activation", format, "x", "test")}, qparams={"x": q})
    return apply(model, plan)


def computed(model: Model, values: np.ndarray) -> np.ndarray:
    result: np.ndarray = Runner(model, optimized=False, threads=1)({"x": values})[0]
    return result


def ties(q: QParams, format: Format, count: int = 64) -> np.ndarray:
    """Values half way between two codes, or as near as float32 has them, and their neighbours on both sides."""
    codes = np.linspace(format.lo - 2, format.hi + 2, count).astype(np.int64) - int(q.zero_point)
    middle = ((codes + 0.5) * np.float64(q.scale)).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(side)) for side in (-np.inf, np.inf)]
    return np.concatenate([middle, *beside, np.zeros(1, np.float32)])


@graph_law
@given(ends, stored)
def test_array_and_graph_agree_to_the_bit(range: tuple[float, float], format: Format) -> None:
    q = qparams(*range, format)
    values = np.concatenate([ties(q, format), np.linspace(2 * range[0], 2 * range[1], 64, dtype=np.float32)])
    want = dequantize(quantize_half_up(values, q, format), q, format)
    got = computed(exact(quantized(format, q), {"x": format.lo}), values)
    np.testing.assert_array_equal(got, want)


@law
@given(ends, formats)
def test_only_ties_are_rounded_in_another_way(range: tuple[float, float], format: Format) -> None:
    """By one code, upwards or, where the sum with the zero point rounds, by less than a float32 of it."""
    q = qparams(*range, format)
    values = np.concatenate([ties(q, format), np.linspace(2 * range[0], 2 * range[1], 64, dtype=np.float32)])
    up, even = quantize_half_up(values, q, format), quantize(values, q, format)
    steps = values.astype(np.float64) / np.float64(q.scale)
    near_tie = np.abs(steps - np.floor(steps) - 0.5) <= 2.0**-22 * (2**format.bits + np.abs(steps))
    assert np.all(up[~near_tie] == even[~near_tie])
    assert np.all(np.abs(up - even) <= 1)


@pytest.mark.parametrize(
    "format", [Format(8, False), Format(8, True), Format(8, True, True), Format(4, False)], ids=str
)
def test_ties_go_up(format: Format) -> None:
    """Scale 1, where ½ is exact: upwards also below zero, though `quantize` takes the even code there."""
    q = QParams(np.float32(1), np.int32(format.middle))
    values = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    np.testing.assert_array_equal(quantize_half_up(values, q, format) - q.zero_point, [-2, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(quantize(values, q, format) - q.zero_point, [-2, -2, 0, 0, 2, 2])
    simulation = quantized(replace(format, stored=8), q)
    np.testing.assert_array_equal(computed(exact(simulation), values), [-2, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(computed(simulation, values), [-2, -2, 0, 0, 2, 2])


def test_a_strict_grid_ends_one_code_higher() -> None:
    """The type has a code below; the twin, told nothing, goes down to it, as QuantizeLinear does."""
    format, values = Format(8, False, True, strict=True), np.array([-300, 300], np.float32)
    q = QParams(np.float32(1), np.int32(128))
    assert (format.lo, format.hi) == (1, 255)
    np.testing.assert_array_equal(quantize_half_up(values, q, format), [1, 255])
    simulation = quantized(format, q)
    np.testing.assert_array_equal(computed(exact(simulation, {"x": format.lo}), values), [-127, 127])
    np.testing.assert_array_equal(computed(exact(simulation), values), [-128, 127])
    np.testing.assert_array_equal(computed(simulation, values), [-128, 127])


@law
@given(st.integers(2, 8), st.integers(1, 5), st.booleans())
def test_channels_are_rounded_one_by_one(bits: int, channels: int, symmetric: bool) -> None:
    rng = np.random.default_rng(bits * channels)
    array = rng.standard_normal((3, channels, 2)).astype(np.float32)
    format = Format(bits, symmetric=symmetric, axis=1)
    q = qparams(array.min((0, 2)), array.max((0, 2)), format)
    whole = quantize_half_up(array, q, format)
    for i in range(channels):
        one = QParams(q.scale[i], q.zero_point[i])
        np.testing.assert_array_equal(whole[:, i], quantize_half_up(array[:, i], one, replace(format, axis=None)))


def test_the_model_given_stays_as_it_is() -> None:
    simulation = quantized(Format(8, False), QParams(np.float32(1), np.int32(0)))
    before = io.fingerprint(simulation)
    after = {node.op_type for node in exact(simulation).graph}
    assert io.fingerprint(simulation) == before
    assert after == {"Div", "Add", "Floor", "Max", "Min", "Sub", "Mul", "Identity"}
