"""From a quantization to its report: what is measured, what is left out, and what is said of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import quantized_models
from lost_outputs import power_spectrum

from quark_onnx.core.records import Latency, Timing
from quark_onnx.core.settings.presets import Config, get_default_config
from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.runtimes.runtime import Runtime
from quark_onnx.graph import Model, io
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.report import build as reports
from quark_onnx.report.build import Measure, Models, report_of, report_of_pair
from quark_onnx.report.footprint import footprint, peak_bytes
from quark_onnx.report.pages import write_report
from quark_onnx.result import Result

TEXT = """(float[N, 8] x) => (float[N, 3] z) <float[8, 6] w, float[6, 3] v> { y = MatMul (x, w)  z = MatMul (y, v) }"""
CONFIG = get_default_config("A8W8")
CHEAP = Measure(latency=False, memory=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    model = quantized_models.graph(TEXT)
    io.save(model, path / "model.onnx", source=model)
    return path


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    samples = list(np.random.default_rng(0).normal(size=(40, 1, 8)).astype(np.float32))
    return ModelQuantizer(CONFIG).quantize_model(folder / "model.onnx", folder / "int8.onnx", samples)


def test_what_is_known_is_copied_and_the_rest_measured(folder: Path, result: Result) -> None:
    steps: list[tuple[str, int, int | None]] = []
    report = report_of(
        result, Config(CONFIG), folder / "model.onnx", "m", preset="A8W8", tell=lambda *s: steps.append(s)
    )
    known = result.report
    assert (report.sqnr, report.ledger, report.samples, report.seconds) == (
        known.sqnr, known.ledger, known.samples, known.seconds,
    )  # fmt: skip
    assert report.sites == {"activation": 2, "weight": 2}
    assert report.config == report.default
    assert report.sizes is not None and report.sizes.quantized == (folder / "int8.onnx").stat().st_size
    assert report.layers.feeds == 8 and report.layers.judged == "z"
    assert [e.node for e in report.layers.layers] == ["", *(n.name for n in quantized_models.graph(TEXT).graph)]
    assert report.latency is not None and report.latency.ratio > 0 and report.latency.batch == 1
    assert report.memory is not None and (report.memory.quantized or 0) > 0
    assert {h.tensor for h in report.histograms} == {"x", "y"} and {w.tensor for w in report.weights} == {"w", "v"}
    assert steps[0] == ("report", 0, 10) and steps[-1] == ("report", 10, 10)
    assert [step for _, step, _ in steps] == sorted(step for _, step, _ in steps)


def test_what_was_protected_is_told(tmp_path: Path, result: Result, folder: Path) -> None:
    """On the page, in its table and in the JSON; of a model to which nothing was done nothing is said."""
    pytest.importorskip("jinja2")
    what = replace(CHEAP, layers=False)
    model, feeds = power_spectrum()
    config = get_default_config()
    guarded = report_of(ModelQuantizer(config).quantize_model(model, None, feeds), config, model, "m", measure=what)
    assert [(one.action, one.nodes, one.output) for one in guarded.protected] == [("float", ("bank",), "y")]
    page = write_report(guarded, tmp_path / "page.html").read_text("utf-8")
    assert "1 node float (bank)" in page.split('id="protected"')[1] and 'href="#protected"' in page
    (entry,) = json.loads((tmp_path / "page.json").read_text("utf-8"))["protected"]
    assert entry["nodes"] == ["bank"] and entry["before"] == guarded.protected[0].before
    assert "protected" in {advice.rule for advice in guarded.advice}
    plain = report_of(result, CONFIG, folder / "model.onnx", "m", measure=what)
    assert plain.protected == () and "protected" not in {advice.rule for advice in plain.advice}
    assert "#protected" not in write_report(plain, tmp_path / "page.html").read_text("utf-8")


def test_nothing_is_measured_that_was_not_asked_for(folder: Path, result: Result) -> None:
    report = report_of(result, CONFIG, folder / "model.onnx", "m", measure=replace(CHEAP, layers=False))
    assert (report.layers.layers, report.histograms, report.latency, report.memory) == ((), (), None, None)
    assert report.default == {} and report.sqnr == result.report.sqnr
    few = report_of(result, CONFIG, folder / "model.onnx", "m", measure=replace(CHEAP, feeds=2, worst=1))
    assert few.layers.feeds == 2 and len(few.histograms) <= 1


def test_sizes_are_those_of_the_weights_where_there_are_no_files(result: Result, folder: Path) -> None:
    report = report_of(replace(result, output=None), CONFIG, folder / "model.onnx", "m", measure=CHEAP)
    assert report.sizes is not None
    assert (report.sizes.original, report.sizes.files) == ((8 * 6 + 6 * 3) * 4, False)


def test_weights_beside_a_file_count(tmp_path: Path, result: Result, folder: Path) -> None:
    tiny = tmp_path / "int8.onnx"
    tiny.write_bytes(b"x")  # stands for a graph whose weights are beside it
    report = report_of(replace(result, output=tiny), CONFIG, folder / "model.onnx", "m", measure=CHEAP)
    assert report.sizes is not None and report.sizes.quantized == 1 + result.report.bytes["quantized"]


def test_without_samples_there_is_a_warning(result: Result, folder: Path) -> None:
    bare = replace(result, evidence=replace(result.evidence, feeds=()))
    report = report_of(bare, CONFIG, folder / "model.onnx", "m")
    assert report.warnings[-1] == "no samples, so nothing was measured: give data"
    assert report.layers.layers == () and report.latency is None


def test_large_models_are_not_measured_again(result: Result, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LARGE", 100)
    report = report_of(result, CONFIG, folder / "model.onnx", "m")
    assert "layers, latency and memory were not measured" in report.warnings[-1]
    assert report.layers.layers == ()


def pair(**fields: object) -> tuple[Model, Model]:
    model = quantized_models.graph(TEXT)
    feeds = [{"x": np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)}]
    return model, quantized_models.quantized(model, feeds, **fields).quantized


def test_two_models_of_any_tool() -> None:
    model, quantized = pair()
    feeds = [{"x": np.random.default_rng(2).normal(size=(2, 8)).astype(np.float32)} for _ in range(3)]
    models = Models(model, model, quantized, quantized_values(quantized))
    report = report_of_pair(models, feeds, "theirs", measure=CHEAP)
    assert (report.config, report.ledger, report.preset, report.samples) == ({}, (), "", 3)
    assert len(report.layers.layers) == 3 and report.worst_sqnr is not None and report.worst_sqnr > 20
    fine = [advice.rule for advice in report.advice]
    assert "poor_output" not in fine and "few_samples" not in fine  # those are about our configuration


def test_a_model_with_more_weights_takes_more_memory() -> None:
    """Measured in processes of their own: 64 MB of weights show, whatever this process has had in use."""
    if peak_bytes() is None:
        pytest.skip("the system does not tell what a process has in use")
    text = "(float[1, 8] x) => (float[1, 8] y) { y = MatMul (x, w) }"
    small = footprint(quantized_models.graph(text, w=np.ones((8, 8), np.float32)), {"x": np.ones((1, 8), np.float32)})
    wide = text.replace("=> (float[1, 8] y)", "=> (float[1, 2000000] y)")
    large = footprint(
        quantized_models.graph(wide, w=np.ones((8, 2_000_000), np.float32)), {"x": np.ones((1, 8), np.float32)}
    )
    assert small is not None and large is not None
    assert large - small > 60e6


def test_memory_that_cannot_be_told_is_none() -> None:
    broken = quantized_models.graph("(float[1, 8] x) => (float[1, 8] y) { y = Neg (x) }")
    assert footprint(broken, {"x": np.ones((1, 9), np.float32)}) is None
    assert footprint(broken, {"x": np.array(["text"], object)}) is None


@pytest.mark.parametrize(
    ("before", "after", "target", "told"),
    [
        ((0.40, 0.38, 0.45), (0.52, 0.50, 0.60), "cpu", True),
        ((0.40, 0.38, 0.45), (0.41, 0.405, 0.60), "cpu", False),  # less than runs differ
        ((0.40, 0.38, 0.90), (0.52, 0.35, 0.60), "cpu", False),  # a tenth of the runs is faster than half of the others
        ((0.52, 0.50, 0.60), (0.40, 0.38, 0.45), "cpu", False),
        ((0.40, 0.38, 0.45), (0.52, 0.50, 0.60), "tensorrt", False),
    ],
)
def test_a_slower_result_is_told(
    before: tuple[float, float, float], after: tuple[float, float, float], target: str, told: bool,
    result: Result, folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    timed = Latency(Timing(*before), Timing(*after), 10, 1, 1, "onnxruntime")
    monkeypatch.setattr(Runtime, "latency", lambda *arguments: timed)
    what = replace(CHEAP, latency=True, layers=False)
    report = report_of(result, replace(CONFIG, target=target), folder / "model.onnx", "m", measure=what)
    assert any("0.52 ms for 0.4 ms" in text and "slower" in text for text in report.warnings) == told
