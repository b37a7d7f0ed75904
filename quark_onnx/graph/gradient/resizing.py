"""Resize and Upsample, nearest and linear: along each axis a matrix, and the way back is its transpose."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Gradients, Step, dims_of, known_shape
from quark_onnx.graph.view import constant, input_at

Array = NDArray[np.float64]


def resize(step: Step) -> Gradients | Skip:
    """Of known sizes, which the batch need not have."""
    mode = step.text("mode", "nearest")
    if mode == "cubic" or step.integer("antialias", 0):
        return Skip("only nearest and linear ones without antialiasing have a rule")
    if step.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return Skip("it crops")
    if step.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Skip("it keeps the ratio of its sides")
    changed = _changed_axes(step)
    if isinstance(changed, Skip):
        return changed
    back = step.dy
    for axis, size, made, scale in changed:
        matrix = _nearest(step, size, made, scale) if mode == "nearest" else _linear(step, size, made, scale)
        inner = known_shape(step.x, slice(axis + 1, None))
        if isinstance(inner, Skip):
            return inner
        back = _along(step, back, prod(inner), matrix)
    return {0: step.reshaped(back, step.x)}


def _changed_axes(step: Step) -> list[tuple[int, int, int, float]] | Skip:
    """Axis, size before and behind, scale; from the last axis on, those in front are not known yet."""
    before, behind = dims_of(step.x), dims_of(step.y)
    rank = len(before)
    scales = constant(input_at(step.node, 2))
    axes = [axis % rank for axis in step.integers("axes") or range(rank)]
    found = []
    for axis in reversed(range(rank)):
        size, made = before[axis], behind[axis]
        given = None if scales is None or not scales.size or axis not in axes else float(scales[axes.index(axis)])
        if given == 1 or size == made:
            continue
        if not isinstance(size, int) or not isinstance(made, int):
            return Skip("its sizes are not known")
        found.append((axis, size, made, made / size if given is None else given))
    return found


def _centres(step: Step, size: int, made: int, scale: float) -> Array:
    """Where, in the tensor that was, each place of the new one lies."""
    mode = step.text("coordinate_transformation_mode", "half_pixel")
    place = np.arange(made, dtype=np.float64)
    if mode == "align_corners":
        return place * (size - 1) / (made - 1) if made > 1 else place * 0
    if mode == "asymmetric":
        return place / scale
    if mode == "pytorch_half_pixel" and made == 1:
        return place * 0
    half = (place + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        middle = size / 2
        return middle * (1 - made / (scale * size)) + half
    return half


def _nearest(step: Step, size: int, made: int, scale: float) -> Array:
    """One 1 in each row."""
    at = _centres(step, size, made, scale)
    rounded = {
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }[step.text("nearest_mode", "round_prefer_floor")]
    matrix = np.zeros((made, size))
    matrix[np.arange(made), np.clip(rounded, 0, size - 1).astype(int)] = 1
    return matrix


def _linear(step: Step, size: int, made: int, scale: float) -> Array:
    """In each row what its two neighbours count."""
    at = np.clip(_centres(step, size, made, scale), 0, size - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((made, size))
    np.add.at(matrix, (np.arange(made), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(made), np.minimum(low + 1, size - 1)), at - low)
    return matrix


def _along(step: Step, back: ir.Value, inner: int, matrix: Array) -> ir.Value:
    """The transposed matrix along an axis with so many numbers behind each place; where they were repeated, a sum."""
    made, size = matrix.shape
    if made % size == 0 and (matrix == np.repeat(np.eye(size), made // size, axis=0)).all():
        return step.sum(step.with_shape(back, [-1, size, made // size, inner]), [2])
    if inner == 1:
        return step.op("MatMul", step.with_shape(back, [-1, made]), step.floats(matrix))
    return step.op("MatMul", step.floats(matrix.T), step.with_shape(back, [-1, made, inner]))
