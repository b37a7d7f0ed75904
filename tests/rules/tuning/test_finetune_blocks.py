"""Fine-tuning where a weight has a scale per block, as weights of 4 bits alone have: none is passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from quantized_models import constants, run, settings
from text_models import normal, text_model
from tuning_cases import Case, case, draw, same, tuned

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.fast_finetune import GPTQ, AdaQuant, AdaRound, FastFinetune, Nearest
from quark_onnx.engine.apply_plan import apply
from quark_onnx.numerics.quantizer import dequantize

ALONE: dict[str, Any] = {"WeightsOnly": True, "weight_type": "int4", "BlockSize": 16}
X = "g (float[N,5,40] x) => (float[N,5,12] y) "
LAYERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "MatMul": (X + "{ [n] y = MatMul (x, w) }", {"w": normal(40, 12)}, (1, 5, 40)),
    "MatMul, Add": (
        X + "{ [n] h = MatMul (x, w) [a] y = Add (h, b) }",
        {"w": normal(40, 12), "b": normal(12)},
        (1, 5, 40),
    ),
    "on the left": (
        "g (float[N,40,5] x) => (float[N,12,5] y) { [n] y = MatMul (w, x) }",
        {"w": normal(12, 40)},
        (1, 40, 5),
    ),
    "Gemm": (
        "g (float[N,40] x) => (float[N,12] y) { [n] y = Gemm (x, w, b) }",
        {"w": normal(40, 12), "b": normal(12)},
        (5, 40),
    ),
    "Gemm, transB": (
        "g (float[N,40] x) => (float[N,12] y) { [n] y = Gemm <transB = 1> (x, w) }",
        {"w": normal(12, 40)},
        (5, 40),
    ),
    "square": ("g (float[N,40] x) => (float[N,40] y) { [n] y = Gemm (x, w) }", {"w": normal(40, 40)}, (5, 40)),
}
FORMATS: dict[str, dict[str, Any]] = {
    "int4": {},
    "uint4 with zero points": {"weight_type": "uint4"},
    "int4 with zero points": {"WeightSymmetric": False},
    "int3 in blocks of 32": {"weight_type": "int3", "BlockSize": 32},
    "one block": {"BlockSize": 64},
    "powers of two": {"UsePowerOf2Scale": True},
    "beside int8": {"WeightsOnly": False, "activation_type": "uint8"},
}
METHODS: dict[str, FastFinetune] = {
    "gptq": GPTQ(),
    "adaround": AdaRound(),
    "adaround by iterations": AdaRound(num_iterations=60),
    "adaround, sampled": AdaRound(num_iterations=60, objective="sampled"),
    "adaquant": AdaQuant(num_iterations=60),
}


def of(layer: str = "MatMul", count: int = 60, **fields: Any) -> Case:
    text, arrays, shape = LAYERS[layer]
    return case(text, draw(shape, count), arrays, **{**ALONE, **fields})


def error(made: Case, plan: Plan) -> float:
    """On samples that nobody has seen."""
    model, shape = apply(made.model, plan), made.feeds[0]["x"].shape
    return sum(float(np.square(run(model, x)[0] - run(made.model, x)[0]).sum()) for x in draw(shape, 40, seed=1))


@pytest.mark.parametrize("layer", LAYERS)
def test_gptq_pays_in_every_layout(layer: str) -> None:
    made = of(layer)
    done = tuned(made, GPTQ())
    assert [record.choice for record in done.records] == ["tuned"]
    assert not done.reasons
    assert error(made, done.plan) < 0.75 * error(made, made.plan)


@pytest.mark.parametrize("kind", FORMATS)
def test_gptq_pays_in_every_format(kind: str) -> None:
    """Zero points stay, and scales are of their kind."""
    made = of(**FORMATS[kind])
    done = tuned(made, GPTQ())
    assert error(made, done.plan) < 0.85 * error(made, made.plan)
    before, after = made.plan.qparams["w"], done.plan.qparams_of("w")
    np.testing.assert_array_equal(before.zero_point, after.zero_point)
    assert not np.array_equal(before.scale, after.scale)
    assert done.plan.fault() is None


@pytest.mark.parametrize("method", METHODS)
def test_every_method_pays(method: str) -> None:
    made = of("Gemm")
    assert error(made, tuned(made, METHODS[method]).plan) < 0.8 * error(made, made.plan)


def test_what_is_written_is_what_was_tuned() -> None:
    made = of("Gemm, transB", weight_type="uint4")
    done = tuned(made, GPTQ())
    q, format, coded = done.plan.qparams_of("w"), done.plan.sites["w"].format, done.plan.codes["w"]
    written = constants(apply(made.model, done.plan))
    np.testing.assert_array_equal(written["w_scale"], q.scale)
    weight = dequantize(coded.codes, q, format)
    x, (bias,) = made.feeds[0]["x"], done.plan.values.values()
    got = run(apply(made.model, done.plan), made.feeds[0])[0]
    np.testing.assert_allclose(got, x @ weight.T + bias, rtol=1e-4, atol=1e-4)


def test_without_correlation_or_samples_nothing_is_lost() -> None:
    """The negative twin: one sample that says nothing of the others."""
    made = of(count=2)
    still = [{"x": np.zeros_like(feed["x"])} for feed in made.feeds]
    done = tuned(made._replace(feeds=still), GPTQ())
    assert [record.choice for record in done.records] == ["raw"]
    assert same(done.plan, made.plan)


def test_scales_that_are_given_stay() -> None:
    """Codes alone are looked for where the scale may not be."""
    made = of()
    done = tuned(made, GPTQ(scale_search=False))
    np.testing.assert_array_equal(done.plan.codes["w"].scale, made.plan.qparams["w"].scale)
    free = tuned(made, GPTQ())
    assert error(made, free.plan) < error(made, done.plan) < 0.8 * error(made, made.plan)


def test_the_order_of_columns_is_a_setting() -> None:
    made = of()
    first, last = (tuned(made, GPTQ(act_order=order, polish=0, scale_search=False)).plan for order in (True, False))
    assert not same(first, last)
    assert error(made, last) < error(made, made.plan)


def test_scales_by_output_error_and_biases_alone() -> None:
    made = of("Gemm")
    searched = tuned(made, Nearest(update_bias=False))
    assert searched.plan.codes.keys() == {"w"}
    assert not searched.plan.values
    assert error(made, searched.plan) < error(made, made.plan)
    shifted = [{"x": feed["x"] + 3} for feed in made.feeds]
    fitted = tuned(made._replace(feeds=shifted), Nearest(scale_search=False))
    assert (fitted.plan.codes.keys(), fitted.plan.values.keys()) == (set(), {"b"})


def test_a_weight_of_two_layers_is_tuned_for_both() -> None:
    text = "g (float[N,24] x) => (float[N,24] y) { [n] h = MatMul (x, w) [r] g = Relu (h) [m] y = MatMul (g, w) }"
    made = case(text, draw((4, 24), 40), {"w": normal(24, 24)}, **ALONE)
    done = tuned(made, GPTQ())
    assert {record.node for record in done.records} == {"n", "m"}
    assert error(made, done.plan) < 0.95 * error(made, made.plan)


def test_a_plan_goes_on_where_it_was(tmp_path: Any) -> None:
    made = of("Gemm")
    done = tuned(made, GPTQ())
    again = Plan.load(done.plan.save(tmp_path / "plan"))
    assert same(again, done.plan)
    assert not tuned(made._replace(plan=again), GPTQ()).records


@pytest.mark.parametrize("ending", ["GPTQ", "ADAROUND", "ADAQUANT"])
def test_presets_tune_what_the_plain_one_rounds(ending: str) -> None:
    text, arrays, shape = LAYERS["MatMul, Add"]
    model, feeds = text_model(text, 21, **arrays), draw(shape, 40)
    plain, better = (get_default_config(name) for name in ("MATMUL_NBITS", f"MATMUL_NBITS_{ending}"))
    reports = [
        ModelQuantizer(replace(c, optimize_model=False)).quantize_model(model, None, feeds).report
        for c in (plain, better)
    ]
    assert [len(report.tuned) for report in reports] == [0, 1]
    assert reports[1].sqnr["y"] > reports[0].sqnr["y"] + 2
    assert [row.kernel for row in reports[1].ledger if row.status == "integer"] == ["MatMulNBits"]


def test_tuning_needs_data_and_the_plain_preset_does_not() -> None:
    assert get_default_config("MATMUL_NBITS_GPTQ").needs_data
    assert not get_default_config("MATMUL_NBITS").needs_data
    with pytest.raises(ConfigError, match="gptq has none"):
        settings(include_fast_ft=True, **ALONE, FastFinetune={"OptimAlgorithm": "gptq", "NumIterations": 5})
