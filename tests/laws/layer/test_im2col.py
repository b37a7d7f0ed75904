"""Patches times kernel are what onnxruntime's Conv and ConvTranspose compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from quark_onnx.numerics.layer.im2col import ConvShape, every_position, kernel_of, patches, rows_of

INPUTS, OUTPUTS = 4, 8
SIZES = (11, 9, 5)
SHAPES = {  # kernel, strides, pads, dilations, output_padding
    "1d": ((3,), (1,), (1, 1), (1,), (0,)),
    "1d strided, uneven pads": ((5,), (2,), (2, 1), (2,), (1,)),
    "2d": ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (0, 0)),
    "2d pointwise": ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (0, 0)),
    "2d pointwise strided": ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1), (1, 0)),
    "2d uneven throughout": ((3, 2), (2, 1), (0, 1, 1, 2), (1, 2), (1, 0)),
    "2d dilated": ((3, 3), (1, 1), (2, 2, 2, 2), (2, 2), (0, 0)),
    "3d": ((3, 1, 2), (2, 1, 1), (1, 0, 0, 1, 0, 1), (1, 1, 2), (1, 0, 0)),
}
by_shape = pytest.mark.parametrize("numbers", SHAPES.values(), ids=SHAPES)
by_group = pytest.mark.parametrize("group", [1, 2, 4])
by_direction = pytest.mark.parametrize("transposed", [False, True], ids=["Conv", "ConvTranspose"])


def conv(x: np.ndarray, w: np.ndarray, shape: ConvShape) -> np.ndarray:
    """onnxruntime's answer for one sample (C, *spatial)."""
    more = {"output_padding": shape.output_padding} if shape.transposed else {}
    node = helper.make_node(
        "ConvTranspose" if shape.transposed else "Conv",
        ["x", "w"],
        ["y"],
        kernel_shape=shape.kernel,
        strides=shape.strides,
        pads=shape.pads,
        dilations=shape.dilations,
        group=shape.group,
        **more,
    )
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x[None]})[0][0])


def case(
    numbers: tuple[tuple[int, ...], ...], group: int, transposed: bool
) -> tuple[ConvShape, np.ndarray, np.ndarray]:
    kernel, strides, pads, dilations, output_padding = numbers
    shape = ConvShape(kernel, strides, pads, dilations, group, transposed, output_padding if transposed else ())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((INPUTS, *SIZES[: len(kernel)])).astype(np.float32)
    w = rng.standard_normal(
        (INPUTS, OUTPUTS // group, *kernel) if transposed else (OUTPUTS, INPUTS // group, *kernel)
    ).astype(np.float32)
    return shape, x, w


@by_shape
@by_group
@by_direction
def test_patches_times_kernel_are_onnxruntimes(
    numbers: tuple[tuple[int, ...], ...], group: int, transposed: bool
) -> None:
    shape, x, w = case(numbers, group, transposed)
    y = conv(x, w, shape)
    assert shape.output_size(x.shape[1:]) == y.shape[1:]
    at = every_position(y.shape[1:])
    z, rows = patches(x, at, shape), rows_of(w, shape)
    got = np.swapaxes(z @ np.swapaxes(rows, 1, 2), 1, 2).reshape(y.shape)
    size = np.swapaxes(np.abs(z) @ np.swapaxes(np.abs(rows), 1, 2), 1, 2).reshape(y.shape)
    assert np.all(np.abs(got - y) <= 2 * z.shape[-1] * 2.0**-24 * size)  # two float32 sums of K products


@by_shape
@by_group
@by_direction
def test_kernel_of_undoes_rows_of(numbers: tuple[tuple[int, ...], ...], group: int, transposed: bool) -> None:
    shape, _, w = case(numbers, group, transposed)
    rows = rows_of(w, shape)
    assert rows.shape == (group, OUTPUTS // group, INPUTS // group * int(np.prod(shape.kernel)))
    np.testing.assert_array_equal(kernel_of(rows, w.shape, shape), w)


@by_shape
@by_direction
def test_padding_reads_the_fill(numbers: tuple[tuple[int, ...], ...], transposed: bool) -> None:
    """Codes padded with their zero point are 0 after dequantizing, as the float input's padding is."""
    shape, x, _ = case(numbers, 2, transposed)
    codes = np.clip(np.rint(x / 0.05) - 7, -128, 127).astype(np.int8)
    at = every_position(shape.output_size(x.shape[1:]))
    taken = patches(codes, at, shape, fill=-7)
    assert taken.dtype == np.int8
    dequantized = (codes.astype(np.float32) + 7) * np.float32(0.05)
    np.testing.assert_array_equal((taken.astype(np.float32) + 7) * np.float32(0.05), patches(dequantized, at, shape))


def test_a_sampled_position_reads_what_it_reads_among_all() -> None:
    shape, x, _ = case(SHAPES["2d uneven throughout"], 2, False)
    size = shape.output_size(x.shape[1:])
    every = patches(x, every_position(size), shape)
    some = every_position(size)[[0, 3, 4, 17]]
    np.testing.assert_array_equal(patches(x, some, shape), every[:, some[:, 0] * size[1] + some[:, 1]])


def test_attributes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ConvShape((3, 3), (1, 1), (1, 1), (1, 1))
