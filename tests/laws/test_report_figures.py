"""Laws of the report's values: figures in words, the geometry of drawings, and JSON that reads back as what it was."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.core.json_writing import json_text, plain
from quark_onnx.core.shown import figures
from quark_onnx.engine import result_wording
from quark_onnx.engine.activation_grid import Grid
from quark_onnx.report import drawing, wording
from quark_onnx.report.model_report import Advice, Histogram, LayerError, Layers, ModelReport, Score, Weight
from quark_onnx.report.zoo_rows import STATUSES, ZooRow

law = settings(deadline=None, max_examples=60)

decibels = st.floats(-80, 200) | st.sampled_from([math.inf, -math.inf])
names = st.text(min_size=1, max_size=20)


@st.composite
def errors(draw: st.DrawFn) -> LayerError:
    maybe = st.none() | decibels
    isolated, accumulated, rounding = draw(decibels), draw(maybe), draw(maybe)
    return LayerError(draw(names), draw(st.text(max_size=9)), "Conv", (), isolated, accumulated, rounding)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    start, width = draw(st.floats(-1e3, 1e3)), draw(st.floats(1e-3, 1e2))
    counts = tuple(draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=96)))
    end = start + width * len(counts)
    lo = draw(st.floats(start, end))
    hi = draw(st.floats(lo, end + 10 * width))
    return Histogram("t", "n", "int8", (start, end), (lo, hi), 0.0, 0.0, 0.0, start, width, counts)


# words


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.db(36.54), "36.5 dB"),
        (wording.db(math.inf), "exact"),
        (wording.db(-math.inf), "lost"),
        (wording.db(None), "–"),
        (figures.size(999), "999 B"),
        (figures.size(1917205), "1.92 MB"),
        (figures.size(2.5e12), "2500 GB"),
        (figures.milliseconds(0.0186), "18.6 µs"),
        (figures.milliseconds(4.3029), "4.3 ms"),
        (figures.milliseconds(1500), "1.5 s"),
        (figures.seconds(59.9), "59.9 s"),
        (figures.seconds(303), "5 min 3 s"),
        (figures.seconds(7500), "2 h 5 min"),
        (figures.percent(0.284), "28%"),
        (figures.percent(0.00123), "0.12%"),
        (figures.percent(0), "0%"),
        (figures.times(0.5), "0.50 ×"),
        (figures.number(0.59125), "0.5913"),
        (figures.count(1, "sample"), "1 sample"),
        (figures.count(0, "sample"), "0 samples"),
    ],
)
def test_figures_in_words(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("value", "grade"),
    [
        (30.0, "good"),
        (29.9, "fair"),
        (20.0, "fair"),
        (19.9, "poor"),
        (math.inf, "good"),
        (-math.inf, "poor"),
        (None, ""),
    ],
)
def test_grades_have_sharp_bounds(value: float | None, grade: str) -> None:
    assert result_wording.grade(value) == grade


@law
@given(st.floats(1, 1e15))
def test_a_size_keeps_three_digits(value: float) -> None:
    number, unit = figures.size(value).split()
    scale = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.006, abs=0.51)


def test_options_that_differ_come_first_and_empty_ones_are_left_out() -> None:
    default = {"per_channel": False, "target": "cpu", "nodes_to_exclude": (), "extra_options": {"Percentile": 99.9}}
    config = default | {"per_channel": True, "extra_options": {"Percentile": 99.9, "BiasCorrection": True}}
    report = ModelReport("m", "0", config=config, default=default)
    assert wording.options(report) == [
        ("per_channel", True, True),
        ("BiasCorrection", True, True),
        ("target", "cpu", False),
        ("Percentile", 99.9, False),
    ]
    assert not any(differs for _, _, differs in wording.options(ModelReport("m", "0", config=config)))


def test_reasons_are_counted_and_have_their_first_name() -> None:
    assert figures.reasons({"a": "x", "b": "y", "c": "x"}) == [("x", 2, "a"), ("y", 1, "b")]


# drawings


@law
@given(st.lists(errors(), min_size=2, max_size=40))
def test_every_mark_of_the_chart_is_inside_of_it_and_in_order(layers: list[LayerError]) -> None:
    chart = drawing.layer_chart(layers)
    assert chart is not None
    assert len(chart.isolated) == len(layers)
    assert len(chart.accumulated) == sum(layer.accumulated is not None for layer in layers)
    for marks in (chart.isolated, chart.accumulated):
        assert [m.x for m in marks] == sorted(m.x for m in marks)
        assert all(chart.left <= m.x <= chart.width and 0 < m.y <= chart.bottom for m in marks)
    heights = [y for y, _ in chart.ticks]
    assert heights == sorted(heights, reverse=True) and heights[0] == chart.bottom


@law
@given(st.lists(st.floats(0, 60), min_size=2, max_size=10))
def test_more_decibels_are_drawn_higher(values: list[float]) -> None:
    chart = drawing.layer_chart([LayerError(str(i), "", "Conv", (), v) for i, v in enumerate(values)])
    assert chart is not None
    drawn = sorted(zip(values, (m.y for m in chart.isolated), strict=True))
    assert [y for _, y in drawn] == sorted((y for _, y in drawn), reverse=True)


def test_what_is_beyond_the_chart_is_drawn_at_its_edges() -> None:
    layers = [LayerError(str(i), "", "Conv", (), v) for i, v in enumerate((math.inf, 60.0, 0.0, -math.inf))]
    chart = drawing.layer_chart(layers)
    assert chart is not None
    top, sixty, zero, lost = (m.y for m in chart.isolated)
    assert top == sixty and zero == lost == chart.bottom
    assert chart.ticks[-1] == (top, "60+ dB")
    assert drawing.layer_chart(layers[:1]) is None


def test_five_hundred_layers_have_few_labels_and_small_marks() -> None:
    few, many = (drawing.layer_chart([LayerError(str(i), "", "Conv", (), 30.0) for i in range(n)]) for n in (10, 500))
    assert few is not None and many is not None
    assert len(few.labels) == 10 and len(many.labels) <= 24
    assert many.radius < few.radius


@law
@given(histograms())
def test_bars_are_inside_and_as_tall_as_their_counts(histogram: Histogram) -> None:
    drawn = drawing.bars(histogram)
    filled = [count for count in histogram.counts if count]
    assert len(drawn.bars) == len(filled)
    for x, y, width, tall, _ in drawn.bars:
        assert x >= -0.02 and x + width <= drawn.width + 0.02
        assert y >= 0 and y + tall == pytest.approx(drawn.base, abs=0.02)
    heights = [tall for _, _, _, tall, _ in drawn.bars]
    assert [h for _, h in sorted(zip(filled, heights, strict=True))] == sorted(heights)
    lo, hi = drawn.inside
    assert 0 <= lo <= hi + 0.01 <= drawn.width + 0.02


def test_bars_outside_of_the_range_are_marked() -> None:
    h = Histogram("t", "n", "int8", (0.0, 10.0), (0.0, 5.0), 0.5, 1.0, 0.0, 0.0, 1.0, (1,) * 10)
    assert [within for *_, within in drawing.bars(h).bars] == [True] * 5 + [False] * 5
    assert drawing.bars(h).inside == (0.0, 180.0)


# data


@law
@given(st.lists(errors(), max_size=12))
def test_by_weight_is_a_part(layers: list[LayerError]) -> None:
    assert all(0 <= layer.by_weight <= 1 for layer in layers)
    known = Layers(tuple(layers), "", 1)
    assert len(known.worst(5)) == min(5, len(layers))


def test_by_weight_is_what_rounding_leaves() -> None:
    def part(isolated: float, rounding: float | None) -> float:
        return LayerError("t", "n", "Conv", (), isolated, rounding=rounding).by_weight

    assert part(20.0, 20.0) == 0
    assert part(20.0, 30.0) == pytest.approx(0.9)
    assert part(20.0, None) == 1
    assert part(math.inf, math.inf) == 0


def test_the_loss_of_a_layer_is_against_its_worst_input() -> None:
    a, b = LayerError("a", "", "", (), 40.0, 40.0), LayerError("b", "", "", (), 30.0, 30.0)
    c = LayerError("c", "n", "Add", ("a", "b"), 25.0, 22.0)
    d = LayerError("d", "n", "Conv", ("unknown",), 25.0, 22.0)
    layers = Layers((a, b, c, d))
    assert layers.loss(c) == 8.0
    assert layers.loss(a) is None and layers.loss(d) is None


def test_the_worst_layers_are_those_of_most_noise_then_of_most_error() -> None:
    loud, quiet = LayerError("a", "", "", (), 40.0, share=0.9), LayerError("b", "", "", (), 5.0, share=0.1)
    assert Layers((quiet, loud)).worst(2) == [loud, quiet]
    far, near = LayerError("a", "", "", (), 5.0), LayerError("b", "", "", (), 40.0)
    assert Layers((near, far)).worst(1) == [far]


def test_the_ratio_of_a_weight_needs_channels() -> None:
    assert Weight("w", "n", "int8", 1, (0.5, 1.0, 4.0)).ratio == 4.0
    assert Weight("w", "n", "int8", 1, (0.0, 0.0, 4.0)).ratio is None
    assert Weight("w", "n", "int8", 1, None).ratio is None


@law
@given(st.integers(0, 255), st.floats(1e-3, 1e3), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_a_grid_rounds_to_its_nearest_point(zero: int, scale: float, values: list[float]) -> None:
    grid = Grid("uint8", scale, zero, 0, 255)
    points = (np.arange(256) - zero) * np.float32(scale)
    x = np.asarray(values, np.float32)
    nearest = np.abs(x[:, None] - points).min(1)
    assert np.abs(x - grid.rounded(x)) == pytest.approx(nearest, rel=1e-3, abs=1e-3 * scale)
    assert grid.ends == ((0 - zero) * scale, (255 - zero) * scale)
    assert grid.bits == 8 and Grid("uint8", scale, 0, 0, 15).bits == 4


# JSON


@law
@given(st.lists(errors(), max_size=5), st.dictionaries(names, decibels, max_size=3))
def test_a_report_as_json_is_strict_and_holds_every_value(layers: list[LayerError], sqnr: dict[str, float]) -> None:
    report = ModelReport(
        "m", "0", sqnr=sqnr, layers=Layers(tuple(layers), "y", 3), advice=(Advice("r", "act", "", "t"),)
    )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(json_text(report), parse_constant=refuse)
    assert read == plain(report)
    assert {name: float(value) for name, value in read["sqnr"].items()} == sqnr
    for layer, stored in zip(layers, read["layers"]["layers"], strict=True):
        ratios = ("isolated", "accumulated", "rounding", "weight", "output", "share")
        back = {name: None if stored[name] is None else float(stored[name]) for name in ratios}
        assert stored | back | {"inputs": tuple(stored["inputs"])} == asdict(layer)


@law
@given(
    st.sampled_from(STATUSES),
    st.none() | decibels,
    st.none() | st.floats(0),
    st.none() | st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)),
    st.none() | st.builds(Score, names, st.floats(0, 1), st.floats(0, 1)),
    st.lists(st.text(max_size=9), max_size=3),
)
def test_a_row_reads_back(status, sqnr, kl, sizes, score, lines) -> None:  # type: ignore[no-untyped-def]
    texts, classes = tuple(lines), {"kl": kl, "agreement": None if kl is None else 0.5}
    row = ZooRow("m", status, sqnr=sqnr, bytes=sizes, score=score, advice=texts, log=texts, seconds=1.5, **classes)
    assert ZooRow.from_dict(json.loads(json_text(row)) | {"of a later version": 1}) == row


@pytest.mark.parametrize("values", [{}, {"name": "m"}, {"name": "m", "status": "great"}, {"status": "done"}])
def test_what_is_no_row_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is no row"):
        ZooRow.from_dict(values)


def test_ratios_of_a_row_need_both_figures() -> None:
    row = ZooRow("m", "done", bytes=(400, 100), milliseconds=(2.0, 1.0))
    assert (row.size_ratio, row.latency_ratio) == (0.25, 0.5)
    empty = ZooRow("m", "done", bytes=(0, 0))
    assert (empty.size_ratio, empty.latency_ratio) == (None, None)
