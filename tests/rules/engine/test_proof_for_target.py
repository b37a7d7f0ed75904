"""A model is proven by the runtime that its target means: OpenVINO, any other, or none where that is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import command, done, fails
from openvino_installed import needs_openvino
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.cli.analyze import run_text
from quark_onnx.core.errors import ModelError, QuarkError
from quark_onnx.core.records import UNFIT
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.proof_for_target import certified, proof_of
from quark_onnx.engine.result_wording import proof_warnings
from quark_onnx.engine.runtimes import known, onnxruntime_cpu
from quark_onnx.engine.runtimes.openvino import without_vnni as openvino_without_vnni
from quark_onnx.engine.runtimes.openvino.session import core
from quark_onnx.engine.runtimes.runtime import Run
from quark_onnx.graph import Model, io
from quark_onnx.report.build import Measure, Models, report_of, report_of_pair
from quark_onnx.report.model_report import ModelReport
from quark_onnx.report.pages import write_report
from quark_onnx.result import Result

NET = """g (float[N, 16] x) => (float[N, 4] y) {
    [first] a = MatMul (x, w)  [relu] b = Relu (a)  [second] y = MatMul (b, v) }"""
FEEDS = [{"x": normal(4, 16, seed=i)} for i in range(40)]
FLOAT = text_model(NET, w=normal(16, 16), v=normal(16, 4, seed=1))
LAYERLESS = Measure(layers=False, memory=False)


def quantized(target: str) -> Result:
    config = replace(get_default_config("S8S8_AAWS"), target=target)
    return ModelQuantizer(config).quantize_model(FLOAT, calibration_data_reader=FEEDS)


def saturating() -> tuple[Model, Model]:
    """A float product, and one whose weights, all 127, are too large in pairs where inputs are near 255."""
    ones = {"w": np.full((16, 4), 127, np.int8), "s": np.float32(1), "m": np.uint8(0), "z": np.int8(0)}
    text = """g (float[N, 16] x) => (float[N, 4] y) { q = QuantizeLinear (x, s, m)  d = DequantizeLinear (q, s, m)
        v = DequantizeLinear (w, s, z)  [product] y = MatMul (d, v) }"""
    plain = text_model(
        "g (float[N, 16] x) => (float[N, 4] y) { y = MatMul (x, w) }", w=np.full((16, 4), 127, np.float32)
    )
    return io.load(plain), io.load(text_model(text, **ones))


LOUD = [{"x": np.round(255 * np.random.default_rng(i).random((8, 16))).astype(np.float32)} for i in range(4)]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where OpenVINO is not installed."""
    core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)


# OpenVINO ------------------------------------------------------------------------------------------------------------


@needs_openvino
def test_a_model_for_openvino_is_run_by_it() -> None:
    found = quantized("openvino")
    report = found.report
    assert report.runtime.startswith("OpenVINO ") and report.warnings == () and report.departure is None
    assert report.outputs["y"].db == pytest.approx(report.written["y"].db, abs=1) and report.outputs["y"].db > 25
    assert report.outputs != report.written  # each was run
    page = report_of(found, replace(get_default_config(), target="openvino"), FLOAT, "m", measure=LAYERLESS)
    assert page.latency is not None and page.latency.runtime == page.runtime == report.runtime


def test_twin_a_model_for_the_cpu_is_run_by_onnxruntime() -> None:
    assert {quantized(target).report.runtime for target in ("cpu", "cpu-avx2")} == {onnxruntime_cpu.RUNTIME.full_title}


@needs_openvino
def test_saturation_is_measured_where_processors_differ() -> None:
    """On x64 without VNNI all samples tell; with VNNI a process that is limited to AVX2 computes the first ones."""
    row, (model, codes) = TARGETS["openvino"], saturating()
    proof = proof_of(row, model, codes, LOUD, certified(row, codes))
    assert proof.departure is not None and proof.departure.cause == "saturation"
    assert proof.departure.runtime == "OpenVINO" and proof.departure.layers == ("product",)
    assert proof.departure.run.db is not None and proof.departure.run.db < 20 < (proof.departure.written.db or 0)
    (told,) = proof_warnings(proof, "openvino")
    assert "with VNNI only" in told and "onnxruntime" not in told


@needs_openvino
def test_twin_small_sums_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what cannot be measured is told."""
    row, (model, codes) = TARGETS["openvino"], saturating()
    quiet = [{"x": feed["x"] // 4} for feed in LOUD]
    proof = proof_of(row, model, codes, quiet, certified(row, codes))
    assert proof.departure is None and proof.unmeasured == "" and proof.without_vnni.samples == 2
    monkeypatch.setattr(openvino_without_vnni, "BEYOND", ("",))
    (told,) = proof_warnings(proof_of(row, model, codes, quiet, certified(row, codes)), "openvino")
    assert "was not measured: OpenVINO does not heed" in told


@needs_openvino
def test_a_model_that_openvino_refuses_is_an_error() -> None:
    """Where onnxruntime runs it: the target is what counts."""
    bare = io.load(text_model("g (float[N, 2, 2] x) => (float[N] y) { [det] y = Det (x) }"))
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the model: .*Det"):
        proof_of(TARGETS["openvino"], bare, bare, [{"x": normal(2, 2, 2)}], {})
    assert proof_of(TARGETS["cpu"], bare, bare, [{"x": normal(2, 2, 2)}], {}).run.samples == 1


@needs_openvino
def test_it_is_refused_before_any_work_is_done() -> None:
    """Of the data, which are none, nothing is said; on the CPU they are."""
    text = "g (float[N, 2, 2] x) => (float[N] y) { a = MatMul (x, w) [det] y = Det (a) }"
    for target, error in (
        ("openvino", r"OpenVINO .* cannot load the model: .*Det.* choose another target"),
        ("cpu", "data"),
    ):
        config = replace(get_default_config("S8S8_AAWS"), target=target)
        with pytest.raises(QuarkError, match=error):
            ModelQuantizer(config).quantize_model(text_model(text, w=normal(2, 2)))


# none ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("missing")
def test_without_its_runtime_a_model_is_not_called_good(tmp_path: Path) -> None:
    """Its figures are those of what is written, and said to be; no node is said to run on integers."""
    found = quantized("openvino")
    report = found.report
    assert (report.runtime, report.outputs, report.sqnr) == ("", {}, {}) and report.written["y"].db > 25
    (told,) = report.warnings
    assert "nothing was run there" in told and "pip install 'quark-onnx[openvino]'" in told
    card = str(found)
    assert "good" not in card and "nothing was run; as it is written, output 'y' keeps" in card and "not known" in card
    assert not any(row.status == "integer" for row in report.ledger)
    page = report_of(found, replace(get_default_config(), target="openvino"), FLOAT, "m")
    assert (page.latency, page.memory, page.outputs) == (None, None, {}) and "unfused" not in {
        a.rule for a in page.advice
    }
    write_report(page, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text("utf-8")
    assert "not run" in html and "OpenVINO is not installed" in html


@pytest.mark.usefixtures("missing")
def test_compare_says_so(tmp_path: Path) -> None:
    arguments = files(tmp_path)
    told = command("compare", *arguments, "--target", "openvino")
    assert "not run" in told.stdout and "nothing was run there" in told.stderr
    assert "not run" not in done("compare", *arguments)


# any -----------------------------------------------------------------------------------------------------------------


def files(folder: Path) -> list[str]:
    """A float model, a quantized one and data, as arguments."""
    model, codes = saturating()
    paths = [folder / name for name in ("float.onnx", "int8.onnx", "data.npy")]
    for path, one in zip(paths, (model, codes), strict=False):
        io.save(one, path, source=one)
    np.save(paths[2], LOUD[0]["x"] // 4)
    return [str(paths[0]), str(paths[1]), "--data", str(paths[2])]


@needs_openvino
def test_compare_takes_the_runtime_of_a_target(tmp_path: Path) -> None:
    arguments = files(tmp_path)
    assert "in OpenVINO 20" in done("compare", *arguments, "--target", "openvino")
    assert "in onnxruntime 1." in done("compare", *arguments)
    assert "did you mean 'openvino'" in fails(2, "compare", *arguments, "--target", "openvin")


@needs_openvino
def test_analyze_takes_the_runtime_of_a_target(tmp_path: Path) -> None:
    told = done("analyze", *files(tmp_path), "--target", "openvino")
    assert "Run in OpenVINO 20" in told and "Processors: " in told and "Not run" not in told


@pytest.mark.usefixtures("missing")
def test_twin_without_it_analyze_says_what_is_missing(tmp_path: Path) -> None:
    arguments = files(tmp_path)
    assert "Not run: OpenVINO is not installed." in done("analyze", *arguments, "--target", "openvino")
    assert "Run in onnxruntime 1." in done("analyze", *arguments)


def test_a_runtime_that_is_there_is_not_called_missing() -> None:
    """Where it has no kernel for what is written."""
    assert run_text(ModelReport("m", "1", "", target="qnn")) == "Not run: onnxruntime cannot run it."


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> str:
    """A runtime that nobody has: what it computes is half of what it should."""

    def load(model: Model, outputs: Sequence[str] | None = None, *, threads: int = 0) -> Run:
        run = onnxruntime_cpu.load(model, outputs, threads=threads)
        return lambda feed: [array / 2 for array in run(feed)]

    own = replace(
        onnxruntime_cpu.RUNTIME, name="third", title="Third", version="3", load=load, certify=lambda model: {}
    )
    monkeypatch.setitem(known.RUNTIMES, "third", lambda: own)
    monkeypatch.setitem(TARGETS, "third", replace(TARGETS["openvino"], name="third", title="Third", runtime="third"))
    return "third"


def test_a_third_runtime_is_a_line_in_the_table(third: str) -> None:
    """Proof, report and words are those of what it computes."""
    model, codes = saturating()
    report = report_of_pair(Models(model, model, codes, {}), LOUD[:2], "m", target=third, measure=LAYERLESS)
    assert report.runtime == "Third 3" and report.latency is not None and report.latency.runtime == "Third 3"
    assert report.departure is not None and report.departure.here and report.departure.runtime == "Third"
    (told,) = (text for text in report.warnings if "worth" in text)
    assert "as Third runs it on this processor" in told and "an integer kernel of Third" in told
    assert "onnxruntime" not in told


def test_a_node_that_it_fails_at_stays_float(third: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(model: Model, outputs: Sequence[str] | None = None, *, threads: int = 0) -> Run:
        second = next(node for node in model.graph if node.name == "second")
        if second.inputs[1].producer() is not None:  # its weight is quantized
            raise ModelError("Third cannot load the model: no such kernel", "second")
        return onnxruntime_cpu.load(model, outputs, threads=threads)

    own = known.RUNTIMES[third]()
    monkeypatch.setitem(known.RUNTIMES, third, lambda: replace(own, load=refuses))
    found = quantized(third)
    assert "first" in found.plan.nodes and "second" not in found.plan.nodes
    assert found.plan.notes["second"].startswith(UNFIT + "Third cannot")
