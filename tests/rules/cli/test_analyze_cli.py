"""`quark-onnx analyze` and `quantize --report`: what they print and write, and how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done, fails
from text_models import normal, text_model

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

TEXT = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [relu] b = Relu (a)
    [next] c = Conv (b, u)
    [pool] d = GlobalAveragePool (c)
    [flat] e = Flatten (d)
    [head] y = Gemm (e, v)
}"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """model.onnx with one channel far above the others, and samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    w = normal(6, 3, 3, 3)
    w[0] *= 60
    u = normal(5, 6, 3, 3)
    u[:, 0] /= 60
    onnx.save(text_model(TEXT, w=w, u=u, v=normal(5, 4)), "model.onnx")
    np.save("samples.npy", normal(8, 3, 8, 8))
    return tmp_path


DATA = ("--data", "samples.npy")


def test_a_quantization_is_made_and_its_layers_ranked() -> None:
    out = done("analyze", "model.onnx", *DATA, "--preset", "S8S8_AAWS", "--no-cle", "--no-protect")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert lines[0] == ["Layer", "Operator", "Alone", "All", "in", "front", "At", "output", "Noise"]
    shares = [float(line[-1][:-1]) for line in lines if line[-1].endswith("%")]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.5)
    assert {"stem", "next", "head"} <= {line[0] for line in lines}
    assert "Noise: of all that the layers, one at a time, make at y." in out
    assert "try `per_channel`" in out  # as nothing has evened out the channels


def test_both_forms_agree() -> None:
    """A model quantized before has the same layers as one that is quantized now."""
    flags = ("--preset", "A8W8", "--no-cle", "--no-protect")
    done("quantize", "model.onnx", "-o", "int8.onnx", *DATA, *flags, "-q")
    now = json.loads(done("analyze", "model.onnx", *DATA, *flags, "--json"))
    given = json.loads(done("analyze", "model.onnx", "int8.onnx", *DATA, "--json"))
    assert (now["float"], now["quantized"], given["quantized"]) == ("model.onnx", "", "int8.onnx")
    layers, other = (document["report"]["layers"]["layers"] for document in (now, given))
    assert len(layers) >= 5
    for layer, twin in zip(layers, other, strict=True):
        assert layer["node"] == twin["node"] and layer["tensor"] == twin["tensor"]
        for name in ("isolated", "accumulated", "output", "share"):
            assert float(layer[name]) == pytest.approx(float(twin[name]), rel=1e-4), (layer["node"], name)
    assert now["report"]["sqnr"] == pytest.approx(given["report"]["sqnr"], rel=1e-4)
    assert given["report"]["config"] == {} and now["report"]["preset"] == "A8W8"


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), (".SVG", b"<?xml")])
def test_plots_json_and_page_are_written(kind: str, magic: bytes) -> None:
    out = done("analyze", "model.onnx", *DATA, "-o", "new/folder", "--format", kind, "--html")
    suffix = kind.lower().lstrip(".")
    names = ["analysis.json", f"layers.{suffix}", f"ranking.{suffix}", "report.html", "report.json"]
    assert sorted(file.name for file in Path("new/folder").iterdir()) == names
    assert all(Path("new/folder", name).read_bytes().startswith(magic) for name in names[1:3])
    analysis = json.loads(Path("new/folder/analysis.json").read_text("utf-8"))
    assert analysis == json.loads(Path("new/folder/report.json").read_text("utf-8"))
    assert analysis["latency"]["rounds"] >= 1 and analysis["memory"] is not None
    assert "Wrote analysis.json, layers." in out
    assert "<h1>model</h1>" in Path("new/folder/report.html").read_text("utf-8")


def test_without_a_page_nothing_is_timed() -> None:
    done("analyze", "model.onnx", *DATA, "-o", "out", "-q")
    analysis = json.loads(Path("out/analysis.json").read_text("utf-8"))
    assert analysis["latency"] is None and analysis["memory"] is None and analysis["layers"]["layers"]
    assert not Path("out/report.html").exists()


def test_only_so_many_samples_are_read() -> None:
    done("quantize", "model.onnx", "-o", "int8.onnx", *DATA, "-q")
    report = json.loads(done("analyze", "model.onnx", "int8.onnx", *DATA, "--samples", 3, "--json"))["report"]
    assert (report["samples"], report["layers"]["feeds"]) == (3, 3)


def test_equalized_channels_need_the_plan() -> None:
    """Cross-layer equalization makes other layers of the same function: told without the plan, and right with it."""
    done("quantize", "model.onnx", "-o", "int8.onnx", *DATA, "--preset", "S8S8_AAWS", "--save-plan", "plan", "-q")
    lost = command("analyze", "model.onnx", "int8.onnx", *DATA, "--json")
    right = command("analyze", "model.onnx", "int8.onnx", *DATA, "--plan", "plan", "--json")
    assert "the layers do not fit, though the outputs do" in lost.stderr
    assert right.stderr == ""

    def worst(result: Any) -> float:
        return min(float(e["isolated"]) for e in json.loads(result.stdout)["report"]["layers"]["layers"])

    assert worst(right) > 20 > worst(lost)


def test_a_model_that_has_no_quantizers_has_no_layers() -> None:
    out = done("analyze", "model.onnx", "model.onnx", *DATA)
    assert "No layer of the quantized model could be matched." in out
    assert "exact  y" in out


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ("--format", "gif", *DATA), "--format 'gif' is none of png, svg, pdf"),
        (2, ("--html", *DATA), "add -o FOLDER"),
        (2, ("-o", "samples.npy", *DATA), "samples.npy is a file; give a folder"),
        (2, ("--plan", "plan", *DATA), "--plan is that of a quantized model"),
        (2, ("model.onnx", "--preset", "A8W8", *DATA), "QUANT is quantized already"),
        (3, ("missing.onnx", *DATA), "missing.onnx"),
        (4, (), "no calibration data"),
        (4, ("model.onnx",), "no calibration data"),
        (5, ("model.onnx", "--plan", "missing", *DATA), "no plan in missing"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(code: int, arguments: tuple[str, ...], message: str) -> None:
    assert message in fails(code, "analyze", "model.onnx", *arguments)
    assert sorted(path.name for path in Path().iterdir()) == ["model.onnx", "samples.npy"]


def test_a_model_of_another_interface_is_refused() -> None:
    onnx.save(text_model("g (float[N, 2] other) => (float[N, 2] y) { y = Neg (other) }"), "other.onnx")
    assert "has no input 'other'" in fails(3, "analyze", "model.onnx", "other.onnx", *DATA)


def test_other_modules_work_without_the_extras() -> None:
    script = (
        "import sys\n"
        "for name in ('jinja2', 'matplotlib', 'yaml', 'psutil', 'distributed', 'sklearn', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "from quark_onnx.cli import main\n"
        "sys.argv = ['quark-onnx', *sys.argv[1:]]\n"
        "main()\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)

    assert run("analyze", "model.onnx", *DATA).returncode == 0
    for arguments, extra in ((("-o", "out"), "plot"), (("--report", "page.html", "-o", "int8.onnx"), "report")):
        result = run("analyze" if extra == "plot" else "quantize", "model.onnx", *DATA, *arguments)
        assert result.returncode == 2 and f"pip install 'quark-onnx[{extra}]'" in result.stderr
    assert not Path("out").exists() and not Path("int8.onnx").exists()


# quantize --report


def test_the_report_of_a_quantization() -> None:
    how = ("--preset", "S8S8_AAWS", "--per-channel", "--report", "pages/int8.html")
    out = done("quantize", "model.onnx", "-o", "int8.onnx", *DATA, *how)
    assert out.split("Report")[1].split() == ["pages/int8.html"]
    report = json.loads(Path("pages/int8.json").read_text("utf-8"))
    assert (report["name"], report["preset"], report["samples"]) == ("model", "S8S8_AAWS", 8)
    assert report["config"]["per_channel"] is True and report["default"]["per_channel"] is False
    sizes = [Path(name).stat().st_size for name in ("model.onnx", "int8.onnx")]
    assert report["sizes"] == {"original": sizes[0], "quantized": sizes[1], "files": True}
    assert report["latency"]["threads"] == 1 and report["memory"]["peak"] > 0
    assert [row["node"] for row in report["ledger"] if row["op_type"] == "Conv"] == ["stem", "next"]
    assert sum(e["share"] or 0 for e in report["layers"]["layers"]) == pytest.approx(1)
    assert "few_samples" in {advice["rule"] for advice in report["advice"]}
    text = Path("pages/int8.html").read_text("utf-8")
    assert "<b>per_channel</b>" in text and 'href="./int8.json"' in text


def test_a_report_with_another_ending_is_refused_before_any_work() -> None:
    arguments = ("quantize", "model.onnx", "-o", "int8.onnx", *DATA, "--report", "page.pdf")
    assert "ends in .html" in fails(2, *arguments)
    assert not Path("int8.onnx").exists()
