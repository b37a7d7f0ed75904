"""Conv and ConvTranspose, which are each other's way back.

By the input: a Conv with the weight turned round where each place begins a window, else a ConvTranspose. By the weight:
place by place of the window a product of the input with what comes back, or a Conv of them, batch and channels swapped,
dilations and strides too.
"""

from __future__ import annotations

from itertools import product
from math import prod

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Gradients, Step, known_shape
from quark_onnx.graph.gradient.windows import Windows, windows_of

FEW, ENOUGH = 25, 8
"""Places of a window up to which, and inputs of a group from which, a weight is reckoned place by place: there a Conv,
of so many channels as the batch has samples, takes up to four times as long."""

PLANE = 784
"""Places of a plane from which a channel by itself is reckoned by a product of matrices, which writes nothing but the
sum; below, to multiply and to sum takes half as long."""


def convolution(step: Step) -> Gradients | Skip:
    """Conv, of any group, stride, dilation and padding."""
    dims = known_shape(step.input(1))
    if isinstance(dims, Skip):
        return dims
    windows = windows_of(step, dims[2:], step.x, step.y)
    if isinstance(windows, Skip):
        return windows
    group = step.integer("group", 1)
    found = _bias(step, windows)
    if step.wants(1):
        found[1] = weight_gradient(step, step.x, step.dy, dims, windows, group, step.y)
    if step.wants(0):
        found[0] = input_gradient(step, step.dy, step.input(1), dims, windows, group)
    return found


def transposed_convolution(step: Step) -> Gradients | Skip:
    """ConvTranspose: the way back of a Conv from its output to its input."""
    dims = known_shape(step.input(1))
    if isinstance(dims, Skip):
        return dims
    windows = _windows_transposed(step, dims)
    if isinstance(windows, Skip):
        return windows
    group = step.integer("group", 1)
    found = _bias(step, windows)
    if step.wants(1):
        found[1] = weight_gradient(step, step.dy, step.x, dims, windows, group, step.x)
    if step.wants(0):
        found[0] = step.op("Conv", step.dy, step.input(1), **windows.attributes(group=group))
    return found


def _bias(step: Step, windows: Windows) -> dict[int, ir.Value]:
    return {2: step.sum(step.dy, [0, *windows.axes], keepdims=False)} if step.wants(2) else {}


def _windows_transposed(step: Step, dims: tuple[int, ...]) -> Windows | Skip:
    """Those of the Conv whose way back this is: what is padded there is cut off here."""
    windows = windows_of(step, dims[2:], step.y, step.x)
    if isinstance(windows, Skip):
        return windows
    padding = step.integers("output_padding") or [0] * len(windows.kernel)
    if any(rest >= stride for rest, stride in zip(padding, windows.strides, strict=True)):
        return Skip("its output_padding is not below its strides")
    if step.integers("output_shape") is None:
        return windows
    made, read = known_shape(step.y, slice(2, None)), known_shape(step.x, slice(2, None))
    if isinstance(made, Skip):
        return made
    if isinstance(read, Skip):
        return read
    if len(made) != len(read):  # onnx does not infer one that is smaller than the input
        return Skip(f"the shape of {step.y.name!r} is not known")
    none = (0,) * len(made)
    bare = Windows(windows.kernel, windows.strides, windows.dilations, none, none)
    cut = [max(more - rest, 0) for more, rest in zip(padding, bare.rests(made, read), strict=True)]
    less = tuple(total // 2 for total in cut)
    more = tuple(total - half for total, half in zip(cut, less, strict=True))
    begins, ends = (less, more) if step.text("auto_pad", "NOTSET") == "SAME_UPPER" else (more, less)
    return Windows(windows.kernel, windows.strides, windows.dilations, begins, ends)


def input_gradient(
    step: Step, dy: ir.Value, weight: ir.Value, dims: tuple[int, ...], windows: Windows, group: int
) -> ir.Value:
    """By the input of a Conv. dims: of the weight (outputs, inputs of a group, kernel)."""
    behind = [extent - 1 - pad for extent, pad in zip(windows.extents, windows.begins, strict=True)]
    beyond = [extent - 1 - pad for extent, pad in zip(windows.extents, windows.ends, strict=True)]
    if windows.dense and min((*behind, *beyond)) >= 0:
        turned = _turned(step, weight, dims, group)
        return step.op("Conv", dy, turned, pads=[*behind, *beyond], dilations=list(windows.dilations), group=group)
    spatial = slice(2, None)
    known, made = known_shape(step.x, spatial), known_shape(step.y, spatial)
    if not isinstance(known, Skip) and not isinstance(made, Skip):
        rests = list(windows.rests(known, made))
        return step.op("ConvTranspose", dy, weight, **windows.attributes(group=group, output_padding=rests))
    short = step.op("ConvTranspose", dy, weight, **windows.attributes(group=group))
    missing = step.op("Sub", step.op("Shape", step.x), step.op("Shape", short))
    pads = step.op("Concat", step.ints([0] * len(dims)), missing, axis=0)
    return step.op("Pad", short, pads)


def _turned(step: Step, weight: ir.Value, dims: tuple[int, ...], group: int) -> ir.Value:
    """The weight of a Conv that goes back: inputs and outputs of each group swapped, the kernel from its end."""
    outputs, inputs, *kernel = dims
    axes = [axis for axis, size in enumerate(kernel, 2) if size > 1]
    if axes:
        ones = [-1] * len(axes)
        weight = step.sliced(weight, ones, [-1 - dims[axis] for axis in axes], axes, ones)
    if group == 1:
        return step.transposed(weight, [1, 0, *range(2, len(dims))])
    if inputs == 1 and outputs == group:
        return weight
    parts = step.with_shape(weight, [group, outputs // group, inputs, *kernel])
    swapped = step.transposed(parts, [0, 2, 1, *range(3, len(dims) + 1)])
    return step.with_shape(swapped, [group * inputs, outputs // group, *kernel])


def weight_gradient(
    step: Step, x: ir.Value, dy: ir.Value, dims: tuple[int, ...], windows: Windows, group: int, like: ir.Value
) -> ir.Value:
    """By the weight of a Conv of `x`, of these dimensions. like: a value of the model with the shape of `dy`."""
    depthwise = dims[:2] == (group, 1)
    suits = windows.dense if depthwise else dims[1] >= ENOUGH
    if windows.pointwise or (suits and prod(windows.kernel) <= FEW):
        return _by_places(step, x, dy, dims, windows, group, like)
    _, inputs, *kernel = dims
    swap = [1, 0, *windows.axes]
    if group == 1:
        rows = step.transposed(x, swap)
    else:
        spatial = step.op("Shape", x, start=2)
        parts = step.op("Reshape", x, step.op("Concat", step.ints([0, group, inputs]), spatial, axis=0))
        rows = step.transposed(parts, [2, 1, 0, *(axis + 1 for axis in windows.axes)])
        rows = step.op("Reshape", rows, step.op("Concat", step.ints([inputs, -1]), spatial, axis=0))
    swapped = Windows(tuple(kernel), windows.dilations, windows.strides, windows.begins, windows.ends)
    found = step.op("Conv", rows, step.transposed(dy, swap), **swapped.attributes(group=group))
    found = step.sliced(found, [0] * len(kernel), kernel, windows.axes, [1] * len(kernel))
    return step.transposed(found, swap)


def _by_places(
    step: Step, x: ir.Value, dy: ir.Value, dims: tuple[int, ...], windows: Windows, group: int, like: ir.Value
) -> ir.Value:
    """Place by place of the window: what comes back times what stood there."""
    outputs, inputs, *_ = dims
    summed = dims[:2] == (group, 1) and not _large(like)
    if any((*windows.begins, *windows.ends)):
        x = step.op("Pad", x, step.ints([0, 0, *windows.begins, 0, 0, *windows.ends]))
    back = dy if summed else step.with_shape(dy, [0, group, outputs // group, -1])
    columns = []
    for place in _places(windows):
        stood = x if windows.pointwise else _stood_at(step, x, place, windows, like)
        if summed:
            total = step.sum(step.op("Mul", stood, dy), [0, *windows.axes], keepdims=False)
        else:
            rows = step.transposed(step.with_shape(stood, [0, group, inputs, -1]), [0, 1, 3, 2])
            total = step.sum(step.op("MatMul", back, rows), [0], keepdims=False)
        columns.append(step.with_shape(total, [outputs, inputs, 1]))
    return step.with_shape(step.op("Concat", *columns, axis=2), dims)


def _large(value: ir.Value) -> bool:
    """Whether a plane is one for which a product of matrices pays, even of a row and a column."""
    plane = known_shape(value, slice(2, None))
    return not isinstance(plane, Skip) and prod(plane) >= PLANE


def _stood_at(step: Step, x: ir.Value, place: list[int], windows: Windows, like: ir.Value) -> ir.Value:
    """What was at this place of all windows."""
    counts = known_shape(like, slice(2, None))
    if isinstance(counts, Skip):
        steps = step.op("Sub", step.op("Shape", like, start=2), step.ints(1))
        reach = step.op("Mul", steps, step.ints(windows.strides))
        end = step.op("Add", reach, step.ints([number + 1 for number in place]))
    else:
        rows = zip(place, counts, windows.strides, strict=True)
        end = step.ints([number + (count - 1) * stride + 1 for number, count, stride in rows])
    return step.op("Slice", x, step.ints(place), end, step.ints(windows.axes), step.ints(windows.strides))


def _places(windows: Windows) -> list[list[int]]:
    """Where the places of a window are, in the order of the weight."""
    spreads = zip(windows.kernel, windows.dilations, strict=True)
    return [list(place) for place in product(*(range(0, size * spread, spread) for size, spread in spreads))]
