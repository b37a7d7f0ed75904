"""Straight through quantizers in range, and the gradient of learned step sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import run, text_model

from quark_onnx.graph import io
from quark_onnx.graph.gradient import differentiate

PAIR = "g (float[3, 4, 5] x) => (float[3, 4, 5] y) { q = QuantizeLinear%s (x, s, z) y = DequantizeLinear%s (q, s, z) }"
TYPES = {"int8": (-128, 127, 3), "uint8": (0, 255, 117), "uint16": (0, 65535, 30000), "int4": (-8, 7, 0)}


def solved(text: str, x: np.ndarray, dy: np.ndarray, by: list[str], **constants: np.ndarray) -> list[np.ndarray]:
    """The output and the gradients."""
    made = differentiate(io.load(text_model(text, 21, 10, **constants)), ["y"], by)
    assert (made.stops, made.unreached) == ((), ())
    return run(made.model, {"x": x, made.incoming["y"]: dy})


def wide(draw: np.random.Generator, scale: np.ndarray, low: int, high: int, zero: int) -> np.ndarray:
    """Numbers of which some are beyond both ends of the range."""
    codes = draw.uniform(low - 0.3 * (high - low), high + 0.3 * (high - low), (3, 4, 5))
    return ((codes - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_pair_passes_what_is_in_range_and_teaches_its_scale(kind: str, axis: int | None) -> None:
    (low, high, zero), draw = TYPES[kind], np.random.default_rng(axis)
    shape = () if axis is None else ((3, 4, 5)[axis],)
    scale = draw.uniform(0.01, 0.1, shape).astype(np.float32)
    stretched = scale.reshape([-1 if number == axis else 1 for number in range(3)])
    x, dy = wide(draw, stretched, low, high, zero), draw.standard_normal((3, 4, 5)).astype(np.float32)
    attribute = "" if axis is None else f" <axis = {axis}>"
    proto = text_model(PAIR % (attribute, attribute), 21, 10, s=scale)
    zeros = onnx.helper.make_tensor("z", getattr(onnx.TensorProto, kind.upper()), shape, np.full(shape, zero).ravel())
    proto.graph.initializer.append(zeros)
    made = differentiate(io.load(proto), ["y"], ["x", "s"])
    y, dx, ds = run(made.model, {"x": x, made.incoming["y"]: dy})
    code = x / stretched + zero
    inside = (code >= low) & (code <= high)
    assert 0.3 < inside.mean() < 0.9
    near = np.minimum(abs(code - low), abs(code - high)) < 1e-3  # the rounding of the product may decide
    np.testing.assert_array_equal(dx[~near], (dy * inside)[~near])
    step = np.where(inside, np.round(code) - code, np.where(code < low, low, high) - zero)
    axes = tuple(number for number in range(3) if number != axis)
    np.testing.assert_allclose(ds, (dy * step).sum(axes).reshape(shape), rtol=2e-3, atol=1e-4 * (high - low))
    assert abs(y - x)[inside & ~near].max() <= stretched.max() * 0.51


def test_codes_in_between_may_be_moved_and_pooled() -> None:
    x = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4)
    text = """g (float[1, 1, 4, 4] x) => (float[4, 1] y) { q = QuantizeLinear (x, s, z)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q) r = Reshape (p, t) y = DequantizeLinear (r, s, z) }"""
    constants = {"s": np.float32(1), "z": np.int8(0), "t": np.array([4, 1])}
    y, dx = solved(text, x, np.array([[1], [2], [3], [4]], np.float32), ["x"], **constants)
    assert y.ravel().tolist() == [-3, -1, 5, 7]
    assert dx[0, 0, 1].tolist() == [0, 1, 0, 2]
    assert dx[0, 0, 3].tolist() == [0, 3, 0, 4]
    assert dx.sum() == 10


def test_scale_of_a_constant_weight() -> None:
    """dy·(q − z): with the straight-through part missing, since the codes do not move."""
    codes = np.array([[3, -5], [7, 1]], np.int8)
    text = "g (float[2, 2] x) => (float[2, 2] y) { w = DequantizeLinear <axis = 0> (q, s, z) y = Mul (x, w) }"
    constants = {"q": codes, "s": np.array([0.5, 2], np.float32), "z": np.array([1, 0], np.int8)}
    x = np.array([[1, 2], [3, 4]], np.float32)
    y, dw, ds = solved(text, x, np.ones_like(x), ["w", "s"], **constants)
    assert ds.tolist() == [2 * 1 - 6 * 2, 7 * 3 + 1 * 4]
    assert dw.tolist() == x.tolist()
    assert y.tolist() == [[1, -6], [42, 8]]


def test_scales_of_blocks_have_no_rule() -> None:
    text = (
        "g (float[2, 4] x) => (float[2, 4] y) { w = DequantizeLinear <axis = 1, block_size = 2> (q, s) y = Mul (x, w) }"
    )
    model = text_model(text, 21, 10, q=np.ones((2, 4), np.int8), s=np.ones((2, 2), np.float32))
    made = differentiate(io.load(model), ["y"], ["s"])
    assert [(stop.op_type, stop.reason) for stop in made.stops] == [
        ("DequantizeLinear", "it has a scale for each block")
    ]
    assert made.unreached == ("s",)
