"""Bias correction that is judged: kept where the worst output gains, taken back as a whole where it does not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from quantized_models import settings
from text_models import normal, text_model
from tuning_cases import draw, same

from quark_onnx import ModelQuantizer, Result
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Comparison, Correction, LayerRecord, Measured, Slice, Tuning
from quark_onnx.core.settings.fast_finetune import AdaRound, Nearest
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.held_out_probes import PART
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.output_chance import all_below, below
from quark_onnx.engine.result_wording import correction_text
from quark_onnx.stages.finetune import judged, lesson
from quark_onnx.stages.finetune.judged_correction import JUDGES, TAUGHT

JUDGED = Nearest(scale_search=False, judged=True)
NET = """g (float[N, 4, 8, 8] x) => (float[N, A, B, C] y) {
    [a] h = Conv (x, w, b) [r] t = Relu (h) [c] y = Conv (t, v)
}"""
ARRAYS = {"w": normal(8, 4, 3, 3), "b": normal(8), "v": normal(6, 8, 3, 3)}


def made(count: int = 60, *, off: bool = True, **fields: Any) -> Result:
    """Weights of few bits; with inputs that are positive, as behind a ReLU, layers are off by much of their error."""
    model = text_model(NET, 20, **ARRAYS)
    samples = draw((1, 4, 8, 8), count)
    samples = [{"x": np.abs(feed["x"]) + 1} for feed in samples] if off else samples
    config = settings(weight_type="int3", include_cle=False, Protect=False, **fields)
    return ModelQuantizer(config).quantize_model(model, None, samples)


def test_it_is_kept_where_the_outputs_gain() -> None:
    plain, found = made(), made(BiasCorrection="auto")
    correction = found.report.correction
    assert correction is not None
    assert correction.kept
    assert correction.samples == JUDGES
    assert correction.corrected > correction.without  # type: ignore[operator]
    assert found.plan.values
    assert found.report.sqnr["y"] > plain.report.sqnr["y"]
    assert any(record.accepted for record in found.report.tuned)
    assert plain.report.correction is made(BiasCorrection=True).report.correction is None


def test_it_is_left_out_where_little_is_to_gain() -> None:
    """The twin: of inputs on both sides of 0, errors average out. Layers seem to gain, and no bias has moved."""
    plain, found = made(off=False), made(off=False, BiasCorrection="auto")
    correction = found.report.correction
    assert correction is not None
    assert not correction.kept
    assert correction.samples == JUDGES
    assert found.plan.values == {}
    assert found.report.sqnr == plain.report.sqnr
    assert found.report.tuned
    assert not any(record.accepted for record in found.report.tuned)
    assert made(off=False, BiasCorrection=True).plan.values


@pytest.mark.parametrize("count", [10, 23])
def test_too_few_samples_judge_nothing(count: int) -> None:
    """Of 23, 4 prove and 19 teach, of which none could be held out."""
    found = made(count, BiasCorrection="auto")
    assert found.report.correction == Correction(kept=False)
    assert (found.plan.values, found.report.tuned) == ({}, ())
    searched = made(count, BiasCorrection="auto", WeightCalibrateMethod="SeqMSE")
    assert searched.report.correction == Correction(kept=False)
    assert searched.plan.codes
    assert not searched.plan.values


def test_the_same_data_give_the_same_plan() -> None:
    assert same(made(BiasCorrection="auto").plan, made(BiasCorrection="auto").plan)


def test_scales_by_output_error_stay_whatever_becomes_of_the_biases() -> None:
    found = made(BiasCorrection="auto", WeightCalibrateMethod="SeqMSE")
    assert found.plan.codes.keys() == {"w", "v"}
    assert found.report.correction is not None
    assert bool(found.plan.values) == found.report.correction.kept


# which samples


def feeds(*sizes: int) -> Kept:
    return keep([{"x": np.full((size, 1), i, np.float32)} for i, size in enumerate(sizes)])


def numbers(some: Kept) -> list[float]:
    return [float(feed["x"][0, 0]) for feed in some]


@pytest.mark.parametrize("sizes", [(1,) * 20, (1,) * 60, (1,) * 500, (8,) * 10, (50, 50, 50, 50, 50)])
def test_what_judges_does_not_teach(sizes: tuple[int, ...]) -> None:
    learns = lesson(JUDGED, feeds(*sizes))
    taught, judges = numbers(learns.taught), numbers(learns.judges)
    assert not set(taught) & set(judges)
    assert 1 <= len(judges) <= min(JUDGES, len(sizes) // PART)
    assert len(taught) == min(len(sizes) - len(judges), -(-TAUGHT // sizes[0]))
    assert taught == sorted(taught)


def test_a_search_of_scales_learns_of_all_others() -> None:
    learns = lesson(replace(JUDGED, scale_search=True), feeds(*[1] * 200))
    assert len(learns.taught) == 200 - JUDGES
    assert learns.options.positions == JUDGED.positions


@pytest.mark.parametrize("options", [AdaRound(), Nearest(scale_search=False)], ids=["adaround", "corrected"])
def test_what_is_not_judged_learns_of_all(options: Any) -> None:
    learns = lesson(options, feeds(*[1] * 200))
    assert (len(learns.taught), len(learns.judges), learns.judging) == (200, 0, False)
    assert learns.options is options


# what decides


def output(db: float, worst: float | None = None, values: int = 4096) -> Measured:
    return Measured(values=values, sqnr=db, worst=None if worst is None else Slice(1, 3, worst))


CASES: dict[str, tuple[tuple[Measured, ...], tuple[Measured, ...], bool]] = {  # without, with, is it kept
    "clearly better": ((output(14),), (output(22),), True),
    "by chance": ((output(14),), (output(14.3),), False),  # 3 · 10/ln 10 · √(4/4096) = .41 dB
    "by more than that": ((output(14),), (output(14.5),), True),
    "of few numbers": ((output(14, values=64),), (output(16, values=64),), False),
    "as a whole, and its worst slice is lost": ((output(29, 12),), (output(31, 8),), False),
    "a slice, of 256 numbers": ((output(29, 12),), (output(29, 13.5),), False),
    "a slice, by more than chance": ((output(29, 12),), (output(29, 14),), True),
    "one output, another is the worst": ((output(30), output(12)), (output(40), output(12)), False),
    "the worst of two": ((output(30), output(12)), (output(29), output(20)), True),
    "shares of equal values": (
        (Measured(values=10_000, equal=0.8),),
        (Measured(values=10_000, equal=0.9),),
        True,
    ),
    "shares, by chance": ((Measured(values=100, equal=0.96),), (Measured(values=100, equal=0.98),), False),
}
MOVED = {"b": np.ones(3, np.float32)}


def judgement(without: Any, corrected: Any) -> tuple[Tuning, Correction | None]:
    """What becomes of a bias that has moved; sides are a comparison over all samples, and one of each."""

    def tune(how: Any) -> Tuning:
        assert how.update_bias
        record = LayerRecord("n", "Conv", "untuned", True, 0, 0.1, 4.0, 3.0, 2.0, 1.0)
        return Tuning(Plan("m", values=MOVED), (record,), {})

    return judged(lesson(JUDGED, feeds(*[1] * 40)), Plan("m"), tune, lambda p: corrected if p.values else without)


@pytest.mark.parametrize("name", CASES)
def test_what_decides(name: str) -> None:
    *sides, kept = CASES[name]
    wholes = [Comparison(dict(zip("yz", side, strict=False)), 8) for side in sides]
    done, found = judgement(*((whole, [whole] * 8) for whole in wholes))
    assert found is not None
    assert found.kept == kept
    assert bool(done.plan.values) == kept
    (record,) = done.records
    assert (record.accepted, record.choice) == ((True, "untuned") if kept else (False, "raw"))
    assert (record.held_after == record.held_before) != kept
    assert correction_text(found).startswith("kept: " if kept else "left out")


def ratios(*db: float) -> list[Comparison]:
    return [Comparison({"y": output(one)}, 1) for one in db]


SINGLE: dict[str, tuple[list[Comparison], list[Comparison], bool]] = {  # samples without, with, is it kept
    "all gain alike": (ratios(14, 12, 13, 17), ratios(22, 20, 21, 25), True),
    "all gain": (ratios(14, 12, 13, 17), ratios(22, 19, 22, 25), True),
    "one loses": (ratios(14, 12, 13, 17), ratios(22, 20, 21, 9), False),
    "one gains for all": (ratios(8, 13, 10, 33), ratios(16, 13, 10, 33), False),
    "none does": (ratios(14, 12), ratios(14, 12), False),
    "lost ones found": (ratios(-math.inf, -math.inf), ratios(20, 20), True),
    "beyond what counts": (ratios(50, 60), ratios(80, math.inf), False),
    "a single sample tells nothing": (ratios(14), ratios(13), True),
}


@pytest.mark.parametrize("name", SINGLE)
def test_samples_have_to_agree(name: str) -> None:
    """A ratio over all samples may hang on one of them; numbers of a sample are not independent of each other."""
    without, corrected, kept = SINGLE[name]
    assert all_below(without, corrected) == kept
    wholes = [Comparison({"y": output(db)}, 4) for db in (14, 22)]
    _, found = judgement(*zip(wholes, (without, corrected), strict=True))
    assert found == Correction(kept, 14, 22, 4)


@pytest.mark.parametrize("one", [output(30), output(math.inf), Measured()], ids=["good", "exact", "unknown"])
@pytest.mark.parametrize("searches", [True, False])
def test_where_nothing_is_lost_or_known_nothing_is_corrected(*, one: Measured, searches: bool) -> None:
    asked: list[Any] = []

    def tune(how: Any) -> Tuning:
        asked.append(how)
        return Tuning(Plan("m"), (), {})

    whole = Comparison({"y": one}, 8)
    learns = lesson(replace(JUDGED, scale_search=searches), feeds(*[1] * 40))
    _, found = judged(learns, Plan("m"), tune, lambda plan: (whole, [whole] * 8))
    assert found == Correction(False, one.db, None, 8)
    assert [(how.scale_search, how.update_bias) for how in asked] == [(True, False)] * searches
    assert correction_text(found).startswith("left out" if one.db is None else "not needed")


def test_what_moved_no_bias_is_run_once() -> None:
    runs: list[Plan] = []

    def judge(plan: Plan) -> Any:
        runs.append(plan)
        return Comparison({"y": output(14)}, 8), ratios(14, 14)

    before = Plan("m", values=MOVED)
    done = Tuning(replace(before, values=dict(before.values)), (), {})
    assert judged(lesson(JUDGED, feeds(*[1] * 40)), before, lambda how: done, judge) == (done, None)
    assert runs == [before]


def test_below_is_no_order_of_equals() -> None:
    assert not below(output(14), output(14))
    assert not below(output(22), output(14))


def test_a_feed_is_what_a_sample_is_counted_in() -> None:
    one: Feed = {"x": np.zeros((3, 2), np.float32)}
    assert len(lesson(JUDGED, keep([one] * 10)).judges) == 2  # of 30 samples in 10 feeds, one of five at most
