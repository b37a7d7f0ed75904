"""What notebooks and `print` show of values: well formed, bounded, safe, and no more than what is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_pages import HOSTILE, card
from hypothesis import given
from hypothesis import strategies as st
from made_up_searches import mobilenet, searched
from text_models import normal, text_model

from quark_onnx import Config, ModelQuantizer, Plan, Report, Result, get_default_config
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import QParams, Site
from quark_onnx.core.records import LayerRecord, Measured, ProtectedRegion, Slice
from quark_onnx.core.shown.card import Card, Shown, Tile
from quark_onnx.core.shown.charts import CELLS, Bar, bars, strip
from quark_onnx.core.shown.markup import Html, tag
from quark_onnx.core.visible_text import UNSEEN
from quark_onnx.engine.layer_sqnr import LayerSqnr
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.saturation_certificate import Certificate
from quark_onnx.zoo.events import ZooResult
from quark_onnx.zoo.rows import Cost, Outcome
from quark_onnx.zoo.rows import Row as ZooRow

TEXT = """g (float[1, 8] x) => (float[1, 3] y) <float[8, 6] w, float[6, 3] v> {
    h = MatMul (x, w)
    r = Relu (h)
    e = Erf (r)
    y = MatMul (e, v)
}"""

MANY = 5000


@pytest.fixture(scope="module")
def result() -> Result:
    """Of two layers with an operator between them that stays float."""
    model = text_model(TEXT, w=normal(8, 6), v=normal(6, 3))
    return ModelQuantizer(Config()).quantize_model(model, None, normal(30, 1, 8))


def report(name: str = "", **more: Any) -> Report:
    """A report with something in every part that is shown."""
    large = Certificate("may saturate", "why", 311, 17, 23, 5)
    given: dict[str, Any] = {
        "sqnr": {f"y{name}": 36.5},
        "outputs": {f"y{name}": Measured(640, 36.5, agreement=0.982, kl=0.0123)},
        "ledger": (
            Row(f"conv{name}", "Conv", "integer", "QLinearConv", "", large),
            Row(f"relu{name}", f"Relu{name}", "absorbed", "", ""),
            Row(f"erf{name}", "Erf", "float", "Erf", f"why{name}"),
        ),
        "remarks": {},
        "warnings": (),
        "prepared": {},
        "seconds": {"tune": 61.0, "prove": 2.0},
        "bytes": {"float": 4000, "quantized": 1000},
        "stored": {"float": 1_917_205, "quantized": 544_297},
        "samples": 200,
        "probes": "held out",
        "judged": 40,
        "tuned": (LayerRecord(f"conv{name}", "Conv", "tuned", True, 451, 1.5, 2.0, 1.0, 2.0, 0.5),),
        "protected": (
            ProtectedRegion("float", (f"s{name}",), (f"fft{name}",), "why", f"y{name}", 3.0, 35.0, 0.03, 0.01),
        ),
    }
    return Report(**(given | more))


def plan(name: str = "", count: int = 1) -> Plan:
    """A plan of so many layers."""
    names = [f"{name}{index}" for index in range(count)]
    sites = {n: Site(n, "weight", Format(symmetric=True, axis=0), n, "layer") for n in names}
    known = {n: QParams(np.array([0.5, 0.25], np.float32), np.zeros(2, np.int32)) for n in names[:-1]}
    nodes = {f"node{n}": (n,) for n in names}
    notes = {f"float{n}": f"reason{n}" for n in names}
    return Plan(f"model{name}", sites, nodes, notes, known, remarks={names[-1]: f"raised{name}", "*": "all is well"})


def zoo(name: str = "", count: int = 1) -> ZooResult:
    """A zoo with one failed model among good ones."""
    good = ZooRow(f"m{name}", "m.onnx", "good", preset=f"S8S8{name}", bytes={"float": 8, "quantized": 2})
    bad = replace(good, name=f"bad{name}", status="failed", stage="prepare", reason=f"broken{name}")
    return ZooResult(Path(f"zoo{name}"), (*[Outcome(good, Cost(2.0))] * count, Outcome(bad)))


def search(name: str = "") -> Any:
    """A search whose names are these."""
    found = mobilenet()
    points = tuple(replace(point, name=f"{point.name}{name}") for point in found.points)
    return replace(found, points=points, warnings=(f"slow{name}",), blame=(f"budget{name}",))


VALUES: dict[str, Callable[[str], Any]] = {
    "Report": report,
    "Result": lambda name: Result(plan(name), None, report(name), Path(f"out{name}.onnx"), None),  # type: ignore[arg-type]
    "Plan": lambda name: plan(name, 3),
    "LayerSqnr": lambda name: LayerSqnr({f"t{name}": 12.0, f"u{name}": math.inf}),
    "Optimized": search,
    "ZooResult": zoo,
}


@pytest.mark.parametrize("value", VALUES)
def test_names_do_no_harm(value: str) -> None:
    """Nor does it take more than what is in the value: models, samples and figures per layer are not there."""
    shown = VALUES[value](HOSTILE)
    page = card(shown._repr_html_())
    assert "<script>alert" in page.text  # as text
    assert UNSEEN.findall(repr(shown)) == [] and "\n" not in repr(shown)


def test_a_result_as_it_is_shown(result: Result) -> None:
    page = card(result._repr_html_())
    for expected in ("Result, not written to a file", "Output SQNR", "Size", "2 of 4", "Erf", "result.layer_sqnr()"):
        assert expected in page.text
    assert page.tags["svg"] > 2
    assert "Report" in card(result.report._repr_html_()).text
    assert page.text.startswith("Result")


def test_a_plan_lists_its_tensors(result: Result) -> None:
    text = card(result.plan._repr_html_()).text
    for tensor, site in result.plan.sites.items():
        assert f"{tensor} {site.role} {site.format.dtype}" in text
    scale = float(result.plan.qparams_of("x").scale)
    assert f"{scale:.4g}" in text
    assert "2 of 4" in text and "What stays float" in text


@pytest.mark.parametrize("name", ["x", "x\x1b[2J"])
def test_what_print_shows_is_a_line(name: str) -> None:
    text = repr(replace(report(name), warnings=("a",)))
    assert text.startswith("<Report: look here: output 'yx") and text.endswith(">")
    assert "1 warning" in text and "Size 544 kB" in text and len(text) < 300
    assert repr(plan(name)).startswith("<Plan of model modelx")


GOOD_DB = Measured(64, 36.5)

VERDICTS: list[tuple[dict[str, Measured], tuple[str, ...], str]] = [
    ({"y": GOOD_DB}, (), "good output 'y' keeps 36.5 dB"),
    ({"y": GOOD_DB}, ("a range is wrong",), "look here output 'y' keeps 36.5 dB; 1 warning"),
    ({"y": Measured(64, 25.0)}, (), "look here output 'y' keeps 25.0 dB, which is fair"),
    ({"y": GOOD_DB, "z": Measured(64, 12.0)}, (), "look here output 'z' keeps 12.0 dB, which is poor, the worst of 2"),
    ({"y": Measured(64, 36.0, worst=Slice(1, 4, 3.1))}, (), "look here output 'y' keeps 36.0 dB, worst 3.1 dB"),
    ({"y": Measured(64, math.inf)}, (), "good output 'y' keeps exact"),
    ({"y": Measured(64, -math.inf)}, (), "look here output 'y' keeps lost"),
    ({"y": Measured(64, equal=0.5)}, (), "look here output 'y' has 50.00% equal values"),
    ({"y": Measured()}, (), "look here nothing was measured"),
    ({}, (), "look here nothing was measured"),
]


@pytest.mark.parametrize(("outputs", "warnings", "expected"), VERDICTS)
def test_the_verdict_stands_first(outputs: dict[str, Measured], warnings: tuple[str, ...], expected: str) -> None:
    text = card(report(outputs=outputs, warnings=warnings)._repr_html_()).text
    assert text.startswith(f"Report {expected}")
    assert all(warning in text for warning in warnings)


@pytest.mark.parametrize("outputs", [{}, {"y": Measured()}])
def test_what_was_not_measured_is_not_called_exact(outputs: dict[str, Measured]) -> None:
    text = card(report(outputs=outputs, protected=(), ledger=())._repr_html_()).text
    assert "Output SQNR not measured" in text
    assert "exact" not in text and " good" not in text
    empty = card(LayerSqnr()._repr_html_()).text
    assert "nothing was measured" in empty and "exact" not in empty


def test_a_model_quantized_without_data_was_not_measured() -> None:
    model = text_model(TEXT, w=normal(8, 6), v=normal(6, 3))
    shown = ModelQuantizer(get_default_config("UINT8_DYNAMIC_QUANT")).quantize_model(model)
    text = card(shown._repr_html_()).text
    assert "look here nothing was measured" in text and "0 samples" in text


def test_a_model_that_is_quantized_as_it_runs_has_no_layers_to_show() -> None:
    model = text_model("g (float[N,8] x) => (float[N,3] y) <float[8,3] w> { y = MatMul(x, w) }", w=normal(8, 3))
    result = ModelQuantizer(get_default_config("UINT8_DYNAMIC_QUANT")).quantize_model(model, None, normal(20, 1, 8))
    assert result.layer_sqnr() == {}
    assert card(result.layer_sqnr()._repr_html_()).text


def test_cards_of_large_models_are_short() -> None:
    """The worst are shown, and how many are not."""
    rows = tuple(Row(f"n{i}", f"Op{i % 100}", "float" if i == 4321 else "integer", "k", f"r{i}") for i in range(MANY))
    tuned = tuple(LayerRecord(f"t{i}", "Conv", "tuned", True, 1, 1.0, 1.0, 1.0, float(MANY), i) for i in range(MANY))
    large = report(ledger=rows, tuned=tuned, warnings=tuple(f"warning {i}" for i in range(50)))
    text = card(large._repr_html_()).text
    assert "t4999 " in text and "t1234 " not in text and "… and 4,980 more" in text
    assert "… and 80 more" in text and "… and 44 more" in text and "Op21 49 of 50" in text
    ratios = LayerSqnr({f"t{i}": float(i % 1000) for i in range(MANY)})
    page = card(ratios._repr_html_())
    assert "t4000 0.0 dB" in page.text and "t999 " not in page.text and "… and 4,980 more" in page.text
    planned = card(plan("p", MANY)._repr_html_())
    assert planned.text.count("… and 4,980 more") == 2 and "raised" in planned.text
    assert planned.text.index(" p4999 weight") < planned.text.index(" p0 weight")  # something is remarked of it
    assert all(len(value._repr_html_()) < 40_000 for value in (large, ratios, plan("p", MANY), zoo("z", MANY)))


def test_one_float_node_among_thousands_is_seen() -> None:
    levels = ["good"] * 3333 + ["fair"] + ["good"] * 1666
    drawn = strip(levels, [f"n{i}" for i in range(MANY)])  # type: ignore[arg-type]
    assert drawn.count("<rect") == 3 and drawn.count('class="fair"') == 1
    assert "n3328 … n3340" in drawn  # all that its cell stands for
    assert drawn.count('height="4"') == 1  # it is seen without colours, too
    alternating = strip(["good", "fair"] * 100, [f"n{i}" for i in range(200)])  # type: ignore[list-item]
    assert alternating.count("<rect") == 200 <= CELLS
    assert strip([], []) == ""


def test_the_worst_layers_come_first() -> None:
    ratios = LayerSqnr({"fine": 45.0, "lost": -math.inf, "exact": math.inf, "broken": math.nan, "bad": 8.0})
    text = card(ratios._repr_html_()).text
    order = [text.rindex(f" {name} ") for name in ("broken", "lost", "bad", "fine", "exact")]
    assert order == sorted(order)
    assert "look here" in text


def test_ratios_of_layers_stay_a_dictionary(result: Result) -> None:
    ratios = result.layer_sqnr()
    assert dict(ratios) == ratios and json.loads(json.dumps(ratios)) == ratios
    assert repr(ratios) == repr(dict(ratios))
    assert set(ratios) == {tensor for tensor, site in result.plan.sites.items() if site.role == "activation"}


def test_a_search_says_whether_its_budget_is_met() -> None:
    assert "Search for the least size good" in card(mobilenet()._repr_html_()).text
    missed = replace(mobilenet(), met=False)._repr_html_()
    assert "look here" in card(missed).text and "chosen" in missed and "badge poor" in missed
    point = mobilenet().point
    bare = searched([replace(point, number=1)], 1, budget={}, float_size=0, objective="balanced")
    text = card(bare._repr_html_()).text
    assert text.startswith("Search for the best balance the smallest") and "look here" not in text


def test_a_zoo_shows_first_what_is_wrong() -> None:
    text = card(zoo("", 30)._repr_html_()).text
    assert "Zoo, zoo look here 1 to look at" in text and "30 of 31" in text
    assert text.index("broken") < text.index("good: S8S8") and "… and 11 more" in text
    alone = replace(zoo(), outcomes=zoo().good)
    assert "Zoo, zoo good" in card(alone._repr_html_()).text


@given(share=st.floats(), figure=st.text(), name=st.text())
def test_any_figure_and_name_can_be_drawn(share: float, figure: str, name: str) -> None:
    drawn = bars(name, [Bar(name, share, figure)], 1)
    page = card(Card(name, figure, name, [Tile(name, figure, name)], [drawn]).html)
    widths = [float(value) for attribute, value in page.attributes if attribute == "width"]
    assert len(widths) == 2 and all(0 <= width <= 100 for width in widths)


@given(st.text(), st.text())
def test_text_never_becomes_markup(text: str, value: str) -> None:
    made = tag("b", text, class_=value)
    assert made.count("<") == 2 and made.count(">") == 2
    assert made.count('"') in (0, 2) and UNSEEN.findall(made) == []
    assert tag("p", Html("<i></i>")) == "<p><i></i></p>"


def test_a_value_without_a_card_is_a_fault() -> None:
    with pytest.raises(NotImplementedError):
        repr(Shown())
