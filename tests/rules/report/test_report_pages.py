"""The pages: well formed, with everything in them, nothing from the network, and nothing that a name could do."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")

from html_pages import HOSTILE, Page, safe

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.json_writing import plain
from quark_onnx.core.records import (
    Correction,
    Latency,
    LayerRecord,
    Measured,
    MixRecord,
    ProtectedRegion,
    Slice,
    Timing,
)
from quark_onnx.core.visible_text import visible
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.result_wording import grade
from quark_onnx.engine.saturation_certificate import NO_PRODUCT, Certificate
from quark_onnx.report.advice import advise
from quark_onnx.report.build import failed
from quark_onnx.report.model_report import (
    Advice,
    Histogram,
    LayerError,
    Layers,
    Memory,
    ModelReport,
    Score,
    Sizes,
    Weight,
)
from quark_onnx.report.pages import model_page, write_report, write_zoo, zoo_page
from quark_onnx.report.zoo_rows import ZooRow, row_of


def full(name: str = "model") -> ModelReport:
    """A report with something in every field."""
    layers = (
        LayerError(f"x{name}", "", "", (), 42.1, 42.1, 42.1, None, 51.2, 0.1),
        LayerError(f"t{name}", f"conv{name}", "Conv", (f"x{name}",), 21.9, 14.7, 53.8, 35.9, 15.7, 0.75),
        LayerError("u", "pool", "MaxPool", (f"t{name}",), math.inf, 14.7, None, None, math.inf, 0.0),
        LayerError("v", "gemm", "Gemm", ("u",), 33.3, -math.inf, 38.8, 31.4, 27.3, 0.15),
    )
    histogram = Histogram(
        f"t{name}", f"conv{name}", "uint8", (-1.5, 7.25), (0.0, 6.5), 0.031, 0.62, 1.7, -1.5, 1.0, (5, 0, 9)
    )
    large = Certificate("may saturate", "why", 311, 17, 23, 5)
    unknown = Certificate("unknown", f"computed{name}")
    integer = Row(f"conv{name}", "Conv", "integer", "QLinearConv", "")
    return ModelReport(
        name,
        "9.8.7",
        preset="S8S8_AAWS",
        config={"per_channel": True, "weight_type": "int8", "extra_options": {"Percentile": 99.87}},
        default={"per_channel": False, "weight_type": "int8", "extra_options": {"Percentile": 99.87}},
        score=Score(f"top-1{name}", 0.5912, 0.5537),
        sqnr={f"y{name}": 27.3, "second": math.inf},
        outputs={f"y{name}": Measured(640, 27.3, worst=Slice(1, 4, 12.3)), "second": Measured(4, math.inf),
                 "label": Measured(64, equal=0.9844), "p": Measured(64, 31.0, agreement=0.95, kl=0.0123)},
        written={f"y{name}": Measured(640, 27.4, worst=Slice(1, 5, 12.6)), "second": Measured(4, 98.7),
                 "label": Measured(64, equal=0.9688), "p": Measured(64, 31.2)},
        sizes=Sizes(1917205, 544297, files=True),
        latency=Latency(Timing(8.21, 8.0, 9.0), Timing(4.32, 4.1, 5.0), 77, 3, 1, "onnxruntime"),
        memory=Memory(18_600_000, 12_700_000, 330_000_000),
        fused={"Conv": (27, 28)},
        ledger=(integer, Row("erf", "Erf", "float", "Erf", f"why{name}")),
        notes={"erf": f"note{name}"},
        certificates={f"gap{name}": NO_PRODUCT, f"conv{name}": large, f"mm{name}": unknown},
        prepared={"fold-bn": 13},
        sites={"activation": 29, "weight": 28},
        layers=Layers(layers, f"y{name}", 8),
        histograms=(histogram,),
        weights=(Weight(f"w{name}", f"conv{name}", "int8", 1, (0.1, 0.45, 14.4), 0.2),),
        tuned=(LayerRecord(f"conv{name}", "Conv", "tuned", True, 451, 1.5, 2.0, 1.0, 2.345, 1.122),),
        untuned={f"erf{name}": f"no weight{name}"},
        correction=Correction(True, 13.68, 22.66, 8),
        mixed=(MixRecord(f"gemm{name}", "Gemm", 17.71, True),),
        protected=(ProtectedRegion("float", (f"s{name}",), tuple(f"{op}{name}" for op in ("fft", "mul", "add", "log")),
                                   f"s{name} alone", f"y{name}", -math.inf, 35.25, 0.034, -0.012),
                   ProtectedRegion(
                       "own scales", (f"w{name}",), (f"dw{name}",), "uneven", "second", None, math.inf, 0.0, 0.0)),
        remarks={f"t{name}": f"scale raised{name}", "*": "all is well"},
        warnings=(f"beware{name}",),
        seconds={"prepare": 1.1, "tune": 62.5},
        samples=200,
        advice=(Advice("r", "act", "", f"Try `per_channel` on {name}."), Advice("s", "consider", "", "Wait."),
                Advice("t", "note", "", "Fine.")),
    )  # fmt: skip


def test_every_fact_of_the_report_is_on_the_page() -> None:
    page = safe(model_page(full(), "model.json", "../index.html"))
    for fact in (
        "model S8S8_AAWS for cpu · 200 samples · quark_onnx 9.8.7",
        "top-1model 0.5537 float 0.5912",
        "Output SQNR, worst 12.3 dB poor: as a whole 27.3 dB",
        "ymodel 27.3 dB 12.3 dB (axis 1, index 4) – 12.6 dB",
        "label 98.44% equal – – 96.88% equal",
        "p 31.0 dB – same arg-max 95.00%, KL 0.0123 31.2 dB",
        "KL(float ‖ quantized) 0.0123 same arg-max 95.00%",
        "Size 544 kB 28% of 1.92 MB",
        "Latency, batch 3 4.32 ms 0.53 × the float 8.21 ms",
        "Memory of a run 12.7 MB float 18.6 MB",
        "On integers 1 of 2 nodes",
        "Do Try per_channel on model.",
        "Consider Wait.",
        "Note Fine.",
        "second exact – – 98.7 dB",
        "2 conv t Conv 21.9 dB 14.7 dB 53.8 dB 35.9 dB 15.7 dB 75%".replace(" t ", " tmodel ").replace(
            "conv", "convmodel"
        ),
        "1 xmodel input 42.1 dB 42.1 dB 42.1 dB – 51.2 dB 10%",
        "3 pool u MaxPool exact 14.7 dB – – exact 0%",
        "4 gemm v Gemm 33.3 dB lost 38.8 dB 31.4 dB 27.3 dB 15%",
        "Measured on 8 samples",
        "tmodel, uint8 Seen -1.5 … 7.25 Range 0 … 6.5 Outside 3.1% of the values; 62% of the error is clipping",
        "Best range 1.7 dB less error",
        "convmodel wmodel int8 1 0.45 14.4 32.00 ×",
        "Conv 27 28",
        "Erf 1 whymodel erf",
        "convmodel Conv integer QLinearConv",
        "1 of 3 integer nodes exact on every processor, 1 may saturate on x64 without VNNI (convmodel)",
        "1 cannot be known (mmmodel)",
        "2 nodes not certified",
        "convmodel may saturate 17 311 5 23 mmmodel unknown: computedmodel 0 0 0 0",
        "Bias correction was kept: the worst output is worth 22.7 dB with it, 13.7 dB without, on 8 samples",
        "1 of 1 layers were changed",
        "convmodel Conv tuned 2.345 1.122 -52% 451 1.5 s",
        "1 × no weightmodel (erfmodel)",
        "1 of 1 layers moved",
        "gemmmodel Gemm 17.71 yes",
        "4 nodes float (fftmodel, mulmodel, addmodel, …) smodel alone ymodel lost 35.2 dB -3.4% -1.2%",
        "1 weight with a scale per channel (wmodel) uneven second – exact 0% 0%",
        "per_channel True",
        "Percentile 99.87",
        "Quantizers: 29 activation, 28 weight. Rewrites of the float model: 13 fold-bn.",
        "notemodel 1 erf",
        "bewaremodel",
        "tmodel : scale raisedmodel",
        "all is well",
        "middle 80% of 77 runs in turn, 1 thread",
        "330 MB at most in the process",
        "1 min 4 s: prepare 1.1 s, tune 1 min 2 s",
    ):
        assert fact in page.text, fact
    assert {"./model.json", "./../index.html"} <= set(page.links)


def test_drawings_say_what_they_show() -> None:
    page = safe(model_page(full()))
    assert page.tags["svg"] == 4  # chart, two signs of its legend, one histogram
    assert "convmodel: isolated 21.9 dB" in page.text and "pool: isolated exact" in page.text
    assert ("aria-label", "Histogram of tmodel") in page.attributes


def test_fields_that_differ_from_the_preset_are_bold() -> None:
    text = model_page(full())
    assert "<b>per_channel</b>" in text and "<b>weight_type</b>" not in text


def test_a_hostile_name_is_text_wherever_it_stands() -> None:
    text = model_page(full(HOSTILE), f"{HOSTILE}.json", HOSTILE)
    page = safe(text)
    clean = safe(model_page(full(), "model.json", "x"))
    assert {**page.tags, "code": 0} == {**clean.tags, "code": 0}
    assert page.text.count(HOSTILE[:20]) > 20
    assert "javascript:" not in text
    assert all(link.startswith("./%3Cscript%3E") for link in page.links if link.startswith("./"))


@pytest.mark.parametrize(
    "path", ["javascript:alert(1)", "http:" + "//example.org/x", "//example.org", "\\\\host\\x", 'a"b']
)
def test_an_address_stays_below_the_page(path: str) -> None:
    page = Page(model_page(ModelReport("m", "0"), path, path))
    assert page.links.count("#content") == 1
    relative = [link for link in page.links if link.startswith("./")]
    assert len(relative) == 2
    assert not any(re.search(r'[":\\]', link) for link in relative)


EMPTY = ModelReport("empty", "0")
ONE = ModelReport("one", "0", sqnr={"y": math.inf}, layers=Layers((LayerError("y", "n", "Conv", (), 30.0),), "", 1))
LOST = replace(
    full(), sqnr={"y": -math.inf}, latency=None, memory=None, sizes=None, histograms=(), weights=(), tuned=()
)
UNEVEN = replace(full(), memory=Memory(None, None, None), sizes=Sizes(0, 0, files=False), histograms=(
    Histogram("t", "", "uint8", (0.0, 0.0), (-3.4e38, 3.4e38), 0.0, 0.0, 0.0, -3.4e38, 7e36, (0,) * 96),))  # fmt: skip


@pytest.mark.parametrize("report", [EMPTY, ONE, LOST, UNEVEN], ids=["empty", "one layer", "lost", "degenerate"])
def test_what_is_missing_leaves_no_empty_section(report: ModelReport) -> None:
    text = model_page(report)
    page = safe(text)
    assert not re.search(r"<(tbody|ul|dl|p)[^>]*>\s*</\1>", text)
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", page.text)
    headings = re.findall(r'<h2 id="(\w+)">', text)
    assert [link[1:] for link in page.links if link.startswith("#")].count("content") == 1
    assert all(f'href="#{name}"' in text for name in headings if name != "outputs")


def test_a_page_of_nothing_has_no_sections() -> None:
    assert safe(model_page(EMPTY)).tags["section"] == 0
    assert safe(model_page(ONE)).tags["svg"] == 0  # a chart of one layer is none
    assert "exact" in safe(model_page(ONE)).text and "lost" in safe(model_page(LOST)).text


def test_a_failure_has_its_stage_reason_log_and_advice() -> None:
    page = safe(model_page(failed("m", "calibrate", f"killed {HOSTILE}", ["line 1", HOSTILE], preset="A8W8")))
    for fact in (
        "failed A8W8",
        "Stage calibrate",
        f"Reason killed {visible(HOSTILE)}",
        "line 1",
        "Do Killed during calibrate",
    ):
        assert fact in page.text, fact
    assert page.tags["svg"] == 0 and 'class="tiles"' not in model_page(failed("m", "a", "b"))


def test_five_hundred_layers_make_a_page_of_some_hundred_kilobytes() -> None:
    layers = tuple(
        LayerError(f"tensor{i}", f"layer{i}", "Conv", (), 30.0, 20.0, 40.0, 40.0, 30.0, 0.002) for i in range(500)
    )
    text = model_page(replace(full(), layers=Layers(layers, "y", 8)))
    assert safe(text).text.count("layer499") == 3  # once in the table, and at both marks
    assert len(text) < 1_000_000


# files


def test_the_file_and_its_json(tmp_path: Path) -> None:
    report = full()
    path = write_report(report, tmp_path / "new" / "m.html", up="../index.html")
    assert sorted(file.name for file in path.parent.iterdir()) == ["m.html", "m.json"]
    assert json.loads((tmp_path / "new" / "m.json").read_text("utf-8")) == plain(report)
    assert Page(path.read_text("utf-8")).links.count("./m.json") == 1


@pytest.mark.parametrize("name", ["page.txt", "page", "."])
def test_a_page_that_is_no_html_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write_report(EMPTY, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# the zoo


ROWS = [
    row_of(
        replace(full(), advice=advise(full())),
        page="model/report.html",
        tried=("A8W8: over budget (9.1 dB)",),
        attempts=2,
    ),
    ZooRow("plain", "done", preset="A8W8", sqnr=math.inf, seconds=1.0),
    replace(row_of(full("tight")), status="missed"),
    row_of(failed("lost", "tune", "timed out after 60 s", ["last line"], preset="S8S8_AAWS"), seconds=61.0),
]


def test_a_row_has_the_figures_of_its_report() -> None:
    row = row_of(full(), page="p")
    assert (row.name, row.status, row.preset, row.sqnr) == ("model", "done", "S8S8_AAWS", 12.3)
    assert (row.bytes, row.milliseconds, row.seconds) == ((1917205, 544297), (8.21, 4.32), 63.6)
    assert (row.agreement, row.kl) == (0.95, 0.0123)
    assert row.worst_layer == "convmodel: 21.9 dB, 75% of the noise"
    assert row.advice == ("Try `per_channel` on model.", "Wait.")  # what is fine needs no doing
    failure = ROWS[3]
    assert (failure.status, failure.stage, failure.log) == ("failed", "tune", ("last line",))
    assert failure.way_out and "more time" in failure.way_out[0]


def test_every_fact_of_the_rows_is_on_the_page_of_the_zoo() -> None:
    page = safe(zoo_page(ROWS, "index.json", "Night"), scripts=1)
    for fact in (
        "Models 4 3 converted, 1 outside their budget",
        "Failed 1 see below",
        "Size of all 1.09 MB 28% of 3.83 MB",
        "Time of all 3 min 9 s",
        "lost failed tune S8S8_AAWS",
        "over budget 2 to do",
        "S8S8_AAWS not A8W8: over budget (9.1 dB)",
        "0.5537 float 0.5912, top-1model",
        "12.3 dB 0.0123 same arg-max 95.00% 0.28 × 0.53 × 1 min 4 s 2 attempts convmodel: 21.9 dB, 75% of the noise",
        "plain done – A8W8 – exact – – – 1.0 s",
        "KL, in nats, that of the output whose classes diverge most",
        "Stage tune Reason timed out after 60 s Preset S8S8_AAWS Attempts 1 Advice Stopped during tune",
        "last line",
        "Try per_channel on tight.",
    ):
        assert fact in page.text, fact
    assert {"./model/report.html", "./index.json"} <= set(page.links)


def test_what_was_stopped_is_neither_converted_nor_failed() -> None:
    page = safe(zoo_page([*ROWS, ZooRow("late", "stopped", reason="the run was stopped")]), scripts=1)
    assert "Models 5 3 converted, 1 outside their budget, 1 stopped" in page.text
    assert "Failed 1 see below" in page.text
    assert "late stopped – – – – – – 0.0 s –" in page.text


def test_what_needs_a_look_comes_first_and_its_link_leads_to_it() -> None:
    text = zoo_page(ROWS)
    names = re.findall(r'<tr><th scope="row" data-v="(\w+)">', text)
    assert names == ["lost", "tight", "model", "plain"]
    targets = dict(re.findall(r'<h3 id="(model-\d)">(?:<a [^>]*>)?(\w+)', text))
    assert targets == {"model-1": "lost", "model-2": "tight", "model-3": "model"}
    assert re.findall(r'<a href="#(model-\d)">', text) == ["model-1", "model-2", "model-3"]


def test_hostile_rows_are_text() -> None:
    row = ZooRow(HOSTILE, "failed", HOSTILE, (HOSTILE,), HOSTILE, Score(HOSTILE, 1, 0), worst_layer=HOSTILE,
                 advice=(HOSTILE,), stage=HOSTILE, reason=HOSTILE, log=(HOSTILE,))  # fmt: skip
    rows = [row, replace(row, name="b", status="done")]
    page = safe(zoo_page(rows, HOSTILE, HOSTILE), scripts=1)
    assert page.text.count(HOSTILE[:20]) >= 15


def test_models_without_classes_have_no_column_for_them() -> None:
    page = safe(zoo_page([ROWS[1]]), scripts=1)
    assert "SQNR KL" not in page.text and "nats" not in page.text
    assert "SQNR KL" in safe(zoo_page(ROWS), scripts=1).text


def test_a_zoo_of_nothing() -> None:
    page = safe(zoo_page([]), scripts=1)
    assert "No models." in page.text and page.tags["table"] == 0


def test_the_file_of_a_zoo_and_its_json_in_the_given_order(tmp_path: Path) -> None:
    path = write_zoo(ROWS, tmp_path / "index.html", title="Night")
    found: Any = json.loads((tmp_path / "index.json").read_text("utf-8"))
    assert found["title"] == "Night"
    assert [ZooRow.from_dict(row) for row in found["rows"]] == ROWS
    assert "<title>Night</title>" in path.read_text("utf-8")


def test_columns_can_be_sorted_by_the_figures_behind_them() -> None:
    """Each cell holds what its column is sorted by; the script reads the same attribute."""
    text = zoo_page(ROWS)
    assert "dataset.v" in text
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    assert len(re.findall(r"<t[hd][^>]*data-v=", body)) == 4 * 11 == len(re.findall(r"<t[hd]\b", body))
    assert 'data-v="inf"' in body and f'data-v="{ROWS[0].size_ratio}"' in body


def test_words_of_the_page_are_those_of_the_module() -> None:
    assert grade(12.3) == "poor" and 'class="poor">12.3 dB' in model_page(full())
