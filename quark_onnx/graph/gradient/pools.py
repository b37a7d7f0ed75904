"""MaxPool and AveragePool: to the largest of a window, and to all of it alike."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.moves import scattered
from quark_onnx.graph.gradient.step import Gradients, Step, known_shape
from quark_onnx.graph.gradient.windows import Windows, windows_of


def largest(step: Step) -> Gradients | Skip:
    """The node itself tells where the largest stood, the first of several."""
    if step.integer("storage_order", 0):
        return Skip("its positions are told column by column")
    return {0: scattered(step, step.output(1), step.dy)}


def average(step: Step) -> Gradients | Skip:
    """A transposed convolution with a window of ones, each channel by itself, of what each place's share is."""
    kernel = step.integers("kernel_shape") or []
    sizes, counts = known_shape(step.x, slice(2, None)), known_shape(step.y, slice(2, None))
    if isinstance(sizes, Skip):
        return sizes
    if isinstance(counts, Skip):
        return counts
    windows = windows_of(step, kernel, step.x, step.y)
    if isinstance(windows, Skip):
        return windows
    share = step.op("Mul", step.dy, step.floats(1 / _places(step, windows, sizes, counts)))
    # in ceil mode the last window reaches beyond the padding
    rests = windows.rests(sizes, counts)
    ends = tuple(end + max(-rest, 0) for end, rest in zip(windows.ends, rests, strict=True))
    windows = Windows(windows.kernel, windows.strides, windows.dilations, windows.begins, ends)
    ones = step.floats(np.ones((1, 1, *kernel)))
    padding = [max(rest, 0) for rest in rests]
    rows = step.with_shape(share, [-1, 1, *counts])
    found = step.op("ConvTranspose", rows, ones, **windows.attributes(output_padding=padding))
    return {0: step.reshaped(found, step.x)}


def _places(step: Step, windows: Windows, sizes: tuple[int, ...], counts: tuple[int, ...]) -> np.ndarray:
    """What each window divides its sum by: how many of its places are in the tensor, or in its padding too."""
    padded = bool(step.integer("count_include_pad", 0))
    along = []
    for axis, count in enumerate(counts):
        first, last = (-windows.begins[axis], sizes[axis] + windows.ends[axis]) if padded else (0, sizes[axis])
        starts = np.arange(count)[:, None] * windows.strides[axis] - windows.begins[axis]
        places = starts + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        along.append(((places >= first) & (places < last)).sum(1))
    grid = np.array([prod(numbers) for numbers in product(*along)], float)
    return grid.reshape(counts)
