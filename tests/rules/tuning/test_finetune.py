"""Fine-tuning: every kind of layer, what may change and what may not, and that nothing ever gets worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from newer_onnxruntime import needs_opset
from quantized_models import constants, run, settings
from text_models import normal, text_model
from tuning_cases import Case, case, draw, same, tuned

from quark_onnx import ModelQuantizer
from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound, Nearest
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.layers import Unit, match
from quark_onnx.graph import Model
from quark_onnx.numerics import activation_functions as f
from quark_onnx.numerics.layer.im2col import every_position, patches
from quark_onnx.numerics.quantizer import dequantize, quantize
from quark_onnx.stages.finetune.layer_statistics import most_positions

ROUND = AdaRound(num_iterations=40, polish=2)
QUANT = AdaQuant(num_iterations=40)
QUICK = AdaRound()


def conv(x: str, w: tuple[int, ...], op: str = "Conv", **attributes: Any) -> tuple[str, dict[str, Any], Any]:
    """A net of one convolution with a bias: text, constants, shape of a sample (without the batch)."""
    shape = tuple(int(n) for n in x.split("x"))
    given = ", ".join(f"{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in ({"group": 1} | attributes).items())
    channels = w[0] if op == "Conv" else w[1] * attributes.get("group", 1)
    dims = ", ".join(["N", *map(str, shape)])
    out = ", ".join("NCABD"[: len(shape) + 1])
    text = f"g (float[{dims}] x) => (float[{out}] y) {{ [n] y = {op} <{given}> (x, w, b) }}"
    return text, {"w": normal(*w), "b": normal(channels)}, shape


def matrix(nodes: str, w: tuple[int, ...], x: str, y: str, **more: Any) -> tuple[str, dict[str, Any], Any]:
    shape = tuple(int(n) for n in x.split("x"))
    text = f"g (float[N, {', '.join(map(str, shape))}] x) => (float[{y}] y) {{ {nodes} }}"
    return text, {"w": normal(*w), **more}, shape


GEMM = "[n] y = Gemm (x, w, b)"
LAYERS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "Conv": conv("4x6x6", (5, 4, 3, 3)),
    "Conv 1d, strided, dilated": conv("4x13", (5, 4, 3), strides=(2,), dilations=(2,), pads=(1, 2)),
    "Conv 3d": conv("2x4x4x4", (3, 2, 2, 2, 2), pads=(1, 0, 0, 0, 0, 1)),
    "Conv 2d, all attributes": conv(
        "4x9x8", (6, 2, 3, 2), group=2, strides=(2, 1), dilations=(1, 2), pads=(0, 1, 2, 1)
    ),
    "Conv, depthwise": conv("4x6x6", (4, 1, 3, 3), group=4, pads=(1, 1, 1, 1)),
    "Conv, depthwise with multiplier": conv("3x6x6", (6, 1, 3, 3), group=3),
    "Conv 1x1": conv("4x5x5", (3, 4, 1, 1)),
    "Conv, SAME_UPPER": conv("3x7x6", (4, 3, 2, 3), auto_pad='"SAME_UPPER"', strides=(2, 2)),
    "Conv, SAME_LOWER": conv("3x7x6", (4, 3, 2, 3), auto_pad='"SAME_LOWER"', strides=(2, 2)),
    "Conv, VALID": conv("3x7x6", (4, 3, 2, 3), auto_pad='"VALID"', strides=(3, 2)),
    "ConvTranspose": conv("4x5x5", (4, 3, 3, 3), "ConvTranspose"),
    "ConvTranspose 1d, all attributes": conv(
        "4x6", (4, 3, 3), "ConvTranspose", group=2, strides=(3,), dilations=(2,), pads=(1, 2), output_padding=(1,)
    ),
    "ConvTranspose, SAME_UPPER": conv("3x4x5", (3, 2, 3, 4), "ConvTranspose", auto_pad='"SAME_UPPER"', strides=(2, 2)),
    "ConvTranspose, SAME_LOWER": conv("3x4x5", (3, 2, 3, 4), "ConvTranspose", auto_pad='"SAME_LOWER"', strides=(2, 2)),
    "ConvTranspose, output_shape": conv("3x4", (3, 2, 4), "ConvTranspose", output_shape=(7,), strides=(2,)),
    "ConvTranspose, larger output_shape": conv("3x4", (3, 2, 2), "ConvTranspose", output_shape=(13,), strides=(4,)),
    "ConvTranspose, output_shape and SAME_UPPER": conv(
        "3x4", (3, 2, 4), "ConvTranspose", output_shape=(7,), strides=(2,), auto_pad='"SAME_UPPER"'
    ),
    "ConvTranspose, SAME_UPPER, strides above the kernel": conv(
        "3x4", (3, 2, 2), "ConvTranspose", strides=(3,), auto_pad='"SAME_UPPER"'
    ),
    "Gemm": matrix(GEMM, (6, 5), "6", "N, 5", b=normal(5)),
    "Gemm, transB": matrix("[n] y = Gemm <transB = 1> (x, w, b)", (5, 6), "6", "N, 5", b=normal(1, 5)),
    "Gemm, one bias for all": matrix(GEMM, (6, 5), "6", "N, 5", b=normal(1)),
    "MatMul": matrix("[n] y = MatMul (x, w)", (6, 5), "6", "N, 5"),
    "MatMul, batches": matrix("[n] y = MatMul (x, w)", (6, 5), "2x3x6", "N, 2, 3, 5"),
    "MatMul, weight on the left": matrix("[n] y = MatMul (w, x)", (5, 6), "6x3", "N, 5, 3"),
    "MatMul and Add": matrix("[n] h = MatMul (x, w) [a] y = Add (b, h)", (6, 5), "3x6", "N, 3, 5", b=normal(5)),
}
SINGLE = {
    "Conv": conv("6x6x6", (8, 6, 3, 3)),
    "ConvTranspose": conv("6x6x6", (6, 8, 3, 3), "ConvTranspose"),
    "Gemm": matrix(GEMM, (32, 8), "32", "N, 8", b=normal(8)),
    "MatMul and Add": matrix("[n] h = MatMul (x, w) [a] y = Add (b, h)", (32, 8), "9x32", "N, 9, 8", b=normal(8)),
}

FORMATS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8 per channel": {"per_channel": True},
    "uint8 per channel": {"weight_type": "uint8", "activation_type": "uint8", "per_channel": True},
    "uint4": {"weight_type": "uint4", "activation_type": "uint8"},
    "int4 per channel": {"weight_type": "int4", "activation_type": "uint8", "per_channel": True},
}
EACH = {f"{name}, int4 per channel": (layer, FORMATS["int4 per channel"]) for name, layer in LAYERS.items()}
EACH |= {f"{name}, {kind}": (SINGLE[name], FORMATS[kind]) for name in SINGLE for kind in FORMATS}
"""All layers in one format, and all formats on the main ones; `test_random_nets` mixes them freely."""


def of(layer: tuple[str, dict[str, Any], Any], count: int = 12, behind: str = "", **fields: Any) -> Case:
    """One layer, or one and what stands behind it: nodes that make `y` of `h`."""
    text, arrays, shape = layer
    if behind:
        text = text.replace("y = ", "h = ").replace("}", f"{behind} }}")
    return case(text, draw((1, *shape), count), arrays, **fields)


def unit_of(made: Case) -> Unit:
    (unit,) = match(made.model, made.plan, AdaRound().target_op_type)[0].values()
    return unit


def rewired(unit: Unit, model: Model, x: np.ndarray) -> np.ndarray:
    """(positions, outputs) of the layer as fine-tuning sees it: rows of the weight times patches of the input."""
    arrays = constants(model)
    rows = unit.geometry.rows(arrays[unit.weight])
    np.testing.assert_array_equal(unit.geometry.weight(rows, arrays[unit.weight]), arrays[unit.weight])
    found = []
    for sample in unit.geometry.samples(x):
        shape = unit.geometry.shape(sample)
        if shape is None:
            z = sample.reshape(1, -1, sample.shape[-1])
        else:
            size = shape.output_size(sample.shape[1:])
            z = patches(sample, every_position(size), shape)
        y = z @ np.swapaxes(rows, 1, 2)
        found.append(np.moveaxis(y, 0, 1).reshape(y.shape[1], -1))
    bias = 0 if unit.bias is None else arrays[unit.bias].reshape(-1)
    return np.concatenate(found) + bias


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_layer_is_the_matrix_product_that_fine_tuning_takes_it_for(layer: Any) -> None:
    made = of(layer, 2)
    unit = unit_of(made)
    (want,) = run(made.model, made.feeds[0])
    got = rewired(unit, made.model, made.feeds[0]["x"])
    if unit.node.op_type in ("Conv", "ConvTranspose"):
        want = np.moveaxis(want, 1, -1)
    elif unit.node.inputs[0] is not None and unit.node.inputs[0].name == unit.weight:
        want = np.swapaxes(want, -1, -2)
    np.testing.assert_allclose(got, want.reshape(got.shape), atol=1e-5)


def test_a_gemm_that_reads_its_input_transposed() -> None:
    text = "g (float[6, N] x) => (float[N, 5] y) { [n] y = Gemm <transA = 1> (x, w, b) }"
    made = case(text, draw((6, 8), 12), {"w": normal(6, 5), "b": normal(5)}, weight_type="int4")
    (want,) = run(made.model, made.feeds[0])
    np.testing.assert_allclose(rewired(unit_of(made), made.model, made.feeds[0]["x"]), want, atol=1e-5)
    assert [record.node for record in tuned(made, ROUND).records] == ["n"]


@pytest.mark.parametrize(("layer", "kind"), EACH.values(), ids=EACH)
def test_every_kind_of_layer_is_tuned_and_in_every_format(layer: Any, kind: dict[str, Any]) -> None:
    made = of(layer, **kind)
    for options in (ROUND, QUANT):
        done = tuned(made, options)
        assert [record.node for record in done.records] == ["n"]
        assert not done.reasons
        assert not done.interrupted


@pytest.mark.parametrize("name", [name for name in EACH if ", int8" not in name])
def test_adaround_chooses_one_of_two_codes(name: str) -> None:
    """But where pairs of int8 codes must not saturate."""
    layer, kind = EACH[name]
    made = of(layer, **kind)
    plan = tuned(made, replace(ROUND, scale_search=False)).plan
    for tensor, coded in plan.codes.items():
        q, form = plan.qparams_of(tensor), plan.sites[tensor].format
        assert np.array_equal(q.scale, made.plan.qparams_of(tensor).scale)
        weight = constants(made.model)[tensor]
        along = [1] * weight.ndim
        if form.axis is not None:
            along[form.axis] = -1
        scale, zero = q.scale.reshape(along or ()), q.zero_point.reshape(along or ())
        down = np.floor(weight / scale)
        low, high = (np.clip(code + zero, form.lo, form.hi) for code in (down, down + 1))
        assert ((coded.codes == low) | (coded.codes == high)).all()


@pytest.mark.parametrize("options", [ROUND, QUANT], ids=["adaround", "adaquant"])
@pytest.mark.parametrize("layer", SINGLE.values(), ids=SINGLE)
def test_tuning_pays(layer: Any, options: Any) -> None:
    """With enough correlated data the learned rounding wins, and new data agree: 4-bit weights, 400 positions."""
    kind = {"weight_type": "int4", "activation_type": "uint8"}
    count = 48 if len(layer[2]) == 3 else 400
    made = of(layer, count, **kind)
    done = tuned(made, replace(options, num_iterations=200))
    assert done.plan.codes.keys() == {"w"}
    fresh = draw((1, *layer[2]), 40, seed=1)

    def error(plan: Plan) -> float:
        model = apply(made.model, plan)
        return sum(float(np.square(run(model, x)[0] - run(made.model, x)[0]).sum()) for x in fresh)

    assert error(done.plan) < 0.8 * error(made.plan)


ACTIVATIONS: dict[str, tuple[str, f.Activation]] = {
    "none": ("[e] y = Erf (h)", f.Activation()),
    "Relu": ("[r] y = Relu (h)", f.Relu()),
    "Relu6": ("[r] y = Clip (h, zero, six)", f.Clip(0.0, 6.0)),
    "Clip, shifted": ("[r] y = Clip (h, one, six)", f.Clip(1.0, 6.0)),
    "Clip, above": ("[r] y = Clip (h, , six)", f.Clip(high=6.0)),
    "Clip, below": ("[r] y = Clip (h, one)", f.Clip(1.0)),
    "LeakyRelu": ("[r] y = LeakyRelu <alpha = 0.2> (h)", f.LeakyRelu(0.2)),
    "PRelu": ("[r] y = PRelu (h, slope)", f.PRelu(normal(1, 5))),
    "PRelu, one": ("[r] y = PRelu (h, six)", f.LeakyRelu(6.0)),
    "Sigmoid": ("[r] y = Sigmoid (h)", f.Sigmoid()),
    "HardSwish": (
        "[r] y = HardSwish (h)",
        f.Activation(),
    ),  # becomes Add, Clip and Mul, which read what the layer gives
    "HardSigmoid": ("[r] y = HardSigmoid <alpha = 0.25> (h)", f.HardSigmoid(0.25)),
    "Tanh": ("[r] y = Tanh (h)", f.Tanh()),
    "Gelu": ("[r] y = Gelu (h)", f.Gelu()),
    "Gelu, tanh": ('[r] y = Gelu <approximate = "tanh"> (h)', f.Gelu(True)),
    "computed slope": ("[a] s = ReduceMax <keepdims = 0> (x) [r] y = PRelu (h, s)", f.Activation()),
    "two readers": ("[r] r = Relu (h) [a] y = Mul (r, h)", f.Activation()),
}
NUMBERS = {"zero": np.float32(0), "one": np.float32(1), "six": np.float32(6)}
SLOPES = {"Conv": normal(1, 5).reshape(5, 1, 1), "Gemm": normal(1, 5).reshape(5)}


def with_numbers(name: str) -> tuple[str, dict[str, Any], Any]:
    text, arrays, shape = LAYERS[name]
    return text, {**arrays, **NUMBERS, "slope": SLOPES[name]}, shape


def assert_same_function(found: f.Activation, wanted: f.Activation) -> None:
    assert found.active == wanted.active
    v = 4 * normal(1, 50, 5)
    np.testing.assert_array_equal(found.value(v), wanted.value(v))
    np.testing.assert_array_equal(found.rows(slice(1, 4)).value(v[..., 1:4]), wanted.value(v)[..., 1:4])


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize(("behind", "wanted"), ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_the_activation_behind_a_layer_is_found(name: str, behind: str, wanted: f.Activation) -> None:
    made = of(with_numbers(name), behind=behind)
    assert_same_function(unit_of(made).activation, wanted)
    for options in (ROUND, replace(ROUND, objective="sampled"), replace(QUANT, objective="sampled")):
        assert [record.node for record in tuned(made, options).records] == ["n"]


BETWEEN = {
    "Pad": ("[p] p = Pad (h, pads)", True),
    "MaxPool": ("[p] p = MaxPool <kernel_shape = [2, 2]> (h)", True),
    "AveragePool": ("[p] p = AveragePool <kernel_shape = [2, 2]> (h)", True),
    "GlobalAveragePool": ("[p] p = GlobalAveragePool (h)", True),
    "pool and pad": ("[o] o = MaxPool <kernel_shape = [2, 2]> (h) [p] p = Pad (o, pads)", True),
    "Transpose": ("[p] p = Transpose <perm = [0, 2, 3, 1]> (h)", True),
    "Reshape": ("[p] p = Reshape (h, size)", True),
    "Flatten": ("[p] p = Flatten (h)", True),
    "Add": ("[p] p = Add (h, h)", False),
    "Softmax": ("[p] p = Softmax (h)", False),
}
MOVERS = {"pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]), "size": np.int64([1, -1, 5])}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("clamp", ["Relu (p)", "Clip (p, zero, six)", "PRelu (p, slope)"])
def test_the_activation_is_found_through_what_moves_values(name: str, clamp: str) -> None:
    """The slopes of a PRelu belong to channels: when these have moved, errors count as they are."""
    between, found = BETWEEN[name]
    text, arrays, shape = with_numbers("Conv")
    if name in ("Transpose", "Reshape"):
        arrays = {**arrays, "slope": normal(5)}
    elif name == "Flatten":
        arrays = {**arrays, "slope": normal(80)}
    made = of((text, {**arrays, **MOVERS}, shape), behind=f"{between} [r] y = {clamp}")
    wanted = {"R": f.Relu(), "C": f.Clip(0.0, 6.0), "P": f.PRelu(normal(1, 5))}[clamp[0]]
    moved = clamp[0] == "P" and name in ("Transpose", "Reshape", "Flatten")
    assert_same_function(unit_of(made).activation, wanted if found and not moved else f.Activation())
    tuned(made, ROUND)


def test_layers_that_are_not_tuned_are_listed_with_the_reason() -> None:
    text = """g (float[N, 4, 6] x) => (float[N, 4, 6] y, float[N, 4, 4] z) {
        [a] a = MatMul (x, w)
        [t] t = Transpose <perm = [0, 2, 1]> (x)
        [both] z = MatMul (x, t)
        [out] b = MatMul (a, w2)
        [big] y = MatMul (stack, b)
    }"""
    arrays = {"w": normal(6, 6), "w2": normal(6, 6), "stack": normal(1, 4, 4)}
    made = case(text, draw((1, 4, 6), 6), arrays, nodes_to_exclude=["out"])
    done = tuned(made, ROUND)
    assert [record.node for record in done.records] == ["a"]
    assert done.reasons == {
        "both": "both inputs are activations",
        "out": f"not quantized: {made.plan.notes['out']}",
        "big": "the weight is not a matrix, or the input has fewer than two axes",
    }
    only = tuned(made, replace(ROUND, target_op_type=("Conv",)))
    assert not only.records
    assert not only.reasons
    assert same(only.plan, made.plan)


NET = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu] b = Relu (a)
    [two] c = Conv <group = 6> (b, w2, b2)
    [six] d = Clip (c, zero, six)
    [three] e = Conv (d, w3)
    [add] f = LeakyRelu (e)
    [pool] p = GlobalAveragePool (f)
    [flat] q = Flatten (p)
    [head] y = Gemm (q, w4, b4)
}"""
NET_ARRAYS = {
    "w1": normal(6, 3, 3, 3),
    "b1": normal(6),
    "w2": normal(6, 1, 3, 3),
    "b2": normal(6, seed=1),
    "w3": normal(5, 6, 1, 1),
    "w4": normal(5, 4),
    "b4": normal(4),
    "zero": np.float32(0),
    "six": np.float32(6),
}
NAMES = ["one", "two", "three", "head"]
FEW = {"weight_type": "int4", "activation_type": "uint8"}


def net(count: int = 16, **fields: Any) -> Case:
    return case(NET, draw((1, 3, 8, 8), count), NET_ARRAYS, **FEW | fields)


@pytest.mark.parametrize("options", [ROUND, QUANT], ids=["adaround", "adaquant"])
@pytest.mark.parametrize("seed", range(3))
def test_sixteen_samples_do_no_harm(options: Any, seed: int) -> None:
    """On new data the net is not worse than without tuning: the samples held out stop what was learned by heart."""
    made = case(NET, draw((1, 3, 8, 8), 16, seed=seed), NET_ARRAYS, **FEW)
    done = tuned(made, options)
    fresh = draw((1, 3, 8, 8), 32, seed=seed + 10)
    want = [run(made.model, x)[0] for x in fresh]

    def error(plan: Plan) -> float:
        model = apply(made.model, plan)
        return sum(float(np.square(run(model, x)[0] - y).sum()) for x, y in zip(fresh, want, strict=True))

    assert done.plan.codes
    assert error(done.plan) < error(made.plan)


def test_each_layer_is_tuned_against_what_the_tuned_layers_before_it_make() -> None:
    """With the first layer's plan given, tuning the rest gives the same; in parallel it does not matter."""
    made = net()
    first = tuned(made, replace(ROUND, target_op_type=("Conv",))).plan
    whole = tuned(made, ROUND)
    assert [record.node for record in whole.records] == NAMES
    head = {name: coded for name, coded in whole.plan.codes.items() if name != "w4"}
    assert head.keys() == first.codes.keys()
    assert all(head[name].same(first.codes[name]) for name in head)
    apart = tuned(made, replace(ROUND, parallel=True))
    assert apart.plan.codes["w1"].same(whole.plan.codes["w1"])
    assert not same(apart.plan, whole.plan)
    alone = tuned(made, replace(ROUND, parallel=True), replace(whole.plan, codes={"w1": whole.plan.codes["w1"]}))
    assert all(alone.plan.codes[name].same(apart.plan.codes[name]) for name in apart.plan.codes)


OPTIONS = {
    "adaround": ROUND,
    "sampled": replace(ROUND, objective="sampled"),
    "adaquant": QUANT,
    "adaquant, sampled": replace(QUANT, objective="sampled", batch_size=2),
    "half of the data": replace(ROUND, drop_ratio=0.5),
    "float data": replace(ROUND, drop_ratio=0.0),
    "parallel": replace(ROUND, parallel=True),
    "other seed": replace(ROUND, fixed_seed=1),
    "few positions": replace(ROUND, positions=64),
    "data_size": replace(ROUND, data_size=5),
    "larger rate": replace(ROUND, lr_adjust=(0.0, 1.0), scale_search=False, polish=0),
    "usual rate": replace(ROUND, lr_adjust=(1e9, 1.0), scale_search=False, polish=0),
    "no biases": replace(ROUND, update_bias=False),
    "half held out": replace(ROUND, holdout=0.5),
    "rates of the weights": AdaQuant(num_iterations=40, learning_rate=1e-3, rate_unit="weight"),
}


def test_every_option_changes_something_and_twice_the_same_is_the_same() -> None:
    made = net()
    plans = {}
    for name, options in OPTIONS.items():
        done, again = (tuned(made, options) for _ in "ab")
        assert same(done.plan, again.plan), name
        assert [replace(r, seconds=0.0) for r in done.records] == [replace(r, seconds=0.0) for r in again.records]
        assert [record.node for record in done.records] == NAMES
        plans[name] = done.plan
    alike = [(a, b) for a in plans for b in plans if a < b and same(plans[a], plans[b])]
    assert alike == []


def test_biases_stay_with_update_bias_false() -> None:
    done = tuned(net(), replace(ROUND, update_bias=False))
    assert done.plan.codes
    assert not done.plan.values
    assert tuned(net(), ROUND).plan.values


def test_bias_correction_alone_changes_values_only() -> None:
    made = net(BiasCorrection=True)
    done = tuned(made, Nearest(scale_search=False))
    assert not done.plan.codes
    assert done.plan.values
    assert {record.choice for record in done.records} <= {"raw", "untuned"}
    assert all(record.iterations == 0 for record in done.records)


def test_a_layer_without_a_bias_gets_one_only_when_it_is_tuned() -> None:
    made = net()
    (zeros,) = constants(made.model).keys() - NET_ARRAYS.keys()
    assert not constants(made.model)[zeros].any()
    assert made.plan.sites[zeros].role == "bias"
    assert tuned(made, ROUND).plan.values[zeros].any()
    model = text_model(NET, 20, **NET_ARRAYS)
    plain = ModelQuantizer(settings(include_cle=False)).quantize_model(model, None, made.feeds)
    assert not any(tensor.startswith("three") for tensor in plain.plan.sites)
    bare = text_model(
        "g (float[N, 3, 6] x) => (float[N, 3, 6] y) { [a] h = MatMul (x, w) [r] y = Relu (h) }", w=normal(6, 6)
    )
    found = ModelQuantizer(settings(include_fast_ft=True, FastFinetune=ROUND)).quantize_model(
        bare, None, draw((1, 3, 6), 8)
    )
    assert not found.plan.values
    assert [record.node for record in found.report.tuned] == ["a"]


def test_a_bias_that_two_layers_read_moves_for_each_alone() -> None:
    """Preparing copies it for convolutions; the one of two Adds stays as it was."""
    text = """g (float[N, 4, 6] x) => (float[N, 5, 4] y, float[N, 5, 4] z) {
        [a] y = Conv (x, w, b) [b] z = Conv (x, v, b)
    }"""
    made = case(text, draw((1, 4, 6), 24), {"w": normal(5, 4, 3), "v": normal(5, 4, 3, seed=1), "b": normal(5)}, **FEW)
    assert len(tuned(made, ROUND).plan.values) == 2
    text = """g (float[N, 4, 6] x) => (float[N, 4, 5] y, float[N, 4, 5] z) {
        [a] h = MatMul (x, w) [b] y = Add (h, b) [c] k = MatMul (x, v) [d] z = Add (k, b)
    }"""
    made = case(text, draw((1, 4, 6), 24), {"w": normal(6, 5), "v": normal(6, 5, seed=1), "b": normal(5)}, **FEW)
    done = tuned(made, ROUND)
    assert [record.node for record in done.records] == ["a", "c"]
    assert not done.plan.values


SHARED = {
    "Conv": """g (float[N, 4, 9] x) => (float[N, 4, 5] y) {
        [a] h = Conv (x, w, b) [r] r = Relu (h) [b] y = Conv (r, w, c)
    }""",
    "Gemm": """g (float[N, 4] x) => (float[N, 4] y) {
        [a] h = Gemm (x, w, b) [r] r = Relu (h) [b] y = Gemm (r, w, c)
    }""",
    "MatMul": """g (float[N, 5, 4] x) => (float[N, 5, 4] y) {
        [a] h = MatMul (x, w) [ab] g = Add (h, b) [r] r = Relu (g) [b] k = MatMul (r, w) [bb] y = Add (k, c)
    }""",
}


@pytest.mark.parametrize("options", [ROUND, QUANT], ids=["adaround", "adaquant"])
@pytest.mark.parametrize("name", SHARED)
def test_a_shared_weight_is_tuned_once_and_both_biases_move(name: str, options: Any) -> None:
    shape = {"Conv": (1, 16, 9), "Gemm": (64, 16), "MatMul": (1, 5, 16)}[name]
    weight = normal(16, 16, 3) if name == "Conv" else normal(16, 16)
    arrays = {"w": weight, "b": normal(16), "c": normal(16, seed=1)}
    text = SHARED[name].replace("4", "16")
    made = case(text, draw(shape, 48), arrays, **FEW)
    done = tuned(made, options)
    first, second = done.records
    assert (first.node, second.node) == ("a", "b")
    assert replace(first, node="b") == second
    assert first.accepted
    assert done.plan.codes.keys() == {"w"}
    assert len(done.plan.values) == 2
    assert all((done.plan.values[bias] != constants(made.model)[bias]).any() for bias in done.plan.values)
    sampled = tuned(made, replace(options, objective="sampled"))
    np.testing.assert_array_equal(sampled.plan.codes["w"].codes, done.plan.codes["w"].codes)
    corrected = tuned(made, Nearest(scale_search=False))
    assert not corrected.plan.codes
    assert len(corrected.plan.values) == 2
    assert [record.choice for record in corrected.records] == ["untuned"] * 2


UNLIKE = {
    "groups": """g (float[N, 6, 9] x) => (float[N, 6, 5] y) {
        [a] h = Conv <group = 2> (x, w) [m] g = Conv (h, one) [b] y = Conv (g, w)
    }""",
    "depthwise": """g (float[N, 6, 9] x) => (float[N, 6, 5] y) {
        [a] h = Conv <group = 6> (x, w) [m] g = Conv (h, one) [b] y = Conv (g, w)
    }""",
}


@pytest.mark.parametrize("options", [ROUND, Nearest()], ids=["adaround", "seqmse"])
@pytest.mark.parametrize("name", UNLIKE)
def test_layers_that_read_one_weight_in_several_ways_are_left(name: str, options: Any) -> None:
    """Its rows are other numbers for each, so what was summed up for one of them says nothing of the other."""
    channels = 1 if name == "depthwise" else 3
    arrays = {"w": normal(6, channels, 3), "one": normal(channels, 6, 1)}
    made = case(UNLIKE[name], draw((1, 6, 9), 24), arrays, **FEW)
    done = tuned(made, options)
    assert "w" not in done.plan.codes
    way = "which has other groups"
    assert {n: done.reasons[n] for n in "ab"} == {
        "a": f"shares its weight with 'b', {way}",
        "b": f"shares its weight with 'a', {way}",
    }


def test_a_rejected_layer_leaves_the_plan_as_it_was() -> None:
    """A judge who likes nothing: every record says so, and the plan is the very same object."""
    made = net()
    scores = iter(range(1000, 0, -1))
    done = tuned(made, ROUND, judge=lambda plan: float(next(scores)))
    assert done.plan is made.plan
    assert [record.accepted for record in done.records] == [False] * 4
    kept = tuned(made, ROUND, judge=lambda plan: len(plan.codes))
    assert all(record.accepted == (record.choice != "raw") for record in kept.records)
    assert same(kept.plan, tuned(made, ROUND).plan)
    equal = tuned(made, ROUND, judge=lambda plan: 1.0)  # as labels of few samples say; held-out samples decide
    assert same(equal.plan, kept.plan)


@pytest.mark.parametrize("objective", ["moments", "sampled"])
def test_selective_update_by_the_default_evaluator_never_lowers_the_score(objective: str) -> None:
    config = settings(
        include_fast_ft=True,
        FastFinetune=replace(ROUND, selective_update=True, objective=objective),
        **FEW,
    )
    feeds = draw((1, 3, 8, 8), 8)
    plain = replace(config, include_fast_ft=False, extra_options={})
    model = text_model(NET, 20, **NET_ARRAYS)
    with_, without = (ModelQuantizer(c).quantize_model(model, None, feeds) for c in (config, plain))
    assert min(with_.report.sqnr.values()) >= min(without.report.sqnr.values())
    assert any(record.accepted for record in with_.report.tuned)


def test_selective_update_by_the_evaluator_of_the_user() -> None:
    config = settings(include_fast_ft=True, FastFinetune=replace(ROUND, selective_update=True), **FEW)
    model, feeds = text_model(NET, 20, **NET_ARRAYS), draw((1, 3, 8, 8), 8)
    seen = []

    def lower(candidate: Any) -> float:
        seen.append(candidate)
        return -len(seen)

    with pytest.raises(ConfigError, match="an evaluator judges layers for SelectiveUpdate"):
        ModelQuantizer(settings(include_fast_ft=True, FastFinetune=ROUND), evaluator=lower)
    result = ModelQuantizer(config, evaluator=lower).quantize_model(model, None, feeds)
    assert not result.plan.codes
    assert not result.plan.values
    assert len(seen) == 1 + sum(record.choice != "raw" for record in result.report.tuned)
    raw, *others = (m.SerializeToString(deterministic=True) for m in seen)
    assert raw == result.model.SerializeToString(deterministic=True)
    assert raw not in others


class Stop:
    """A progress callback that presses Ctrl-C when layer number `at` is to begin."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage.partition(",")[0] == f"tune {NAMES[self.at]}" and done == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("at", "changes"),
    [*((at, {}) for at in range(4)), (2, {"parallel": True}), (2, {"objective": "sampled", "drop_ratio": 0.5})],
)
def test_an_interrupted_run_keeps_what_is_tuned_and_resumes_to_the_same_plan(
    at: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Bit by bit: a layer's random numbers depend on the layer, not on where the run began."""
    config = settings(include_fast_ft=True, FastFinetune=replace(ROUND, **changes), **FEW)
    model, feeds = text_model(NET, 20, **NET_ARRAYS), draw((1, 3, 8, 8), 12)
    whole = ModelQuantizer(config).quantize_model(model, None, feeds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quark_onnx.pipeline.logger.warning", lambda *text: None)
        part = ModelQuantizer(config, Stop(at)).quantize_model(model, tmp_path / "part.onnx", feeds)
    assert (tmp_path / "part.onnx").is_file()
    assert any("interrupted" in warning for warning in part.report.warnings)
    assert not any("interrupted" in warning for warning in whole.report.warnings)
    assert [record.node for record in part.report.tuned] == NAMES[:at]
    for name, coded in part.plan.codes.items():
        assert coded.same(whole.plan.codes[name])
    assert len(part.plan.codes) == sum(record.accepted for record in part.report.tuned)
    part.plan.save(tmp_path / "plan")
    resumed = ModelQuantizer(config).quantize_model(model, None, feeds, resume=tmp_path / "plan")
    assert same(resumed.plan, whole.plan)
    assert resumed.model.SerializeToString(deterministic=True) == whole.model.SerializeToString(deterministic=True)
    done = {record.node for record in part.report.tuned if record.accepted}
    assert [record.node for record in resumed.report.tuned] == [name for name in NAMES if name not in done]


@pytest.mark.parametrize("limit", [5.0, 15.0, 35.0, 1000.0])
def test_a_time_limit_ends_before_the_layer_that_does_not_fit(
    limit: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ten seconds pass with every layer; what is left goes on from there to what no limit finds."""
    seconds = count(0.0, 10.0)
    monkeypatch.setattr("quark_onnx.engine.tuning_pace.perf_counter", lambda: next(seconds))
    config = settings(include_fast_ft=True, FastFinetune=replace(ROUND, time_limit=limit), **FEW)
    endless = settings(include_fast_ft=True, FastFinetune=ROUND, **FEW)
    model, feeds = text_model(NET, 20, **NET_ARRAYS), draw((1, 3, 8, 8), 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quark_onnx.pipeline.logger.warning", lambda *text: None)
        part = ModelQuantizer(config).quantize_model(model, None, feeds)
    fits = min(4, int(limit // 10))  # the first layer begins at 10 seconds, and takes a part of one
    assert [record.node for record in part.report.tuned] == NAMES[:fits]
    told = [warning for warning in part.report.warnings if "interrupted" in warning]
    assert len(told) == (fits < 4)
    assert part.report.untuned == dict.fromkeys(NAMES[fits:], "fine-tuning ended earlier")
    for warning in told:
        assert f"by its time limit of {limit:g} s: {fits} of 4 layers are done, {NAMES[fits]!r} would take" in warning
        assert "resume with the plan of this result" in warning
    part.plan.save(tmp_path / "plan")
    whole = ModelQuantizer(endless).quantize_model(model, None, feeds)
    resumed = ModelQuantizer(endless).quantize_model(model, None, feeds, resume=tmp_path / "plan")
    assert same(resumed.plan, whole.plan)


def test_an_interrupt_elsewhere_is_not_swallowed() -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "calibrate":
            raise KeyboardInterrupt

    config = settings(include_fast_ft=True, FastFinetune=ROUND)
    with pytest.raises(KeyboardInterrupt):
        ModelQuantizer(config, stop).quantize_model(text_model(NET, 20, **NET_ARRAYS), None, draw((1, 3, 8, 8), 4))


@pytest.mark.parametrize("cle", [False, True])
def test_the_plan_of_another_model_is_refused(cle: bool, tmp_path: Path) -> None:
    config = settings(include_fast_ft=True, include_cle=cle, FastFinetune=replace(ROUND, num_iterations=5))
    feeds = draw((1, 3, 8, 8), 4)
    plan = ModelQuantizer(config).quantize_model(text_model(NET, 20, **NET_ARRAYS), None, feeds).plan
    assert bool(plan.factors) is cle
    others = {
        "numbers": text_model(NET, 20, **NET_ARRAYS | {"w1": normal(6, 3, 3, 3, seed=7)}),
        "names": text_model(NET.replace("w1", "v1").replace("w2", "v2"), 20, v1=NET_ARRAYS["w1"], v2=NET_ARRAYS["w2"],
                            **{k: a for k, a in NET_ARRAYS.items() if k not in ("w1", "w2")}),
    }  # fmt: skip
    for other in others.values():
        with pytest.raises(PlanError, match=r"plan .*make a new plan for it"):
            ModelQuantizer(config).quantize_model(other, tmp_path / "o.onnx", feeds, resume=plan)
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("cle", [False, True])
def test_a_saved_plan_applies_to_the_same_model_on_the_command_line(cle: bool, tmp_path: Path) -> None:
    import onnx
    from typer.testing import CliRunner

    from quark_onnx.cli import app

    config = settings(include_fast_ft=True, include_cle=cle, FastFinetune=ROUND)
    model = text_model(NET, 20, **NET_ARRAYS)
    onnx.save(model, tmp_path / "float.onnx")
    result = ModelQuantizer(config).quantize_model(tmp_path / "float.onnx", tmp_path / "a.onnx", draw((1, 3, 8, 8), 12))
    assert result.plan.codes
    assert bool(result.plan.factors) is cle
    result.plan.save(tmp_path / "plan", config.to_json())
    assert same(Plan.load(tmp_path / "plan"), result.plan)
    arguments = ["apply", tmp_path / "float.onnx", tmp_path / "plan", "-o", tmp_path / "b.onnx", "--quiet"]
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_same_seed_gives_the_same_bytes() -> None:
    config = settings(include_fast_ft=True, FastFinetune=replace(ROUND, objective="sampled", drop_ratio=0.5))
    model, feeds = text_model(NET, 20, **NET_ARRAYS), draw((1, 3, 8, 8), 8)
    first, second = (ModelQuantizer(config).quantize_model(model, None, feeds) for _ in "ab")
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)


def test_data_size_counts_samples_and_batches_do_not_matter() -> None:
    """Ragged batches of the same samples, and the first samples alone, are tuned alike."""
    made = net(12)
    x = np.concatenate([feed["x"] for feed in made.feeds])
    ragged = made._replace(feeds=[{"x": x[:5]}, {"x": x[5:6]}, {"x": x[6:]}])
    assert same(tuned(made, ROUND).plan, tuned(ragged, ROUND).plan)
    few = made._replace(feeds=made.feeds[:7])
    assert same(tuned(few, ROUND).plan, tuned(ragged, replace(ROUND, data_size=7)).plan)


@pytest.mark.parametrize("limit", [0, 5000, 1 << 30])
def test_the_memory_limit_changes_nothing(limit: int) -> None:
    made = net(8)
    assert same(tuned(made, ROUND, limit=limit).plan, tuned(made, ROUND).plan)


def test_one_sample_is_enough_where_it_has_several_positions() -> None:
    done = tuned(net(1), ROUND)
    assert [record.node for record in done.records] == NAMES[:3]
    assert done.reasons == {"head": "it has a single output position in all samples: give more of them"}


@pytest.mark.parametrize("options", [ROUND, QUANT, replace(QUANT, objective="sampled")])
def test_data_that_never_varies(options: Any) -> None:
    made = net(4)
    done = tuned(made._replace(feeds=made.feeds[:1] * 6), options)
    assert [record.node for record in done.records] == NAMES


@pytest.mark.parametrize("options", [ROUND, QUANT], ids=["adaround", "adaquant"])
def test_early_stop_saves_iterations_and_keeps_the_best(options: Any) -> None:
    made = net()
    long = replace(options, num_iterations=1000)
    early, late = (tuned(made, replace(long, early_stop=stop)).records for stop in (True, False))
    assert [record.iterations for record in late] == [1000] * 4
    assert sum(record.iterations for record in early) < 4000
    assert all(record.iterations <= 1000 for record in early)


def test_layers_with_groups_look_at_fewer_positions_but_enough_for_their_unknowns() -> None:
    looked = {(1, 8, 9): 20000, (256, 1, 9): 5000, (32, 4, 288): 5760, (2, 8, 2304): 20000}
    assert {shape: most_positions(shape, 20000) for shape in looked} == looked
    assert most_positions((4, 1, 9), 5) == 5


def test_images_of_several_sizes() -> None:
    """Explicit pads are tuned over all sizes; with auto_pad and strides the padding differs, and the layer is left."""
    text = """g (float[N, 3, H, W] x) => (float[N, 4, A, B] y) {
        [a] h = Conv <pads = [1, 1, 1, 1]> (x, w, b) [r] r = Relu (h)
        [s] y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (r, v, c)
    }"""
    feeds = [x for size in (6, 7, 9) for x in draw((1, 3, size, 8), 4)]
    arrays = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 4, 3, 3), "c": normal(4)}
    made = case(text, feeds, arrays, **FEW)
    done = tuned(made, ROUND)
    assert [record.node for record in done.records] == ["a"]
    assert done.reasons == {"s": "its padding differs from sample to sample"}
    shared = text.replace("(r, v, c)", "(r, w2, c)").replace("(x, w, b)", "(q, w2, b)")
    shared = shared.replace("{", "{ [q] q = Conv (x, one)", 1)
    arrays = {"w2": arrays["v"], "b": normal(4), "c": normal(4), "one": normal(4, 3, 1, 1)}
    done = tuned(case(shared, feeds, arrays, **FEW), ROUND)
    assert [record.node for record in done.records] == ["q"]
    reason = "its padding differs from sample to sample"
    assert done.reasons == {"s": reason, "a": f"shares its weight with 's': {reason}"}


def test_layers_that_no_data_reaches_are_left() -> None:
    """None of the samples that teach; with none in calibration either, it has no range and is not quantized."""
    text = """g (float[N, 6] x, int64[1] k) => (float[M, 5] y) {
        [a] h = Gemm (x, w, b) [z] z = Slice (h, zero, k) [c] m = Gemm (z, v, c) [d] y = Gemm (m, u)
    }"""
    arrays = {"w": normal(6, 6), "b": normal(6), "v": normal(6, 5), "c": normal(5), "u": normal(5, 5)}
    arrays["zero"] = np.int64([0])
    empty = [feed | {"k": np.int64([0])} for feed in draw((4, 6), 6)]
    made = case(text, [empty[0] | {"k": np.int64([3])}, *empty], arrays)
    done = tuned(made._replace(feeds=empty), ROUND)
    assert [record.node for record in done.records] == ["a"]
    assert done.reasons == dict.fromkeys("cd", "no data reaches it")
    done = tuned(case(text, empty, arrays), ROUND)
    assert done.reasons == dict.fromkeys("cd", "not quantized: 'm': no value of it was seen in calibration")


def test_a_layer_that_needs_more_than_half_of_the_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has 32 times the inputs."""
    text = """g (float[N, 2, 6, 6] x) => (float[N, 2, 2, 2] y) {
        [a] h = Conv (x, w) [r] r = Relu (h) [b] y = Conv (r, v)
    }"""
    arrays = {"w": normal(64, 2, 3, 3), "v": normal(2, 64, 3, 3)}
    made = case(text, draw((1, 2, 6, 6), 6), arrays)
    monkeypatch.setattr("quark_onnx.engine.tuning_walk.quarter_of_memory", lambda: 12 << 20)
    done = tuned(made, ROUND)
    assert [record.node for record in done.records] == ["a"]
    assert done.reasons["b"].startswith("it takes ")
    assert "more than half of the memory" in done.reasons["b"]


@pytest.mark.parametrize("options", [ROUND, QUANT, replace(QUANT, objective="sampled")])
@pytest.mark.parametrize("power", [-40, 40])
def test_the_unit_of_the_output_does_not_matter(options: Any, power: int) -> None:
    """A weight and bias times a power of two: the same codes, and the scale times it."""
    text, arrays, shape = SINGLE["Conv"]
    factor = np.float32(2.0**power)
    plans = [
        tuned(of((text, a, shape), 24, **FEW), options).plan
        for a in (arrays, {k: v * factor for k, v in arrays.items()})
    ]
    first, second = (plan.codes["w"] for plan in plans)
    np.testing.assert_array_equal(second.codes, first.codes)
    np.testing.assert_array_equal(second.scale, first.scale * factor)


@limits(max_examples=25, deadline=None)
@given(st.data())
def test_random_nets(data: st.DataObject) -> None:
    """Chains of random layers, formats and options: all that `tuned` checks holds."""
    draws: Callable[[Any], Any] = data.draw
    channels, nodes, arrays, value = 3, [], {}, "x"
    for i in range(draws(st.integers(1, 3))):
        group = draws(st.sampled_from([1, channels]))
        out = group * draws(st.integers(1, 2)) if group > 1 else draws(st.integers(1, 4))
        op = draws(st.sampled_from(["Conv", "ConvTranspose"]))
        kernel = draws(st.integers(1, 3))
        pad, stride, dilation = (draws(st.integers(low, 2)) for low in (0, 1, 1))
        shape = (out, channels // group, kernel) if op == "Conv" else (channels, out // group, kernel)
        pad = min(pad, kernel - 1)
        size = draws(st.sampled_from([1e-3, 1.0, 300.0]))
        arrays[f"w{i}"] = normal(*shape, seed=draws(st.integers(0, 9))) * np.float32(size)
        bias = f", b{i}" if draws(st.booleans()) else ""
        if bias:
            arrays[f"b{i}"] = normal(out)
        given_ = f"group = {group}, strides = [{stride}], dilations = [{dilation}], pads = [{pad}, {pad}]"
        nodes.append(f"[n{i}] h{i} = {op} <{given_}> ({value}, w{i}{bias})")
        behind = draws(st.sampled_from(["Relu", "Sigmoid", "LeakyRelu", "HardSwish", ""]))
        nodes.append(f"[a{i}] v{i} = {behind} (h{i})" if behind else f"[a{i}] v{i} = Neg (h{i})")
        value, channels = f"v{i}", out
    text = f"g (float[N, 3, 24] x) => (float[N, C, L] y) {{ {' '.join(nodes)} [end] y = Neg ({value}) }}"
    made = case(text, draw((1, 3, 24), draws(st.integers(1, 6))), arrays, **draws(st.sampled_from([*FORMATS.values()])))
    short = {"num_iterations": 10, "objective": draws(st.sampled_from(["moments", "sampled"]))}
    options = replace(
        draws(st.sampled_from([replace(ROUND, **short), replace(QUANT, **short), QUICK])),
        scale_search=draws(st.booleans()),
        parallel=draws(st.booleans()),
    )
    done = tuned(made, options)
    assert len(done.records) + len(done.reasons) == len([n for n in made.model.graph if n.name and n.name[0] == "n"])


@pytest.mark.parametrize("options", [ROUND, QUANT, replace(QUANT, objective="sampled"), QUICK])
def test_numbers_too_large_to_be_squared_are_left(options: Any) -> None:
    text, arrays, shape = LAYERS["Conv"]
    large = {name: array * np.float32(1e18) for name, array in arrays.items()}
    done = tuned(of((text, large, shape)), options)
    assert done.reasons == {"n": "the layer's input or output is not finite, or too large to be squared"}
    for size in (1e-30, 1e10, 5e17):
        scaled = {name: array * np.float32(size) for name, array in arrays.items()}
        for kind in ({}, FEW):
            assert [record.node for record in tuned(of((text, scaled, shape), **kind), options).records] == ["n"]


def test_a_shared_weight_whose_bias_would_not_fit_any_more_stays() -> None:
    """|b| takes all of int32 at the plan's scale: a smaller one, as the search would like it, is refused."""
    text = SHARED["Gemm"].replace("4", "16")
    weight = normal(16, 16)
    weight[0, 0] = 40  # the scale that is best for all others is much smaller
    arrays = {"w": weight * np.float32(1e-6), "b": np.full(16, 2e2, np.float32), "c": normal(16)}
    made = case(text, draw((64, 16), 12), arrays, weight_type="int8")
    for options in (ROUND, QUANT):
        plan = tuned(made, options).plan
        site = plan.sites["b"]
        x, w = (plan.qparams_of(factor).scale for factor in site.factors)
        assert (np.abs(plan.values.get("b", arrays["b"])) / (x * w) <= 2**30).all()


NORMS = {
    "LayerNormalization": "[n] y = LayerNormalization (h, gamma, beta)",
    "InstanceNormalization": "[n] y = InstanceNormalization (h, gamma, beta)",
}


@pytest.mark.parametrize("name", NORMS)
def test_adaquant_fits_the_scale_and_bias_of_a_normalization(name: str) -> None:
    text = f"g (float[N, 8, 6] x) => (float[N, 8, 8] y) {{ [m] h = MatMul (x, w) {NORMS[name]} }}"
    arrays = {"w": normal(6, 8), "gamma": normal(8), "beta": normal(8)}
    made = case(text, draw((1, 8, 6), 24), arrays, **FEW)
    for options in (QUANT, replace(QUANT, parallel=True), replace(QUANT, objective="sampled")):
        done = tuned(made, options)
        assert [record.node for record in done.records] == ["m", "n"]
        assert done.plan.values.keys() <= {"gamma", "beta"}
    for options in (ROUND, replace(QUANT, update_bias=False), replace(QUANT, target_op_type=("MatMul",))):
        assert [record.node for record in tuned(made, options).records] == ["m"]


NARROW = {"8-bit bias": {"Int32Bias": False}, "16-bit bias": {"Int16Bias": True}, "float bias": {"QuantizeBias": False}}
WITHOUT_RANGES = {"weights alone": {"WeightsOnly": True}, "at run time": {"use_dynamic_quant": True}}


@pytest.mark.parametrize("kind", [*NARROW.values(), *WITHOUT_RANGES.values()], ids=[*NARROW, *WITHOUT_RANGES])
@pytest.mark.parametrize("layer", SINGLE.values(), ids=SINGLE)
def test_biases_of_every_kind_and_activations_without_ranges(layer: Any, kind: dict[str, Any]) -> None:
    """Every layer is tuned and gains; a bias with a scale of its own lies on its grid."""
    made = of(layer, 96, weight_type="int4", per_channel=True, **kind)
    done = tuned(made, ROUND)
    (record,) = done.records
    assert record.accepted
    assert record.held_after < 0.9 * record.held_before
    for name, value in done.plan.values.items():
        site = done.plan.sites.get(name)
        if site is not None and site.format.bits < 32:
            q = done.plan.qparams_of(name)
            np.testing.assert_array_equal(value, dequantize(quantize(value, q, site.format), q, site.format))


def test_a_fitted_bias_stays_within_the_range_of_its_own_scale() -> None:
    """The weight of one output is far beyond its grid: the bias that would make up for it is not there in 8 bits."""
    needs_opset(25)
    text, arrays, shape = SINGLE["Gemm"]
    x = [{"x": np.abs(feed["x"]) + 5} for feed in draw((1, *shape), 24)]
    arrays = {**arrays, "b": np.full(8, 0.01, np.float32)}
    for kind, within in (({"Int32Bias": False}, True), ({"QuantizeBias": False}, False)):
        made = case(text, x, arrays, weight_type="int2", activation_type="uint8", **kind)
        values = tuned(made, ROUND).plan.values.get("b", arrays["b"])
        assert bool(np.abs(values).max() <= 0.0101) is within


def test_a_shared_weight_moves_narrow_biases_on_their_grids() -> None:
    text = """g (float[N, 8] x) => (float[N, 8] y) { [n] h = Gemm (x, w, b) [r] g = Relu (h) [m] y = Gemm (g, w, c) }"""
    arrays = {"w": normal(8, 8), "b": normal(8), "c": normal(8, seed=1)}
    made = case(text, draw((6, 8), 16), arrays, weight_type="int4", activation_type="uint8", Int32Bias=False)
    done = tuned(made, ROUND)
    assert done.plan.values.keys() & {"b", "c"}
    for name, value in done.plan.values.items():
        q, format = done.plan.qparams_of(name), done.plan.sites[name].format
        codes = quantize(value, q, format)
        assert np.abs(value - dequantize(codes, q, format)).max() <= 0.51 * float(q.scale)
