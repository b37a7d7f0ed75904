"""Range learning: what may change of a plan and what may not, and that no layer ever gets worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from quantized_models import Feed, constants, run
from text_models import normal, text_model
from tuning_cases import MEMORY, Simulated, case, draw, simulated_case

from quark_onnx.core.plan import Coded, Plan, QParams, Site
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import RangeLearning
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.apply_plan import apply
from quark_onnx.graph import Model, io
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import SMALLEST_SCALE, dequantize, quantize
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.stages.prepare import prepare
from quark_onnx.stages.range_learning import learn
from quark_onnx.stages.range_learning.learnable_ranges import Movable, biases_fit, movable
from quark_onnx.stages.weight_rounding import unsafe_weights

SHORT = RangeLearning(num_iterations=60, learning_rate=0.03, batch_size=64, positions=2000)

CONFIG = {
    "defaults": {
        "ops": {"is_output_quantized": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "per_channel_quantization": "True",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [{"op_list": ["Conv", "Relu"]}, {"op_list": ["Add", "Relu"]}],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {},
}


def simulated(
    text: str,
    feeds: list[Feed],
    arrays: Mapping[str, Any],
    weight_bits: int = 4,
    bits: int = 8,
    scheme: QuantScheme = QuantScheme.training_range_learning_with_tf_init,
    **config: Any,
) -> Simulated:
    """A model with the quantizers of a runtime configuration, and the ranges that learning begins with."""
    model = prepare(io.load(text_model(text, 20, **arrays)), opset=13, optimize=False).model
    return simulated_case(model, feeds, weight_bits, bits, scheme, CONFIG | config)


def learned(made: Any, options: RangeLearning = SHORT, plan: Plan | None = None, limit: int = MEMORY) -> Tuning:
    """Learn. What must hold for every model, plan and option is checked here."""
    start = made.plan if plan is None else plan
    before = io.fingerprint(made.model)
    done = learn(made.model, start, made.feeds, options, limit, lambda *said: None)
    assert io.fingerprint(made.model) == before
    assert_only_learned(made.model, start, done.plan)
    for record in done.records:
        assert record.held_after < record.held_before if record.accepted else record.held_after == record.held_before
        assert record.choice == ("tuned" if record.accepted else "raw")
    assert not {record.node for record in done.records} & done.reasons.keys()
    return done


def assert_only_learned(model: Model, before: Plan, after: Plan) -> None:
    """Ranges, codes and biases alone, all of them within their formats."""
    for name in ("model", "sites", "nodes", "notes", "remarks", "factors", "shifts"):
        assert getattr(after, name) == getattr(before, name)
    assert after.qparams.keys() == before.qparams.keys()
    for site in after.sites.values():
        if site.group not in after.qparams:
            continue
        q, old = after.qparams[site.group], before.qparams[site.group]
        assert q.scale.dtype == np.float32
        assert q.scale.shape == old.scale.shape
        assert (q.scale >= SMALLEST_SCALE).all()
        assert q.zero_point.dtype == np.int32
        assert ((q.zero_point >= site.format.lo) & (q.zero_point <= site.format.hi)).all()
        assert not site.format.symmetric or np.array_equal(q.zero_point, old.zero_point)
        assert site.range is None or q.same(old)
    floats = constants(model)
    for tensor, coded in after.codes.items():
        site = after.sites[tensor]
        assert coded.codes.shape == floats[tensor].shape
        assert site.format.lo <= coded.codes.min() <= coded.codes.max() <= site.format.hi
        np.testing.assert_array_equal(coded.scale, after.qparams[site.group].scale)
    for value in after.values.values():
        assert np.isfinite(value).all()
        assert value.dtype == np.float32
    io.check(apply(model, after))


def conv(x: str, w: tuple[int, ...], op: str = "Conv", **attributes: Any) -> tuple[str, dict[str, Any], Any]:
    shape = tuple(int(n) for n in x.split("x"))
    given = ", ".join(f"{k} = {v}" for k, v in ({"group": 1} | attributes).items())
    channels = w[0] if op == "Conv" else w[1] * attributes.get("group", 1)
    text = f"g (float[N, {x.replace('x', ', ')}] x) => (float[{', '.join('NCABD'[: len(shape) + 1])}] y) "
    return text + f"{{ [n] y = {op} <{given}> (x, w, b) }}", {"w": normal(*w), "b": normal(channels)}, shape


def matrix(node: str, w: tuple[int, ...], x: str, y: str, **more: Any) -> tuple[str, dict[str, Any], Any]:
    text = f"g (float[N, {x.replace('x', ', ')}] x) => (float[{y}] y) {{ {node} }}"
    return text, {"w": normal(*w)} | more, tuple(int(n) for n in x.split("x"))


LAYERS = {
    "Conv": conv("4x6x6", (5, 4, 3, 3), pads=[1, 1, 1, 1]),
    "Conv 1d, strided": conv("4x13", (5, 4, 3), strides=[2], dilations=[2]),
    "Conv, depthwise": conv("4x6x6", (4, 1, 3, 3), group=4),
    "Conv, groups": conv("4x6x6", (6, 2, 3, 3), group=2),
    "ConvTranspose, groups": conv("4x5x5", (4, 3, 3, 3), "ConvTranspose", group=2, strides=[2, 2]),
    "Gemm": matrix("[n] y = Gemm (x, w, b)", (6, 5), "6", "N, 5", b=normal(5)),
    "Gemm, one bias for all": matrix("[n] y = Gemm <transB = 1> (x, w, b)", (5, 6), "6", "N, 5", b=normal(1)),
    "MatMul": matrix("[n] y = MatMul (x, w)", (6, 5), "2x3x6", "N, 2, 3, 5"),
}


def of(name: str, count: int = 24, **fields: Any) -> Simulated:
    text, arrays, shape = LAYERS[name]
    return simulated(text, draw((1, *shape), count), arrays, **fields)


LONG = replace(SHORT, num_iterations=200)
"""Long enough for the convolution on 40 samples to gain."""


@pytest.mark.parametrize("widths", [(4, 8), (8, 4), (2, 16)], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_learns(name: str, widths: tuple[int, int]) -> None:
    done = learned(of(name, weight_bits=widths[0], bits=widths[1]))
    (record,) = done.records
    assert record.node == "n"
    assert not done.reasons
    assert not done.interrupted


@pytest.mark.parametrize("scheme", [s for s in QuantScheme if s.learns], ids=lambda scheme: scheme.name)
def test_from_either_start_the_outputs_get_nearer(scheme: QuantScheme) -> None:
    """Its ranges too: the scales of input, weight and output are others than those it began with."""
    made = of("Conv", 40, weight_bits=4, bits=4, scheme=scheme)
    done = learned(made, LONG)
    assert done.plan.codes.keys() == {"w"}
    assert done.plan.values.keys() == {"b"}
    for tensor in ("x", "w", "y"):
        assert not done.plan.qparams_of(tensor).same(made.plan.qparams_of(tensor))
    before, after = (error(made, plan) for plan in (made.plan, done.plan))
    assert after < before


def error(made: Simulated, plan: Plan) -> float:
    """Of all outputs under a plan, squared."""
    quantized = apply(made.model, plan)
    return sum(
        float(np.square(a - b).sum())
        for feed in made.feeds
        for a, b in zip(run(made.model, feed), run(quantized, feed), strict=True)
    )


NET = """g (float[N, 3, 6, 6] x) => (float[N, 5] y) {
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu] b = Relu (a)
    [two] c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
    [add] d = Add (c, b)
    [top] e = Relu (d)
    [pool] f = GlobalAveragePool (e)
    [flat] g = Flatten (f)
    [head] y = Gemm (g, w3, b3)
}"""
ARRAYS = {
    "w1": normal(4, 3, 3, 3),
    "b1": normal(4),
    "w2": normal(4, 4, 3, 3),
    "b2": normal(4, seed=1),
    "w3": normal(4, 5),
    "b3": normal(5),
}


def net(**fields: Any) -> Simulated:
    return simulated(NET, draw((1, 3, 6, 6), 40), ARRAYS, **fields)


def test_ranges_are_learned_where_they_are_first_read_and_outputs_where_nobody_reads_them() -> None:
    """x at one, b at two, c and y at the layers that make them; f is read through a Flatten alone, e by no layer."""
    made = net(weight_bits=4, bits=4)
    done = learned(made, replace(SHORT, num_iterations=150))
    assert [record.node for record in done.records] == ["one", "two", "head"]
    assert all(record.accepted for record in done.records)
    sites = made.plan.sites
    changed = {t for t in sites if not done.plan.qparams_of(t).same(made.plan.qparams_of(t))}
    assert changed == {"x", "b", "c", "y", "w1", "w2", "w3"}
    assert error(made, done.plan) < error(made, made.plan)


def test_a_layer_reads_what_the_learned_layers_before_it_make() -> None:
    """Its loss before learning is that of the plan with the layers before it learned."""
    made = net(weight_bits=3, bits=4)
    whole = learned(made)
    first = learned(made, replace(SHORT, target_op_type=("Conv",)))
    rest = learned(made, replace(SHORT, target_op_type=("Gemm",)), first.plan)
    alone = learned(made, replace(SHORT, target_op_type=("Gemm",)))
    assert rest.records[0].held_before == pytest.approx(whole.records[2].held_before, rel=1e-5)
    assert alone.records[0].held_before != pytest.approx(whole.records[2].held_before, rel=0.1)


TWICE = """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y, float[N, 4, 6, 6] z) {
    [one] y = Conv <pads = [1, 1, 1, 1]> (x, v, b)
    [two] z = Conv <pads = [1, 1, 1, 1]> (x, w, c)
}"""
TWO = {"v": normal(4, 4, 3, 3), "w": normal(4, 4, 3, 3, seed=3), "b": normal(4), "c": normal(4, seed=1)}


def test_a_range_that_two_layers_read_is_learned_at_the_first_and_stays() -> None:
    """It is that of a net with the first layer alone, and not that of a net with the second alone."""
    data = draw((1, 4, 6, 6), 24)
    head, one, two = TWICE.partition(" {")[0], *(line for line in TWICE.splitlines() if "Conv" in line)
    y, z = ", float[N, 4, 6, 6] z", "float[N, 4, 6, 6] y, "
    texts = {
        "both": TWICE,
        "first": f"{head.replace(y, '')} {{ {one} }}",
        "second": f"{head.replace(z, '')} {{ {two} }}",
    }
    plans = {name: learned(simulated(text, data, TWO, 3, 3), LONG).plan for name, text in texts.items()}
    found = {name: plan.qparams_of("x") for name, plan in plans.items()}
    assert plans["both"].codes.keys() == {"v", "w"}
    assert found["both"].same(found["first"])
    assert not found["both"].same(found["second"])
    assert found["both"].scale != simulated(TWICE, data, TWO, 3, 3).plan.qparams_of("x").scale


def test_a_weight_that_two_layers_read_stays_and_their_ranges_and_biases_are_learned() -> None:
    made = simulated(TWICE.replace("(x, w, c)", "(x, v, c)"), draw((1, 4, 6, 6), 24), TWO, 4, 4)
    done = learned(made)
    assert not done.plan.codes
    assert done.plan.qparams_of("v").same(made.plan.qparams_of("v"))
    assert done.plan.values.keys() == {"b", "c"}
    assert not done.plan.qparams_of("x").same(made.plan.qparams_of("x"))


def fixed(plan: Plan, tensor: str, **changes: Any) -> Plan:
    site: Site = plan.sites[tensor]
    return replace(plan, sites={**plan.sites, tensor: replace(site, **changes)})


@pytest.mark.parametrize("tensor", ["x", "w", "y"])
def test_a_range_that_is_known_beforehand_stays(tensor: str) -> None:
    """The weight's integers may move all the same."""
    made = of("Conv", 40, bits=4)
    assert not learned(made, LONG).plan.qparams_of(tensor).same(made.plan.qparams_of(tensor))
    plan = fixed(made.plan, tensor, range=(-1.0, 1.0))
    done = learned(made, LONG, plan).plan
    assert done.qparams_of(tensor).same(made.plan.qparams_of(tensor))
    assert "w" in done.codes


def test_a_lower_end_that_is_known_to_be_zero_stays() -> None:
    made = net(weight_bits=4, bits=4)
    plan = fixed(made.plan, "b", low=0.0)
    assert (movable(made.plan, "b"), movable(plan, "b")) == (Movable(True, True), Movable(True, False))
    before, after = plan.qparams_of("b"), learned(made, plan=plan).plan.qparams_of("b")
    assert after.zero_point == before.zero_point
    assert after.scale != before.scale
    for lower in (fixed(made.plan, "b", low=-0.5), fixed(made.plan, "b", floor=-0.5)):
        assert learned(made, plan=lower).plan.qparams_of("b").same(made.plan.qparams_of("b"))


def test_symmetric_activations_keep_their_zero_point() -> None:
    """And learn their scale: `learned` looks at the zero points."""
    defaults = {"ops": {"is_output_quantized": "True", "is_symmetric": "True"}, "params": {"is_quantized": "True"}}
    made = of("Conv", bits=4, defaults=defaults)
    assert made.plan.sites["x"].format.symmetric
    assert learned(made).plan.qparams_of("x").scale != made.plan.qparams_of("x").scale


def test_outputs_that_are_tied_to_other_tensors_are_not_learned_where_one_of_them_is_made() -> None:
    """The range of a Concat must hold for all its inputs."""
    text = TWICE.replace("float[N, 4, 6, 6] y, float[N, 4, 6, 6] z", "float[N, 8, 6, 6] u")
    text = text.replace("}", "[cat] u = Concat <axis = 1> (y, z) }")
    made = simulated(text, draw((1, 4, 6, 6), 24), TWO, 4, 4)
    assert made.plan.sites["y"].group == made.plan.sites["z"].group
    done = learned(made).plan
    for tensor in ("y", "z", "u"):
        assert done.qparams_of(tensor).same(made.plan.qparams_of(tensor))
    assert done.codes


def test_with_learn_weights_false_ranges_and_biases_alone_are_learned() -> None:
    """Half as many samples gain or lose by the last bit of a product, which processors round differently."""
    made = of("Conv", 48, bits=4)
    done = learned(made, replace(SHORT, learn_weights=False)).plan
    assert not done.codes
    assert done.values.keys() == {"b"}
    for tensor in ("x", "w", "y"):
        assert not done.qparams_of(tensor).same(made.plan.qparams_of(tensor))


def test_with_update_bias_false_biases_stay() -> None:
    done = learned(of("Conv", 40, bits=4), replace(LONG, update_bias=False)).plan
    assert done.codes.keys() == {"w"}
    assert not done.values


def test_a_layer_that_does_not_gain_leaves_the_plan_as_it_was() -> None:
    """At 16 bits there is nothing to win that ten rough steps would find; 4 bits with the same steps gain."""
    rough = replace(SHORT, num_iterations=2, learning_rate=1.0, batch_size=1)
    made = of("Gemm", 10, weight_bits=16, bits=16)
    done = learned(made, rough)
    assert done.plan is made.plan
    (record,) = done.records
    assert not record.accepted


def test_what_is_tuned_already_and_what_cannot_be_learned_is_listed_with_the_reason() -> None:
    text = NET.replace("[head]", "[same] h = MatMul (g, g2) [table] t = MatMul (k, w4) [head]").replace(
        "(float[N, 5] y)", "(float[N, 5] y, float[N, M] h, float[2, 3] t)"
    )
    text = text.replace("[same]", "[turn] g2 = Transpose (g) [same]")
    made = simulated(text, draw((1, 3, 6, 6), 12), ARRAYS | {"k": normal(2, 4), "w4": normal(4, 3)})
    codes = Coded(np.zeros((4, 3, 3, 3), np.int32), made.plan.qparams_of("w1").scale)
    done = learned(made, plan=replace(made.plan, codes={"w1": codes}))
    assert done.reasons["one"] == "its weight is tuned already"
    assert done.reasons["same"] == "both inputs are activations"
    assert done.reasons["table"] == "its input is a constant"
    assert done.plan.codes["w1"] is codes
    assert {record.node for record in done.records} == {"two", "head"}


def test_data_that_is_not_finite_leaves_a_layer_as_it_is() -> None:
    made = of("Conv")
    bad = [*made.feeds[:-1], {"x": np.full((1, 4, 6, 6), 1e30, np.float32)}]
    done = learned(made._replace(feeds=bad))
    assert done.plan is made.plan
    assert "too large to be squared" in done.reasons["n"]


def test_a_gemm_with_factors_is_left() -> None:
    """Unlike one without; its products are not those of its weight."""
    text, arrays, shape = LAYERS["Gemm"]
    made = simulated(text.replace("Gemm (", "Gemm <alpha = 0.5> ("), draw((1, *shape), 24), arrays)
    assert learned(made).reasons == {"n": "its alpha or beta is not 1"}


def test_the_same_seed_learns_the_same_plan_and_another_one_another() -> None:
    made = net(weight_bits=4, bits=4)
    first, again = (learned(made).plan for _ in range(2))
    other = learned(made, replace(SHORT, fixed_seed=1)).plan
    assert same(first, again)
    assert not same(first, other)


def same(a: Plan, b: Plan) -> bool:
    return (
        all(a.qparams[group].same(b.qparams[group]) for group in a.qparams)
        and a.codes.keys() == b.codes.keys()
        and all(a.codes[name].same(b.codes[name]) for name in a.codes)
        and a.values.keys() == b.values.keys()
        and all(np.array_equal(a.values[name], b.values[name]) for name in a.values)
    )


def test_the_memory_limit_and_batches_change_nothing() -> None:
    made = net(weight_bits=4, bits=4)
    want = learned(made).plan
    assert same(want, learned(made, limit=1).plan)
    pairs = zip(made.feeds[::2], made.feeds[1::2], strict=True)
    batches = [{"x": np.concatenate([a["x"], b["x"]])} for a, b in pairs]
    assert learned(made._replace(feeds=batches)).plan.codes.keys() == want.codes.keys()


def test_an_interrupted_run_keeps_what_is_learned() -> None:
    made = net(weight_bits=4, bits=4)
    said: list[str] = []

    def tell(text: str, done: int, total: int) -> None:
        said.append(text)
        if text == "two":
            raise KeyboardInterrupt

    done = learn(made.model, made.plan, made.feeds, SHORT, MEMORY, tell)
    assert done.interrupted
    assert [record.node for record in done.records] == ["one"]
    assert done.plan.codes.keys() == {"w1"}
    assert said[0] == "one"
    assert said[1].startswith("one: ")
    assert said[1].endswith(" dB (tuned)")
    io.check(apply(made.model, done.plan))


def biases_of(model: Model, plan: Plan) -> list[float]:
    """The largest int32 code of every bias, as a part of the largest that there is."""
    floats, found = constants(model), []
    for site in plan.sites.values():
        if site.role == "bias":
            step = integer_bias.scale(*(plan.qparams_of(factor).scale for factor in site.factors))
            found.append(
                float((abs(plan.values.get(site.tensor, floats[site.tensor])) / step).max() / integer_bias.LIMIT)
            )
    return found


def test_a_layer_whose_bias_would_not_fit_any_more_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of its weight was raised until the bias fits; whatever makes a scale smaller is too much.

    Where that happens float32 holds little of the output but the bias, and few layers gain; so one that does is told
    that its bias does not fit.
    """
    text, arrays, shape = matrix("[n] y = Gemm (x, w, b)", (32, 8), "32", "N, 8", b=normal(8))
    kinds = {"weight_type": "int8", "activation_type": "uint8", "weight_pairs": "off"}
    large = arrays | {"w": arrays["w"] / 1000, "b": np.float32(5e3) * arrays["b"]}
    plain, full = (case(text, draw((1, *shape), 400), a, **kinds) for a in (arrays, large))
    assert biases_of(full.model, full.plan)[0] > 0.99
    assert biases_fit(full.model, full.plan)
    q = full.plan.qparams_of("x")
    smaller = {**full.plan.qparams, full.plan.sites["x"].group: QParams(q.scale * np.float32(0.9), q.zero_point)}
    assert not biases_fit(full.model, replace(full.plan, qparams=smaller))
    assert learned(plain, LONG).records[0].accepted
    assert biases_of(full.model, learned(full, LONG).plan)[0] <= 1
    monkeypatch.setattr("quark_onnx.stages.range_learning.layer_learner.biases_fit", lambda model, plan: False)
    assert learned(plain, LONG).plan is plain.plan


def test_safe_pairs_stay_safe() -> None:
    text, arrays, shape = LAYERS["Gemm"]
    rng = np.random.default_rng(0)
    large = arrays | {"w": (np.sign(arrays["w"]) * rng.uniform(0.5, 1, arrays["w"].shape)).astype(np.float32)}
    made = case(text, draw((1, *shape), 200), large, weight_type="int8", activation_type="uint8", weight_pairs="safe")
    assert made.plan.rounded.keys() == {"w"}
    done = learned(made, LONG)
    (record,) = done.records
    assert record.accepted and done.plan.codes.keys() == {"w"}
    assert not unsafe_weights(made.model, done.plan, TARGETS["cpu"])


def test_a_bias_with_a_scale_of_its_own_counts_as_it_is_stored() -> None:
    """On a coarser grid the same layer has a larger error before it has learned anything."""
    text, arrays, shape = LAYERS["Gemm"]
    kinds = {"weight_type": "int8", "activation_type": "uint8", "Int32Bias": False}
    made = case(text, draw((1, *shape), 24), arrays, **kinds)
    q = made.plan.qparams_of("b")
    coarse = {**made.plan.qparams, made.plan.sites["b"].group: QParams(q.scale * np.float32(50), q.zero_point)}
    fine, rough = (learned(made, plan=p).records[0] for p in (made.plan, replace(made.plan, qparams=coarse)))
    assert rough.held_before > 2 * fine.held_before


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_plans_of_the_main_pipeline_learn_too(bits: int, per_channel: bool) -> None:
    """int32 biases still fit, and the model runs on integers as before."""
    kinds = {"weight_type": f"int{bits}", "activation_type": "uint8", "per_channel": per_channel}
    made = case(NET, draw((1, 3, 6, 6), 24), ARRAYS, **kinds)
    done = learned(made)
    assert len(done.records) == 3
    parts = biases_of(made.model, done.plan)
    assert len(parts) == 3
    assert max(parts) <= 1


OTHERS = {
    "powers of two": {"calibrate_method": "NonOverflow"},
    "at run time": {"use_dynamic_quant": True},
    "weights alone": {"WeightsOnly": True},
    "biases with scales of their own": {"Int32Bias": False},
}


@pytest.mark.parametrize("kind", OTHERS.values(), ids=OTHERS)
def test_plans_of_every_kind_learn_what_they_can(kind: dict[str, Any]) -> None:
    """Powers of two stay; what is quantized at run time, or not at all, has no range. Weights are learned, at a rate at
    which each kind gains a tenth and more on every processor.
    """
    text, arrays, shape = matrix("[n] y = Gemm (x, w, b)", (32, 8), "32", "N, 8", b=normal(8))
    made = case(text, draw((1, *shape), 400), arrays, weight_type="int4", activation_type="uint8", **kind)
    done = learned(made, replace(LONG, learning_rate=0.01))
    assert done.plan.codes.keys() == {"w"}
    for group, q in made.plan.qparams.items():
        if made.plan.sites[group].format.scale == "pow2":
            assert done.plan.qparams[group].same(q)
    if (site := done.plan.sites.get("b")) is not None and site.format.bits < 32:
        q = done.plan.qparams_of("b")
        value = done.plan.values["b"]
        np.testing.assert_array_equal(value, dequantize(quantize(value, q, site.format), q, site.format))


def test_weights_in_blocks_are_left_with_a_reason() -> None:
    text, arrays, shape = matrix("[n] y = MatMul (x, w)", (32, 8), "9x32", "N, 9, 8")
    made = case(text, draw((1, *shape), 8), arrays, weight_type="int4", activation_type="uint8", BlockSize=16)
    done = learned(made)
    assert done.reasons == {"n": "its weight has a scale per block: only scales per tensor or channel are learned"}
    assert not done.plan.codes


def test_a_weight_on_the_left_learns() -> None:
    text, arrays, shape = matrix("[n] y = MatMul (w, x)", (8, 32), "32x9", "N, 8, 9")
    made = case(text, draw((1, *shape), 96), arrays, weight_type="int4", activation_type="uint8")
    assert learned(made, LONG).records[0].accepted


@limits(max_examples=12, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 99), st.sampled_from([1, 2, 3, 16]))
def test_random_widths_and_few_samples(weight_bits: int, bits: int, seed: int, count: int) -> None:
    """`learned` looks at everything."""
    made = simulated(NET, draw((1, 3, 6, 6), count, seed=seed), ARRAYS, weight_bits, bits)
    learned(made, replace(SHORT, num_iterations=15, fixed_seed=seed))
