"""Convolutions, products, pools and what resizes."""

from __future__ import annotations

import numpy as np
from finite_differences import Problem

from gradient_problems.draws import Draw, Problems, batch, dims, into, numbers, pick, stretched

PROBLEMS: Problems = {}


def windowed(draw: Draw, count: int) -> tuple[list[int], list[int], list[int], list[int], str]:
    """Kernel, strides, dilations, pads and the text of the last three."""
    kernel = [int(draw.integers(1, 4)) for _ in range(count)]
    strides = [int(draw.integers(1, 4)) for _ in range(count)]
    dilations = [int(draw.integers(1, 3)) for _ in range(count)]
    pads = [int(draw.integers(0, kernel[axis % count])) for axis in range(2 * count)]
    if draw.random() < 0.4:
        strides = [1] * count
    return kernel, strides, dilations, pads, f"strides = {strides}, dilations = {dilations}, pads = {pads}"


def groups(draw: Draw) -> tuple[int, int, int]:
    """Groups, inputs and outputs of each."""
    group = pick(draw, 1, 1, 2, 3)
    if draw.random() < 0.15:
        return group, 8, 2
    return (group, 1, 1) if draw.random() < 0.3 else (group, int(draw.integers(1, 4)), int(draw.integers(1, 4)))


def sizes(draw: Draw, count: int) -> list[int]:
    return [int(size) for size in draw.integers(6, 10, count)]


@into(PROBLEMS)
def Conv(draw: Draw) -> Problem:
    count, (group, inputs, outputs) = pick(draw, 1, 2, 2, 2, 3), groups(draw)
    kernel, _, _, _, text = windowed(draw, count)
    if draw.random() < 0.2:
        text = f'auto_pad = "{pick(draw, "SAME_UPPER", "SAME_LOWER")}", strides = {[2] * count}'
    if draw.random() < 0.2:
        kernel, text = [1] * count, "group = 1"
    text = text if text == "group = 1" else f"{text}, group = {group}"
    group = 1 if text == "group = 1" else group
    x = draw.normal(size=(draw.integers(1, 4), group * inputs, *sizes(draw, count)))
    w, b = draw.normal(size=(group * outputs, inputs, *kernel)), draw.normal(size=group * outputs)
    return Problem(f"y = Conv <{text}> (x, w, b)", {"x": x}, {"w": w, "b": b}, batched=batch(draw), step=8)


@into(PROBLEMS)
def ConvTranspose(draw: Draw) -> Problem:
    count, (group, inputs, outputs) = pick(draw, 1, 2, 2), groups(draw)
    kernel, strides, dilations, _, text = windowed(draw, count)
    x = draw.normal(size=(draw.integers(1, 4), group * inputs, *(int(n) for n in draw.integers(3, 6, count))))
    more = [int(draw.integers(0, stride)) for stride in strides]
    if draw.random() < 0.3:
        made = [
            (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)
        ]
        made = np.maximum(np.array(made) - 1, x.shape[2:])
        text = f"strides = {strides}, dilations = {dilations}, output_shape = {made.tolist()}"
    elif draw.random() < 0.5:
        text += f", output_padding = {more}"
    elif draw.random() < 0.3 and strides == [1] * count:
        text = 'auto_pad = "SAME_UPPER"'
    text = f"{text}, group = {group}"
    w, b = draw.normal(size=(group * inputs, outputs, *kernel)), draw.normal(size=group * outputs)
    return Problem(f"y = ConvTranspose <{text}> (x, w, b)", {"x": x}, {"w": w, "b": b}, batched=batch(draw), step=8)


@into(PROBLEMS)
def MatMul(draw: Draw) -> Problem:
    rows, inner, columns = (int(n) for n in draw.integers(1, 5, 3))
    batches = dims(draw, 0, 2)
    left, right = [*stretched(draw, batches), rows, inner], [*batches, inner, columns]
    if draw.random() < 0.3:
        left, right = [*batches, rows, inner], [*stretched(draw, batches), inner, columns]
    if draw.random() < 0.15:
        left = [inner]
    if draw.random() < 0.15:
        right = [inner]
    known = batch(draw) if len(left) > 2 and left[0] > 1 else ()
    return Problem("y = MatMul (x, w)", {"x": draw.normal(size=left)}, {"w": draw.normal(size=right)}, batched=known)


@into(PROBLEMS)
def Gemm(draw: Draw) -> Problem:
    rows, inner, columns = (int(n) for n in draw.integers(1, 5, 3))
    turned = [int(draw.integers(2)) for _ in range(2)]
    a, b = (inner, rows) if turned[0] else (rows, inner), (columns, inner) if turned[1] else (inner, columns)
    c = draw.normal(size=stretched(draw, [rows, columns]))
    attributes = f"transA = {turned[0]}, transB = {turned[1]}, alpha = 0.5, beta = 1.5"
    constants = {"b": draw.normal(size=b), "c": c}
    return Problem(f"y = Gemm <{attributes}> (x, b, c)", {"x": draw.normal(size=a)}, constants, batched=batch(draw))


@into(PROBLEMS)
def Einsum(draw: Draw) -> Problem:
    sizes = dict(zip("abcd", (int(n) for n in draw.integers(1, 5, 4)), strict=True))
    equation = pick(
        draw, "ab,bc->ac", "abc,abd->acd", "abc,cd->abd", "ab,cb->ca", "ab,ab->a", "abc,acd->bad", "a,b->ab"
    )
    x, w = (draw.normal(size=[sizes[name] for name in names]) for names in equation.split("->")[0].split(","))
    known = batch(draw) if equation == "abc,cd->abd" else ()
    return Problem(f'y = Einsum <equation = "{equation}"> (x, w)', {"x": x}, {"w": w}, batched=known)


def pooled(draw: Draw, operator: str) -> Problem:
    count = pick(draw, 1, 2, 2, 3)
    kernel, strides, dilations, pads, text = windowed(draw, count)
    if min(kernel) > 1 and draw.random() < 0.3:
        text = f'auto_pad = "{pick(draw, "SAME_UPPER", "SAME_LOWER")}", strides = {[2] * count}'
    if operator == "AveragePool":
        text = text.replace(f"dilations = {dilations}", f"count_include_pad = {draw.integers(2)}")
    shape = [int(n) for n in (*draw.integers(1, 4, 2), *sizes(draw, count))]
    spreads = dilations if operator == "MaxPool" else [1] * count
    rows = zip(shape[2:], kernel, strides, spreads, pads, pads[count:], strict=False)
    last = [-(-(n + a + b - (k - 1) * d - 1) // s) * s - n - a for n, k, s, d, a, b in rows]
    # onnx infers a window that begins behind the tensor, and onnxruntime makes none
    text += f", ceil_mode = {int(max(last) < 0)}, kernel_shape = {kernel}"
    return Problem(
        f"y = {operator} <{text}> (x)",
        {"x": draw.normal(size=shape)},
        batched=batch(draw),
        step=8 if operator == "AveragePool" else 0,
    )


PROBLEMS["MaxPool"] = lambda draw: pooled(draw, "MaxPool")
PROBLEMS["AveragePool"] = lambda draw: pooled(draw, "AveragePool")
for name in ("GlobalAveragePool", "GlobalMaxPool"):
    PROBLEMS[name] = lambda draw, name=name: Problem(
        f"y = {name} (x)", {"x": numbers(draw, name, [*dims(draw, 3, 4), 3])}, batched=batch(draw), step=0.4
    )


@into(PROBLEMS)
def Resize(draw: Draw) -> Problem:
    count = pick(draw, 1, 2, 2)
    shape = [int(n) for n in (*draw.integers(1, 4, 2), *draw.integers(2, 6, count))]
    mode = pick(draw, "nearest", "linear")
    place = pick(draw, "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    text = f'mode = "{mode}", coordinate_transformation_mode = "{place}"'
    if mode == "nearest":
        text += f', nearest_mode = "{pick(draw, "round_prefer_floor", "floor", "ceil", "round_prefer_ceil")}"'
    x = {"x": draw.normal(size=shape)}
    if draw.random() < 0.5:
        scales = np.array([1, 1, *pick(draw, [2.0] * count, [3.0] * count, [1.5] * count, [0.5] * count)], np.float32)
        return Problem(f"y = Resize <{text}> (x, , s)", x, {"s": scales}, ("s",), step=8)
    made = np.array([*shape[:2], *draw.integers(1, 12, count)])
    return Problem(f"y = Resize <{text}> (x, , , s)", x, {"s": made}, step=8)
