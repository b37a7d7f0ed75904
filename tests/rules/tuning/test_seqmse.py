"""Weight scales by output error (SeqMSE): the least error that rounding to nearest can have; nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import Feed, constants, run, settings
from text_models import normal, text_model
from tuning_cases import Case, case, draw, tuned

from quark_onnx import ModelQuantizer, Result
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound, Nearest
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.layers.row_grids import all_factors
from quark_onnx.numerics.quantizer import quantize

SEARCH = Nearest(update_bias=False)
CONV = "g (float[N,4,6,6] x) => (float[N,5,6,6] y) { [n] y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }"
MATMUL = "g (float[N,7,16] x) => (float[N,7,6] y) { [n] y = MatMul (x, w) }"
TRANSPOSED = "g (float[N,4,5,5] x) => (float[N,6,7,7] y) { [n] y = ConvTranspose <group = 2> (x, w, b) }"
CHAIN = """g (float[N,4,6,6] x) => (float[N,5,6,6] y) {
    [a] s = Conv <pads = [1, 1, 1, 1]> (x, v, c) [r] t = Relu (s) [n] y = Conv <pads = [1, 1, 1, 1]> (t, w, b)
}"""
LAYERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "Conv": (CONV, {"w": normal(5, 4, 3, 3), "b": normal(5)}, (1, 4, 6, 6)),
    "MatMul": (MATMUL, {"w": normal(16, 6)}, (1, 7, 16)),
    "ConvTranspose": (TRANSPOSED, {"w": normal(4, 3, 3, 3), "b": normal(6)}, (1, 4, 5, 5)),
}
FORMATS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8 per channel": {"per_channel": True},
    "int4": {"weight_type": "int4"},
    "uint8, middle": {"weight_type": "uint8", "activation_type": "uint8", "WeightSymmetric": True},
}


def quiet(shape: tuple[int, ...], count: int = 24) -> list[Feed]:
    """Samples whose first channel is small: what weights on it are rounded to hardly matters."""
    feeds = draw(shape, count)
    for feed in feeds:
        feed["x"][(slice(None), 0) if len(shape) == 4 else (..., 0)] *= 0.02
    return feeds


def of(layer: str, outlier: float = 1.0, count: int = 24, **fields: Any) -> Case:
    """One layer; the first of its weights is made so many times larger, and its input is small."""
    text, arrays, shape = LAYERS[layer]
    weight = arrays["w"].copy()
    weight.reshape(-1)[0] *= outlier
    return case(text, quiet(shape, count), {**arrays, "w": weight}, **fields)


def error(made: Case, scale: np.ndarray | None = None) -> float:
    """Mean squared error of the output over all samples, with another weight scale if it is given."""
    plan, total = made.plan, []
    if scale is not None:
        qparams = {**plan.qparams, "w": QParams(scale, plan.qparams["w"].zero_point)}
        plan = type(plan)(**{**vars(plan), "qparams": qparams})
    quantized = apply(made.model, plan)
    for feed in made.feeds:
        total.append(np.square(run(made.model, feed)[0] - run(quantized, feed)[0]).mean())
    return float(np.mean(total))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("format", FORMATS)
def test_only_the_scale_changes(layer: str, format: str) -> None:
    """Codes are the float weights, rounded to nearest at the scale that was found; biases stay."""
    freely = {"weight_pairs": "off"} if format.startswith("int8") else {}
    made = of(layer, outlier=8.0, **FORMATS[format], **freely)
    done = tuned(made, SEARCH)
    assert set(done.plan.codes) == {"w"}
    assert done.plan.values == {}
    (record,) = done.records
    assert (record.choice, record.accepted, record.iterations) == ("nearest", True, 0)
    assert record.held_after < record.held_before
    coded, site = done.plan.codes["w"], made.plan.sites["w"]
    assert (coded.scale <= made.plan.qparams["w"].scale).all()
    nearest = quantize(constants(made.model)["w"], done.plan.qparams_of("w"), site.format)
    np.testing.assert_array_equal(coded.codes, nearest)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("layer", ["Conv", "MatMul"])
def test_no_other_candidate_would_be_better(layer: str, format: str) -> None:
    """Against runs of the model with each; a fifth of the samples is held out, so the two may differ a little."""
    freely = {"weight_pairs": "off"} if format == "int8" else {}
    made = of(layer, outlier=12.0, count=40, **FORMATS[format], **freely)
    top, factors = made.plan.qparams["w"].scale, all_factors(made.plan.sites["w"].format)
    errors = [error(made, np.float32(top * factor)) for factor in factors]
    found = tuned(made, SEARCH).plan.codes["w"].scale
    assert any(found == np.float32(top * factor) for factor in factors)
    assert error(made, found) < 1.02 * min(errors)
    assert min(errors) < 0.9 * error(made)


def test_candidates_hold_those_of_the_source() -> None:
    """Twentieths of the largest weight; per tensor smaller ones, too; nothing but powers of two where that is asked."""
    for format in (Format(8, True, True), Format(8, True, True, axis=0)):
        found = all_factors(format)
        assert {i / 20 for i in range(1, 21)} <= set(found)
        assert list(found) == sorted(found, reverse=True)  # the largest of equals is taken
    assert set(all_factors(Format(8, True, True, scale="pow2"))) <= {2.0**-i for i in range(8)}


def test_a_scale_that_is_the_best_stays() -> None:
    """Weights that are whole multiples of the scale; the twin has one that is not."""
    weight = np.random.default_rng(0).integers(-127, 128, (5, 4, 3, 3)).astype(np.float32)
    weight[0, 0, 0, 0] = 127
    for extra, changed in ((1.0, set()), (40.0, {"w"})):
        array = weight.copy()
        array[0, 0, 0, 0] *= extra
        made = case(CONV, quiet((1, 4, 6, 6)), {"w": array, "b": normal(5)})
        done = tuned(made, SEARCH)
        assert set(done.plan.codes) == changed
        assert [record.choice for record in done.records] == ["nearest" if changed else "raw"]


def test_a_power_of_two_stays_one() -> None:
    made = of("Conv", outlier=12.0, weight_type="int4", UsePowerOf2Scale=True)
    scale = tuned(made, SEARCH).plan.codes["w"].scale
    assert scale < made.plan.qparams["w"].scale
    assert np.frexp(scale)[0] == 0.5


def test_later_layers_read_what_the_earlier_ones_now_make() -> None:
    """Alone, with the first layer as it was, the second one ends elsewhere."""
    arrays = {"v": normal(4, 4, 3, 3) / 3, "c": normal(4) / 3, "w": normal(5, 4, 3, 3), "b": normal(5)}
    arrays["v"][0, 0, 0, 0] *= 30
    made = case(CHAIN, quiet((1, 4, 6, 6)), arrays, weight_type="int4")
    one_by_one = tuned(made, SEARCH)
    apart = tuned(made, Nearest(update_bias=False, parallel=True))
    assert one_by_one.plan.codes["v"].same(apart.plan.codes["v"])
    assert one_by_one.records[1].held_before != apart.records[1].held_before


# through the configuration


def quantized(**fields: Any) -> Result:
    """The chain, without a bias in its second layer."""
    arrays = {"v": normal(4, 4, 3, 3) / 3, "c": normal(4) / 3, "w": normal(5, 4, 3, 3)}
    arrays["v"][0, 0, 0, 0] *= 8
    arrays["w"][0, 0, 0, 0] *= 8
    proto: onnx.ModelProto = text_model(CHAIN.replace("(t, w, b)", "(t, w)"), 20, **arrays)
    feeds = quiet((1, 4, 6, 6), 120)  # judged on samples that taught nothing, so that many must teach
    config = settings(include_cle=False, Protect=False, **fields)  # few bits lose the output, and stay on purpose
    return ModelQuantizer(config).quantize_model(proto, None, feeds)


@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("searches", [True, False])
def test_scales_and_biases_are_asked_for_one_by_one(*, searches: bool, corrects: bool) -> None:
    options = {"WeightCalibrateMethod": "SeqMSE" if searches else "MinMax", "BiasCorrection": corrects}
    found = quantized(**options, weight_type="int4")
    assert set(found.plan.codes) == ({"v", "w"} if searches else set())
    assert bool(found.plan.values) == corrects
    assert len(found.plan.values) == (2 if corrects else 0)  # the second layer has a bias only then
    plain = min(quantized(weight_type="int4").report.sqnr.values())
    assert (min(found.report.sqnr.values()) > plain) == (searches or corrects)


def test_both_are_better_than_either() -> None:
    asked = ({}, {"BiasCorrection": True}, {"WeightCalibrateMethod": "SeqMSE"})
    scores = [min(quantized(weight_type="int4", **options).report.sqnr.values()) for options in asked]
    both = {**asked[1], **asked[2]}
    assert min(quantized(weight_type="int4", **both).report.sqnr.values()) > max(scores)


@pytest.mark.parametrize("method", ["adaround", "adaquant"])
def test_fine_tuning_searches_scales_when_that_is_the_weight_method(method: str) -> None:
    options = {"OptimAlgorithm": method, "ScaleSearch": False, "NumIterations": 20}
    fixed = settings(include_fast_ft=True, FastFinetune=options)
    asked = settings(include_fast_ft=True, FastFinetune=options, WeightCalibrateMethod="seqmse")
    kinds = {"adaround": AdaRound, "adaquant": AdaQuant}
    assert isinstance(asked.tuning, kinds[method])
    assert (fixed.tuning, asked.tuning) == (
        kinds[method](**{**vars(fixed.finetune), "scale_search": False}),
        kinds[method](**{**vars(fixed.finetune), "scale_search": True}),
    )


def test_what_is_walked_for() -> None:
    assert settings().tuning is None
    assert settings(BiasCorrection=True).tuning == Nearest(scale_search=False)
    assert settings(WeightCalibrateMethod="SeqMSE").tuning == Nearest(update_bias=False)
    assert settings(WeightCalibrateMethod="SeqMSE", BiasCorrection=True).tuning == Nearest()
    assert settings(WeightCalibrateMethod="SeqMSE").weight_ranging.method == "MinMax"
    assert not settings(WeightCalibrateMethod="SeqMSE").moves_biases
