"""Each rule against finite differences, on random shapes and attributes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from finite_differences import BOUND, Problem, error_of

from quark_onnx.graph.gradient.table import RULES

Draw = np.random.Generator
SHAPES = 20
CASES: dict[str, Callable[[Draw], Problem]] = {}


def case(make: Callable[[Draw], Problem]) -> Callable[[Draw], Problem]:
    CASES[make.__name__] = make
    return make


def pick(draw: Draw, *choices):
    return choices[draw.integers(len(choices))]


def dims(draw: Draw, low: int = 1, high: int = 4) -> list[int]:
    return [int(size) for size in draw.integers(1, 5, draw.integers(low, high + 1))]


def stretched(draw: Draw, shape: list[int]) -> list[int]:
    """A shape that is stretched to this one."""
    kept = [1 if draw.random() < 0.3 else size for size in shape]
    return kept[draw.integers(len(shape) + 1) :]


def elementwise(draw: Draw, operator: str, low: float = -3, high: float = 3, opset: int = 18) -> Problem:
    return Problem(f"y = {operator} (x)", {"x": draw.uniform(low, high, dims(draw))}, batched=batch(draw), opset=opset)


def numbers(draw: Draw, operator: str, shape: list[int]) -> np.ndarray:
    """For a maximum those that keep their order when they change by less than ½."""
    if "Max" not in operator:
        return draw.normal(size=shape)
    return draw.permutation(float(np.prod(shape)) - np.arange(np.prod(shape))).reshape(shape)


def batch(draw: Draw, *names: str) -> tuple[str, ...]:
    return (names or ("x",)) if draw.random() < 0.4 else ()


def pair(draw: Draw, operator: str, low: float = -3, high: float = 3) -> Problem:
    """Two tensors, either of which may be stretched."""
    shape = dims(draw)
    x, other = draw.uniform(low, high, shape), draw.uniform(low, high, stretched(draw, shape))
    if draw.random() < 0.3:
        return Problem(f"y = {operator} (w, x)", {"x": x}, {"w": other}, batched=batch(draw))
    return Problem(f"y = {operator} (x, w)", {"x": x}, {"w": other}, batched=batch(draw))


for name in ("Add", "Sub", "Mul", "Max", "Min"):
    CASES[name] = lambda draw, name=name: pair(draw, name)
CASES["Div"] = lambda draw: pair(draw, "Div", 0.5, 3)
for name in ("Neg", "Exp", "Abs", "Sin", "Cos", "Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Identity"):
    CASES[name] = lambda draw, name=name: elementwise(draw, name)
for name in ("Sqrt", "Log", "Reciprocal"):
    CASES[name] = lambda draw, name=name: elementwise(draw, name, 0.3, 3)
for name, other in (("LeakyRelu", "alpha"), ("Elu", "alpha")):
    CASES[name] = lambda draw, name=name, other=other: elementwise(
        draw, f"{name} <{other} = {draw.uniform(0.1, 2):.3f}>"
    )
CASES["Gelu"] = lambda draw: elementwise(draw, f'Gelu <approximate = "{pick(draw, "none", "tanh")}">', opset=20)
CASES["HardSigmoid"] = lambda draw: elementwise(draw, f"HardSigmoid <alpha = {draw.uniform(0.1, 0.4):.3f}, beta = 0.4>")


@case
def Sum(draw: Draw) -> Problem:
    shape = dims(draw)
    others = {f"w{number}": draw.normal(size=stretched(draw, shape)) for number in range(draw.integers(3))}
    return Problem(
        f"y = {pick(draw, 'Sum', 'Mean')} ({', '.join(['x', *others])})", {"x": draw.normal(size=shape)}, others
    )


@case
def Mean(draw: Draw) -> Problem:
    return Problem(
        "y = Mean (x, w, x)", {"x": draw.normal(size=(2, 3))}, {"w": draw.normal(size=stretched(draw, [2, 3]))}
    )


@case
def Pow(draw: Draw) -> Problem:
    shape = dims(draw)
    exponent = pick(draw, np.array(2.0), np.array(3.0), np.array(-0.5), draw.uniform(-2, 2, stretched(draw, shape)))
    fixed = ("w",) if exponent.ndim == 0 and draw.random() < 0.7 else ()
    return Problem("y = Pow (x, w)", {"x": draw.uniform(0.5, 2, shape)}, {"w": exponent}, fixed, batch(draw))


@case
def Clip(draw: Draw) -> Problem:
    limits = {"lo": np.array(draw.uniform(-1, 0)), "hi": np.array(draw.uniform(0.1, 1))}
    fixed, ends = pick(
        draw, ((), "lo, hi"), (("lo", "hi"), "lo, hi"), (("lo",), "lo, hi"), (("hi",), ", hi"), ((), "lo")
    )
    limits = {name: limits[name] for name in limits if name in ends}
    x = {"x": draw.normal(size=[*dims(draw), 5])}
    return Problem(f"y = Clip (x, {ends})", x, limits, fixed, batched=batch(draw))


@case
def PRelu(draw: Draw) -> Problem:
    shape = dims(draw)
    return Problem("y = PRelu (x, w)", {"x": draw.normal(size=shape)}, {"w": draw.normal(size=stretched(draw, shape))})


@case
def Where(draw: Draw) -> Problem:
    shape = dims(draw)
    truth = draw.random(stretched(draw, shape)) < 0.5
    parts = {"a": draw.normal(size=shape), "b": draw.normal(size=stretched(draw, shape))}
    return Problem("y = Where (c, a, b)", parts, {"c": truth}, batched=batch(draw, "a"))


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


@case
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


@case
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


@case
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


@case
def Gemm(draw: Draw) -> Problem:
    rows, inner, columns = (int(n) for n in draw.integers(1, 5, 3))
    turned = [int(draw.integers(2)) for _ in range(2)]
    a, b = (inner, rows) if turned[0] else (rows, inner), (columns, inner) if turned[1] else (inner, columns)
    c = draw.normal(size=stretched(draw, [rows, columns]))
    attributes = f"transA = {turned[0]}, transB = {turned[1]}, alpha = 0.5, beta = 1.5"
    constants = {"b": draw.normal(size=b), "c": c}
    return Problem(f"y = Gemm <{attributes}> (x, b, c)", {"x": draw.normal(size=a)}, constants, batched=batch(draw))


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


CASES["MaxPool"] = lambda draw: pooled(draw, "MaxPool")
CASES["AveragePool"] = lambda draw: pooled(draw, "AveragePool")
for name in ("GlobalAveragePool", "GlobalMaxPool"):
    CASES[name] = lambda draw, name=name: Problem(
        f"y = {name} (x)", {"x": numbers(draw, name, [*dims(draw, 3, 4), 3])}, batched=batch(draw), step=0.4
    )


@case
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


for name in ("Softmax", "LogSoftmax"):
    CASES[name] = lambda draw, name=name: elementwise(draw, f"{name} <axis = {pick(draw, 0, -1)}>")


@case
def LayerNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 1, 3), 6]
    axis = int(draw.integers(1, len(shape)))
    parts = {"w": draw.normal(size=shape[axis:]), "b": draw.normal(size=shape[axis:])}
    if draw.random() < 0.3:
        parts.pop("b")
    text = f"y = LayerNormalization <axis = {axis}> ({', '.join(['x', *parts])})"
    return Problem(text, {"x": draw.normal(size=shape)}, parts, batched=batch(draw))


@case
def RMSNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 1, 3), 6]
    x, w = {"x": draw.normal(size=shape)}, {"w": draw.normal(size=shape[-1:])}
    return Problem("y = RMSNormalization <axis = -1> (x, w)", x, w, batched=batch(draw), opset=23)


def by_channel(draw: Draw, channels: int, *names: str) -> dict[str, np.ndarray]:
    return {name: draw.uniform(0.5, 2, channels) for name in names}


@case
def InstanceNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 2, 3), 5]
    constants = by_channel(draw, shape[1] if len(shape) > 2 else 5, "w", "b")
    shape = shape if len(shape) > 2 else [2, 5, 4]
    return Problem(
        "y = InstanceNormalization (x, w, b)", {"x": draw.normal(size=shape)}, constants, batched=batch(draw)
    )


@case
def GroupNormalization(draw: Draw) -> Problem:
    x, groups = draw.normal(size=(draw.integers(1, 4), 6, *dims(draw, 1, 2), 3)), pick(draw, 1, 2, 3, 6)
    text = f"y = GroupNormalization <num_groups = {groups}, stash_type = TO> (x, w, b)"
    return Problem(text, {"x": x}, by_channel(draw, 6, "w", "b"), batched=batch(draw), opset=21)


@case
def BatchNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 2, 4)]
    constants = by_channel(draw, shape[1], "w", "b", "m", "v")
    text = "y = BatchNormalization (x, w, b, m, v)"
    return Problem(text, {"x": draw.normal(size=shape)}, constants, batched=batch(draw))


def reduced(draw: Draw, operator: str) -> Problem:
    shape, keep = dims(draw, 1, 4), int(draw.integers(2))
    axes = np.sort(draw.choice(len(shape), draw.integers(1, len(shape) + 1), replace=False))
    axes = np.where(draw.random(axes.shape) < 0.5, axes, axes - len(shape))
    x, known = {"x": draw.normal(size=shape)}, batch(draw)
    if draw.random() < 0.2:
        return Problem(f"y = {operator} <keepdims = {keep}> (x)", x, batched=known)
    if operator != "ReduceSum" and draw.random() < 0.5:
        return Problem(f"y = {operator} <keepdims = {keep}, axes = {axes.tolist()}> (x)", x, batched=known, opset=17)
    return Problem(f"y = {operator} <keepdims = {keep}> (x, a)", x, {"a": axes}, batched=known)


for name in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp"):
    CASES[f"Reduce{name}"] = lambda draw, name=name: reduced(draw, f"Reduce{name}")


@case
def Concat(draw: Draw) -> Problem:
    shape = dims(draw)
    axis = int(draw.integers(-len(shape), len(shape)))
    parts = {}
    for name in ("x", "u", "v")[: draw.integers(1, 4)]:
        shape[axis] = int(draw.integers(1, 4))
        parts[name] = draw.normal(size=shape)
    return Problem(f"y = Concat <axis = {axis}> ({', '.join(parts)})", parts, batched=batch(draw, *parts))


@case
def Split(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 4), 5))}
    nodes = pick(draw, "y = Mul (a, a)", "t = Exp (c) y = Add (a, t)")
    return Problem(f"a, b, c = Split <axis = 1> (x, s) {nodes}", x, {"s": np.array([2, 1, 2])}, batched=batch(draw))


@case
def Slice(draw: Draw) -> Problem:
    shape = [int(n) for n in draw.integers(3, 6, draw.integers(1, 4))]
    axis = int(draw.integers(len(shape)))
    starts, ends, step = pick(draw, (1, 9, 1), (-2, 2**62, 1), (0, -1, 1), (0, 9, 2), (-1, -9, -1), (-1, 0, -2))
    numbers = {key: np.array([n]) for key, n in (("a", starts), ("b", ends), ("c", axis), ("d", step))}
    return Problem("y = Slice (x, a, b, c, d)", {"x": draw.normal(size=shape)}, numbers, batched=batch(draw))


@case
def Pad(draw: Draw) -> Problem:
    shape = [int(n) for n in draw.integers(3, 6, draw.integers(1, 4))]
    mode, low = pick(draw, ("constant", -1), ("constant", 0), ("reflect", 0), ("edge", 0))
    pads = draw.integers(low, 3, 2 * len(shape))
    return Problem(
        f'y = Pad <mode = "{mode}"> (x, p)', {"x": draw.normal(size=shape)}, {"p": pads}, batched=batch(draw)
    )


@case
def Transpose(draw: Draw) -> Problem:
    shape = dims(draw)
    perm = f" <perm = {draw.permutation(len(shape)).tolist()}>" if draw.random() < 0.7 else ""
    return Problem(f"y = Transpose{perm} (x)", {"x": draw.normal(size=shape)}, batched=batch(draw))


def reshaped(draw: Draw, node: str, *numbers: int) -> Problem:
    x = draw.normal(size=(2, 1, draw.integers(1, 5), 1, 3))
    return Problem(f"y = {node}", {"x": x}, {"s": np.array(numbers)} if numbers else {}, batched=batch(draw))


CASES["Reshape"] = lambda draw: reshaped(draw, "Reshape (x, s)", *pick(draw, (-1,), (0, -1), (0, 0, -1, 1)))
CASES["Flatten"] = lambda draw: reshaped(draw, f"Flatten <axis = {draw.integers(0, 5)}> (x)")
CASES["Squeeze"] = lambda draw: reshaped(draw, "Squeeze (x, s)", *pick(draw, (1,), (1, 3), (-2,)))
CASES["Unsqueeze"] = lambda draw: reshaped(draw, "Unsqueeze (x, s)", *pick(draw, (1,), (0, 3), (-1,)))
CASES["Dropout"] = lambda draw: reshaped(draw, "Dropout (x)")


@case
def Expand(draw: Draw) -> Problem:
    shape = dims(draw)
    return Problem("y = Expand (x, s)", {"x": draw.normal(size=stretched(draw, shape))}, {"s": np.array(shape)})


@case
def Tile(draw: Draw) -> Problem:
    shape = dims(draw, 1, 3)
    return Problem("y = Tile (x, s)", {"x": draw.normal(size=shape)}, {"s": draw.integers(1, 4, len(shape))})


@case
def Gather(draw: Draw) -> Problem:
    shape = dims(draw, 1, 3)
    axis = int(draw.integers(len(shape)))
    places = draw.integers(-shape[axis], shape[axis], dims(draw, 0, 2))
    known = batch(draw) if axis else ()
    return Problem(f"y = Gather <axis = {axis}> (x, i)", {"x": draw.normal(size=shape)}, {"i": places}, batched=known)


@case
def GatherElements(draw: Draw) -> Problem:
    places = draw.integers(-4, 4, (3, draw.integers(1, 6)))
    return Problem("y = GatherElements <axis = 1> (x, i)", {"x": draw.normal(size=(3, 4))}, {"i": places})


@case
def GatherND(draw: Draw) -> Problem:
    places = draw.integers(-3, 3, (draw.integers(1, 6), draw.integers(1, 3)))
    return Problem("y = GatherND (x, i)", {"x": draw.normal(size=(3, 3, 2))}, {"i": places})


@case
def DepthToSpace(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 3), 4 * draw.integers(1, 4), 2, 3))}
    return Problem(f'y = DepthToSpace <blocksize = 2, mode = "{pick(draw, "DCR", "CRD")}"> (x)', x, batched=batch(draw))


@case
def SpaceToDepth(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 3), draw.integers(1, 4), 4, 2 * draw.integers(1, 4)))}
    return Problem("y = SpaceToDepth <blocksize = 2> (x)", x, batched=batch(draw))


@case
def Cast(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=dims(draw))}
    return Problem("t = Cast <to = 11> (x) u = Mul (t, t) y = Cast <to = TO> (u)", x, batched=batch(draw))


QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}  # see test_gradients_of_quantizers.py


def test_every_rule_is_checked() -> None:
    assert CASES.keys() | QUANTIZERS == RULES.keys()


@pytest.mark.parametrize("name", CASES)
def test_rule_agrees_with_finite_differences(name: str) -> None:
    for seed in range(SHAPES):
        problem = CASES[name](np.random.default_rng([seed, *name.encode()]))
        assert f"{name} " in problem.nodes or name == "Sum"
        assert error_of(problem, seed) <= BOUND, (seed, problem)
