"""Every rule of the advice: a report where it speaks, with its numbers, and near twins where it must be silent."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quark_onnx.core.records import Departure, Latency, LayerRecord, Measured, ProtectedRegion, Timing
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.presets import PRESETS
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.saturation_certificate import NO_PRODUCT, Certificate
from quark_onnx.report.advice import LEVELS, RULES, advise
from quark_onnx.report.build import failed
from quark_onnx.report.model_report import (
    Histogram,
    LayerError,
    Layers,
    ModelReport,
    Score,
    Sizes,
    Weight,
)

CONFIG = {"activation_type": "int8", "weight_type": "int8", "use_dynamic_quant": False, "include_fast_ft": False}


def report(sqnr: float = 25.0, **fields: Any) -> ModelReport:
    """A report that no rule but `fair_output` has anything to say about."""
    usual = {"config": CONFIG, "preset": "A8W8", "samples": 100, "sites": {"activation": 3, "weight": 2}}
    usual |= {"runtime": "onnxruntime 1.32.0"}
    return ModelReport("m", "0", sqnr={"y": sqnr}, **(usual | fields))


def layer(
    name: str,
    share: float,
    *,
    op_type: str = "Conv",
    by_weight: float = 1.0,
    accumulated: float | None = None,
    **more: Any,
) -> LayerError:
    """A layer that makes so much of the noise, so much of that by its weight."""
    rounding = 20 - 10 * math.log10(1 - by_weight) if by_weight < 1 else math.inf
    return LayerError(f"{name}_out", name, op_type, ("x",), 20.0, accumulated, rounding, None, 25.0, share, **more)


TUNED = CONFIG | {"include_fast_ft": True}

OTHERWISE = Departure(True, "y", Measured(99, 12.0), Measured(99, 36.0), ("c",), "saturation", 16)


def layers(*found: LayerError) -> Layers:
    """These and twenty that share what is left of the noise."""
    left = (1 - sum(e.share or 0 for e in found)) / 20
    rest = (LayerError(f"rest{i}", f"r{i}", "Mul", (), 50.0, None, 50.0, None, 60.0, left) for i in range(20))
    return Layers((*found, *rest), "y", 8)


def weight(node: str, *, scales: int = 1, own: float = 1.0, dtype: str = "int8") -> Weight:
    return Weight(f"{node}_w", node, dtype, scales, (0.1, 0.5, 4.0), own)


def histogram(
    node: str, *, clipping: float = 0.0, gain: float = 0.0, dtype: str = "uint8", top: float = 6.0
) -> Histogram:
    return Histogram(f"{node}_out", node, dtype, (0.0, 9.0), (0.0, top), 0.01, clipping, gain, 0.0, 1.0, (1, 2))


def row(op_type: str, status: Any, reason: str = "", node: str = "n") -> Row:
    return Row(node, op_type, status, "", reason)


def record(node: str, accepted: bool) -> LayerRecord:
    return LayerRecord(node, "Conv", "tuned" if accepted else "raw", accepted, 10, 0.1, 1.0, 0.5, 1.0, 0.5)


CORRECTED = replace(record("c", True), choice="untuned", iterations=0)
"""A layer whose bias was corrected: fine-tuning is still to come."""


def latency(original: float, quantized: float) -> Latency:
    return Latency(*(Timing(v, v, v) for v in (original, quantized)), 10, 1, 1, "onnxruntime")


SATURATES = Certificate("may saturate", "1 of 2 pairs of weights are too large, in 1 of 1 rows", 2, 1, 1, 1)


def rough(share: float = 0.6, part: float = 1.0, **more: Any) -> ModelReport:
    """One layer whose weight, of even channels, makes the noise."""
    return report(layers=layers(layer("c", share, by_weight=part)), weights=(weight("c", **more),))


def uneven(share: float = 0.6, own: float = 0.2, **more: Any) -> ModelReport:
    """One layer whose weight has one scale for uneven channels."""
    return report(layers=layers(layer("c", share)), weights=(weight("c", own=own),), **more)


def ranged(share: float = 0.6, part: float = 0.0, **more: Any) -> ModelReport:
    """One layer whose output makes the noise."""
    return report(layers=layers(layer("c", share, by_weight=part)), histograms=(histogram("c", **more),))


def slow(original: float, quantized: float, **more: Any) -> ModelReport:
    return report(
        latency=latency(original, quantized), ledger=(row("Conv", "integer"), row("Erf", "float", "why")), **more
    )


def big(original: int, quantized: int, **config: Any) -> ModelReport:
    ledger = (row("Gather", "float", "left", node="g"),)
    sizes = Sizes(original, quantized, files=True)
    return report(sizes=sizes, ledger=ledger, notes={"g": "left"}, config=CONFIG | config)


def kept(accepted: int, of: int, **config: Any) -> ModelReport:
    tuned = tuple(record(str(i), i < accepted) for i in range(of))
    return report(tuned=tuned, config=CONFIG | {"include_fast_ft": True} | config)


def unquantized(**more: Any) -> ModelReport:
    usual = {"sites": {}, "ledger": (row("Conv", "float", "named in nodes_to_exclude"),)}
    return report(math.inf, **(usual | more))


def scored(original: float, quantized: float, **more: Any) -> ModelReport:
    return report(score=Score("top-1", original, quantized), **more)


def computed_in_float(**more: Any) -> ModelReport:
    ledger = (row("Conv", "float", "uint16 has no kernel", "c"), row("Conv", "integer", node="d"), row("Add", "float"))
    return report(ledger=ledger, **more)


def lost(sqnr: float = 3.0, protect: object = False, **more: Any) -> ModelReport:
    """A report of a run to which protection may have been forbidden."""
    config = CONFIG | {"extra_options": {"Protect": protect}} | more.pop("config", {})
    return report(sqnr, **{"config": config, **more})


def guarded(products: float = 0.0, time: float = 0.0, *, sqnr: float = 25.0) -> ModelReport:
    """A report of a run that left a front end float."""
    region = ProtectedRegion("float", ("s", "t"), ("fft", "mul"), "why", "y", 3.25, 35.0, products, time)
    return report(sqnr, protected=(region,))


CASES: list[tuple[str, ModelReport, str, str, list[ModelReport]]] = [
    # rule, report where it speaks, level, what it says, twins where it does not
    (
        "ran_out_of_time",
        failed("m", "tune", "timed out after 600 s"),
        "act",
        "Stopped during tune",
        [
            failed("m", "tune", "no such file"),
            failed("m", "tune", "two times zero"),
            report(),
        ],
    ),
    (
        "ran_out_of_memory",
        failed("m", "calibrate", "killed by signal 9"),
        "act",
        "Killed during calibrate",
        [
            failed("m", "calibrate", "killed? no: signal 93"[7:]),
            failed("m", "calibrate", "timed out"),
            report(),
        ],
    ),
    (
        "random_data",
        report(warnings=("calibrated on RANDOM data",)),
        "act",
        "mean nothing",
        [
            report(warnings=("a warning",)),
        ],
    ),
    (
        "nothing_quantized",
        unquantized(),
        "act",
        "all 1 nodes are float, 1 of them: named in nodes_to_exclude",
        [
            unquantized(sites={"weight": 1}),
            unquantized(ledger=(row("Conv", "integer"),)),
            unquantized(ledger=()),
            unquantized(config={"activation_type": "float16"}),
        ],
    ),
    (
        "score_lost",
        scored(0.75, 0.7),
        "act",
        "top-1 falls by 0.05, from 0.75 to 0.7: try fine-tuning (`include_fast_ft`)",
        [
            scored(0.75, 0.745),
            scored(0.75, 0.8),
            report(),
        ],
    ),
    (
        "uneven_weights",
        uneven(),
        "consider",
        "largest 8.0 × as far as the median one): try `per_channel`; with that "
        "alone, the output would gain about 2.8 dB",
        [
            uneven(own=0.9),
            uneven(share=0.1),
            uneven(target="vitisai"),
            report(layers=layers(layer("c", 0.6)), weights=(weight("c", scales=8, own=0.2),)),
            report(layers=layers(layer("c", 0.6, by_weight=0.1)), weights=(weight("c", own=0.2),)),
            replace(uneven(), sqnr={"y": 31.0}),
            replace(uneven(), layers=Layers()),
        ],
    ),
    (
        "clipped",
        ranged(clipping=0.9, gain=8.0),
        "act",
        "Clipping 1 tensor makes 60% of the noise at y (c_out): 0.01 of the "
        "values of c_out lie outside 0 … 6, up to 0 … 9. The range of least error (`calibrate_method` `MinMSE`) has "
        "8.0 dB less of it",
        [
            ranged(clipping=0.4, gain=8.0),
            ranged(clipping=0.9, gain=0.5),
            ranged(share=0.05, clipping=0.9, gain=8.0),
            ranged(part=0.9, clipping=0.9, gain=8.0),
        ],
    ),
    (
        "masked",
        ranged(top=3.4e38),
        "consider",
        "1 tensor with a mask among the values (c_out: 0 … 9) makes 60% of the "
        "noise at y: leave float what makes them (`nodes_to_exclude`), c; the output would gain up to 4.0 dB",
        [
            ranged(top=1e4),
            ranged(share=0.05, top=3.4e38),
        ],
    ),
    (
        "coarse",
        ranged(),
        "consider",
        "Rounding 1 tensor makes 60% of the noise at y, and no other range helps: uint8 is "
        "coarse for 0 … 9. With 16 bits (`TensorQuantOverrides`) for c_out, the output would gain up to 4.0 dB",
        [
            ranged(gain=3.5),
            ranged(clipping=0.9, gain=1.5),
            ranged(part=0.8),
            ranged(share=0.2),
            ranged(dtype="uint16"),
            ranged(top=3.4e38),
            replace(ranged(), target="tensorrt"),
            replace(ranged(), sqnr={"y": 31.0}),
        ],
    ),
    (
        "harmful_layer",
        report(15.0, layers=layers(layer("m", 0.4, op_type="MatMul"))),
        "act",
        "Layer m makes 40% of the noise at y: left float (`nodes_to_exclude`), the output would gain up to 2.2 dB",
        [
            report(15.0, layers=layers(layer("m", 0.2, op_type="MatMul"))),
            report(31.0, layers=layers(layer("m", 0.4, op_type="MatMul"))),
            report(15.0, layers=layers(layer("", 0.4, op_type=""))),
            report(15.0, layers=layers(layer("m", 0.4, op_type="Log")), notes={"m": "Log is not in the table"}),
        ],
    ),
    (
        "poor_output",
        report(12.0),
        "act",
        "Output y has 12.0 dB, below the 20 dB where accuracy usually goes: fine-tune "
        "with `include_fast_ft` (preset `A8W8_ADAROUND`)",
        [
            report(20.0),
            report(12.0, config={}),
            report(12.0, config={"activation_type": "bfloat16"}),
        ],
    ),
    (
        "unprotected",
        lost(),
        "act",
        "Output y has 3.0 dB, and protection is off: switch it on (`Protect`), and what ruins the output stays float",
        [
            lost(10.0),
            lost(protect=True),
            lost(protect=["!head"]),
            lost(config={"extra_options": {}}),
            lost(config={"include_auto_mp": True}),
            lost(target="vitisai"),
            lost(sites={"dynamic": 3, "weight": 2}),
            lost(config={"activation_type": "float16"}, sites={}),
        ],
    ),
    (
        "protected",
        guarded(0.031),
        "note",
        "Protection has 2 nodes float (fft, mul): output 'y' 3.2 dB → 35.0 dB, for 3% of the integer products. If that "
        'costs too much, forbid it: `Protect` ["!fft"]',
        [
            report(),
        ],
    ),
    (
        "fair_output",
        report(25.0),
        "consider",
        "The outputs keep 25.0 dB: if that is too little",
        [
            report(30.0),
            report(19.0),
            report(25.0, tuned=(record("c", True),), config=TUNED),
            report(25.0, config={}),
            report(25.0, config=CONFIG | {"use_dynamic_quant": True}),
        ],
    ),
    (
        "rough_weights",
        rough(),
        "consider",
        "Rounding 1 weight makes 60% of the noise at y (c): try fine-tuning "
        "(`include_fast_ft`), or scales by output error (`WeightCalibrateMethod` `SeqMSE`)",
        [
            rough(share=0.2),
            rough(part=0.3),
            rough(own=0.2),
            rough(dtype="int16"),
            replace(rough(), sqnr={"y": 31.0}),
            replace(rough(), tuned=(record("c", True),)),
            replace(rough(), config=CONFIG | {"use_dynamic_quant": True}),
        ],
    ),
    (
        "too_wide",
        ranged(gain=5.0),
        "consider",
        "1 tensor with a wide range makes 60% of the noise at y (c_out): c_out has "
        "0 … 6. The range of least error (`calibrate_method` `MinMSE`) has 5.0 dB less of it",
        [
            ranged(gain=2.9),
            ranged(gain=5.0, clipping=0.9),
            ranged(gain=5.0, share=0.05),
        ],
    ),
    (
        "few_samples",
        report(samples=4),
        "consider",
        "Calibrated on 4 samples only",
        [
            report(samples=32),
            report(samples=0),
            report(samples=4, sites={"weight": 2}),
            report(samples=4, config={}),
        ],
    ),
    (
        "tuning_refused",
        kept(1, 4),
        "consider",
        "kept for 1 of 4 layers",
        [
            kept(2, 4),
            kept(0, 3),
            kept(1, 4, include_fast_ft=False),
        ],
    ),
    (
        "runs_otherwise",
        report(12.0, written={"y": Measured(99, 36.0)}, departure=OTHERWISE),
        "act",
        "Output 'y' is worth 12.0 dB as onnxruntime runs it on this processor and 36.0 dB as it is written, the first "
        "to differ: c: products",
        [report(12.0), report(certificates={"c": SATURATES})],
    ),
    (
        "may_saturate",
        report(certificates={"c": SATURATES, "p": NO_PRODUCT, "d": SATURATES}),
        "act",
        "2 layers may saturate on x64 without VNNI (c, d)",
        [
            report(certificates={"p": NO_PRODUCT}),
            report(certificates={"c": SATURATES}, target="qnn"),
            report(certificates={"c": SATURATES}, departure=OTHERWISE),
            report(),
        ],
    ),
    (
        "unfused",
        computed_in_float(),
        "consider",
        "1 of 2 layers are quantized but computed in float",
        [
            computed_in_float(notes={"c": "excluded"}),
            computed_in_float(target="qnn"),
            computed_in_float(target="openvino", runtime=""),
            report(ledger=(row("Add", "float", "why"),)),
        ],
    ),
    (
        "not_faster",
        slow(2.0, 2.5),
        "consider",
        "takes 1.25 × the time of the float one in onnxruntime on this processor, at batch 1; 1 of 2 nodes are float",
        [
            slow(2.0, 1.8),
            slow(0.05, 0.09),
            slow(2.0, 2.5, target="qnn"),
            slow(2.0, 2.5, target="openvino", runtime=""),
            report(),
        ],
    ),
    (
        "larger",
        big(40_000, 50_000),
        "act",
        "The quantized model is 1.25 × as large as the float one",
        [
            big(49_000, 49_100),
            report(),
        ],
    ),
    (
        "not_smaller",
        big(1_000_000, 900_000),
        "consider",
        "The model has 90% of its size, where 8 bits would leave about 28%: not quantized are 1 Gather",
        [
            big(1_000_000, 500_000),
            big(1_000, 900),
            big(1_000_000, 1_100_000),
            big(1_000_000, 900_000, weight_type="int16"),
            replace(big(1_000_000, 900_000), config={}),
        ],
    ),
]


@pytest.mark.parametrize(("rule", "speaks", "level", "text", "silent"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_speaks_with_its_numbers_and_is_silent_else(
    rule: str, speaks: ModelReport, level: str, text: str, silent: list[ModelReport]
) -> None:
    (told,) = RULES[rule](speaks)
    assert told[0] == level
    assert text in told[2]
    assert told[2].endswith(".")
    for index, twin in enumerate(silent):
        assert not list(RULES[rule](twin)), f"twin {index}"


def test_every_rule_has_a_case() -> None:
    assert sorted(case[0] for case in CASES) == sorted(RULES)


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"preset": "S8S8_AAWS"}, "fine-tune with `include_fast_ft` (preset `S8S8_AAWS_ADAROUND`)"),
        ({"preset": ""}, "fine-tune with `include_fast_ft`."),
        (
            {"preset": "INT8_PROTECTED", "tuned": (CORRECTED,)},
            "fine-tune with `include_fast_ft` (preset `INT8_PROTECTED_ADAROUND`)",
        ),
        (
            {"tuned": (record("c", True),), "config": TUNED},
            "try 16 bits where they are needed (`include_auto_mp`, preset",
        ),
        (
            {"tuned": (record("c", True),), "config": TUNED, "target": "tensorrt"},
            "more bits are not to be had; exclude",
        ),
        (
            {"tuned": (record("c", True),), "config": TUNED | {"activation_type": "int16"}},
            "weights, too (`weight_type`)",
        ),
        (
            {"tuned": (record("c", True),), "config": TUNED | {"activation_type": "int16", "weight_type": "int16"}},
            "exclude the layers that lose most",
        ),
        ({"config": CONFIG | {"use_dynamic_quant": True}}, "exclude the layers that lose most (`nodes_to_exclude`)"),
    ],
)
def test_the_next_step_is_one_that_was_not_done(fields: dict[str, Any], step: str) -> None:
    ((_, subject, text),) = RULES["poor_output"](report(10.0, **fields))
    assert subject == "y"
    assert step in text


def test_a_layer_that_holds_a_mask_is_spoken_of_once() -> None:
    r = report(
        15.0, layers=layers(layer("a", 0.6, by_weight=0, op_type="Add")), histograms=(histogram("a", top=3.4e38),)
    )
    assert [advice.rule for advice in advise(r)] == ["masked", "poor_output"]


def read(*, notes: dict[str, str], top: float = 6.0) -> ModelReport:
    """What m makes in float makes the noise; a and b read it."""
    readers = (LayerError(f"{name}_out", name, "Conv", ("m_out",), 40.0, None, 60.0, None, 60.0, 0.05) for name in "ab")
    found = layers(layer("m", 0.6, op_type="Log", by_weight=0), *readers)
    return report(15.0, layers=found, notes=notes, histograms=(histogram("m", top=top),))


def test_what_is_float_is_not_to_be_left_float() -> None:
    """The readers are what integers are for; those of them that are float are none."""
    rule = RULES["harmful_layer"]
    ((level, subject, text),) = rule(read(notes={"m": "Log is not in the table"}))
    assert (level, subject) == ("act", "m")
    assert text.startswith(
        "What m makes in float is rounded for a, b, which makes 60% of the noise at y: with those left"
    )
    ((_, _, text),) = rule(read(notes={"m": "why", "a": "protected: why"}))
    assert "rounded for b, which" in text and "with that left float" in text
    assert not list(rule(read(notes={"m": "why", "a": "why", "b": "why"})))
    ((_, _, text),) = rule(read(notes={}))
    assert text.startswith("Layer m makes 60%")


def test_a_mask_that_a_float_node_makes_is_a_matter_of_its_readers() -> None:
    ((_, _, text),) = RULES["masked"](read(notes={"m": "why"}, top=3.4e38))
    assert "leave float what reads them (`nodes_to_exclude`), a, b; the" in text


def test_what_protection_costs_is_worth_a_thought_where_it_is_much() -> None:
    levels = [next(RULES["protected"](r))[0] for r in (guarded(0.09, 0.09), guarded(0.1), guarded(0.0, 0.12))]
    assert levels == ["note", "consider", "consider"]
    scales = ProtectedRegion("own scales", ("w",), ("dw",), "why", "y", 3.0, None, 0.0, 0.0)
    cheap, dear = guarded(0.01).protected[0], guarded(0.5).protected[0]
    told = list(RULES["protected"](report(protected=(scales, cheap, dear, scales))))
    assert [level for level, *_ in told] == ["consider", "note", "note"]  # the dearest first, and three at most
    assert told[2][2].startswith(
        "Protection has 1 weight with a scale per channel (w): output 'y' 3.0 dB → not measured"
    )
    assert told[2][2].endswith('at no cost. If that costs too much, forbid it: `Protect` ["!w"].')


def test_a_note_is_no_task() -> None:
    assert [advice.rule for advice in advise(guarded(0.01, sqnr=35.0))] == ["protected", "fine"]
    assert [advice.rule for advice in advise(guarded(0.3, sqnr=35.0))] == ["protected"]


def test_the_loss_of_a_layer_is_told_where_it_is_large() -> None:
    def told(accumulated: float) -> str:
        before = LayerError("x", "", "", (), 40.0, 35.0, 40.0, None, 60.0, 0.0)
        found = layers(before, layer("m", 0.4, op_type="MatMul", accumulated=accumulated))
        ((_, _, text),) = RULES["harmful_layer"](report(15.0, layers=found))
        return text

    assert told(22.9).startswith("Layer m loses 12.1 dB and makes 40%")
    assert told(30.0).startswith("Layer m makes 40%")


def test_the_score_asks_for_the_next_step() -> None:
    ((_, _, text),) = RULES["score_lost"](scored(0.75, 0.7, tuned=(record("c", True),), config=TUNED))
    assert "mixed precision (`include_auto_mp`)" in text
    ((_, _, text),) = RULES["score_lost"](scored(0.75, 0.7, tuned=(CORRECTED,)))
    assert "try fine-tuning (`include_fast_ft`)" in text


def test_parts_of_layers_add_up() -> None:
    found = layers(*(layer(name, 0.1) for name in "abcd"))
    r = report(layers=found, weights=tuple(weight(name) for name in "abcd"))
    ((_, _, text),) = RULES["rough_weights"](r)
    assert "Rounding 4 weights makes 40% of the noise at y (a, b, c, …)" in text


def test_the_urgent_comes_first_whatever_the_order_of_the_rules() -> None:
    found = layers(layer("c", 0.3), layer("d", 0.3, by_weight=0))
    r = report(layers=found, weights=(weight("c", own=0.2),), histograms=(histogram("d", clipping=0.9, gain=8.0),))
    assert [(a.level, a.rule) for a in advise(r)] == [
        ("act", "clipped"),
        ("consider", "uneven_weights"),
        ("consider", "harmful_layer"),
        ("consider", "harmful_layer"),
        ("consider", "fair_output"),
    ]
    assert list(RULES).index("uneven_weights") < list(RULES).index("clipped") and LEVELS[0] == "act"


@pytest.mark.parametrize(
    ("sqnr", "text"),
    [(35.0, "The outputs keep 35.0 dB: nothing to do."), (math.inf, "The outputs are exact: nothing to do.")],
)
def test_all_is_well(sqnr: float, text: str) -> None:
    (advice,) = advise(report(sqnr))
    assert (advice.rule, advice.level, advice.text) == ("fine", "note", text)


@pytest.mark.parametrize(("written", "level"), [(36.0, None), (25.0, "consider"), (15.0, "act")])
def test_bits_and_layers_are_judged_by_the_model_as_written(written: float, level: str | None) -> None:
    """Products that saturate are no fault of formats: a layer is left float, or given bits, for its own noise only."""
    found = layers(layer("c", 0.6, by_weight=0.1))
    r = report(12.0, layers=found, histograms=(histogram("c"),), score=Score("top-1", 0.6, 0.4))
    r = replace(r, written={"y": Measured(99, written)}, departure=OTHERWISE, certificates={"c": SATURATES})
    told = {advice.rule: advice for advice in advise(r)}
    assert told["runs_otherwise"].subject == "c" and "may_saturate" not in told
    assert "fast_ft" not in told["score_lost"].text
    harm = {"coarse", "harmful_layer"}
    assert {told[rule].level for rule in harm & told.keys()} == ({level} if level else set())
    assert ("poor_output" in told, "fair_output" in told) == (level == "act", level == "consider")
    assert advise(replace(r, departure=replace(OTHERWISE, here=False))) != advise(r)


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert advise(ModelReport("m", "0")) == ()
    assert advise(failed("m", "load", "no such file")) == ()


def test_advice_names_things_that_exist() -> None:
    known = {*QuantizationConfig.__dataclass_fields__, *OPTIONS, *PRESETS, "MinMSE", "SeqMSE"}
    texts = [text for name, r, *_ in CASES for *_, text in RULES[name](r)]
    quoted = {part for text in texts for part in text.split("`")[1::2]}
    assert quoted and quoted <= known


def test_the_table_of_the_documentation_has_every_rule() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reports.md").read_text("utf-8")
    table = text[text.index("## Advice") : text.index("### What following")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(RULES)


def test_the_documentation_has_every_field_of_the_json() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reports.md").read_text("utf-8")
    table = text[text.index("## JSON") : text.index("## Advice")]
    named = set(re.findall(r"`(\w+)`", table))
    for kind in (ModelReport, LayerError, Layers):
        assert kind.__dataclass_fields__.keys() <= named
