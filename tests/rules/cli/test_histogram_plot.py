"""Plots of histograms: what is drawn and told, the files, and the command that makes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import normal, text_model
from typer.testing import CliRunner

from quark_onnx.cli import app
from quark_onnx.core.errors import ConfigError
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.plots import part_outside, plot_histogram

pytest.importorskip("matplotlib")

NORMAL = np.random.default_rng(1).standard_normal(20000).astype(np.float32)
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}

TEXT = """g (float[N, 8] x) => (float[N, 3] z) {
    [first] a = Gemm (x, w)
    [relu] b = Relu (a)
    [second] y = Gemm (b, v)
    [third] z = Gemm (y, u)
}"""


@pytest.mark.parametrize("suffix", MAGIC)
def test_a_file_of_every_type(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "new" / f"plot{suffix}"
    plot_histogram(Statistics.of(NORMAL), (-3.0, 3.0), "title", file)
    assert file.read_bytes().startswith(MAGIC[suffix])
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'plot\.gif'.*\.png"):
        plot_histogram(Statistics.of(NORMAL), (-3.0, 3.0), "title", tmp_path / "plot.gif")


@pytest.mark.parametrize("ends", ((-3.0, 3.0), (-0.5, 2.0), (0.0, 0.25), (-9.0, 9.0)))
def test_the_part_outside(tmp_path: Path, ends: tuple[float, float]) -> None:
    told = plot_histogram(Statistics.of(NORMAL), ends, "title $x\x1b\u202e\udcff", tmp_path / "plot.svg")
    outside = float(np.mean((ends[0] > NORMAL) | (ends[1] < NORMAL)))
    assert told == pytest.approx(outside, abs=2e-3)
    assert (told == 0) == (outside == 0)


def test_values_on_the_end_are_inside() -> None:
    """Also where the end has been through float32."""
    seen = Distribution.of(Statistics.of(np.array([0.0, 6.0, 6.0])))
    assert part_outside(seen, (0.0, float(np.float32(6 / 255) * 255))) == 0
    assert part_outside(seen, (0.0, 5.9)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "values", ([], [0.0, 0.0], [2.5], [np.nan, np.inf], [1e-40, -1e-40], [1e30, -1e30, 0]), ids=str
)
@pytest.mark.parametrize("ends", ((0.0, 0.0), (-1.0, 1.0)))
def test_odd_statistics_are_drawn(tmp_path: Path, values: list[float], ends: tuple[float, float]) -> None:
    file = tmp_path / "plot.png"
    assert 0 <= plot_histogram(Statistics.of(np.array(values)), ends, "title", file) <= 1
    assert file.exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'quark-onnx\[plot\]'"):
        plot_histogram(Statistics.of(NORMAL), (-3.0, 3.0), "title", tmp_path / "plot.png")


def test_no_global_state(tmp_path: Path) -> None:
    """Neither pyplot, which keeps figures, nor a window system."""
    code = (
        "import sys, numpy\n"
        "from quark_onnx.numerics.ranges.calibration_statistics import Statistics\n"
        "from quark_onnx.plots import plot_histogram\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_histogram(Statistics.of(numpy.ones(3)), (0.0, 1.0), 'title', {str(tmp_path / 'plot.png')!r})\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    onnx.save(text_model(TEXT, w=normal(8, 8), v=normal(8, 4), u=normal(4, 3)), "model.onnx")
    np.save("samples.npy", normal(64, 8))
    return "model.onnx"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["histogram", *arguments], catch_exceptions=False)


def test_a_plot_for_every_tensor(model: str) -> None:
    done = run(model, "--data", "samples.npy", "-o", "plots", "--json")
    assert done.exit_code == 0, done.output
    plots = {plot["tensor"]: plot for plot in json.loads(done.stdout)["plots"]}
    assert set(plots) == {"x", "b", "y"}
    assert {path.name for path in Path("plots").iterdir()} == {plot["file"] for plot in plots.values()}
    samples = np.load("samples.npy")
    assert plots["x"]["seen"] == [samples.min(), samples.max()]
    assert plots["b"]["seen"][0] == 0


def test_the_range_is_the_methods(model: str) -> None:
    """MinMax leaves nothing outside; a percentage of 80 leaves a fifth."""
    outside = []
    for method in ((), ("--method", "Percentile", "--option", "Percentile=80")):
        done = run(
            model, "--data", "samples.npy", "-o", "plots", "--tensor", "x", "--preset", "A8W8", "--json", *method
        )
        (plot,) = json.loads(done.stdout)["plots"]
        outside.append(plot["outside"])
    assert outside == [pytest.approx(0, abs=0.01), pytest.approx(0.2, abs=0.02)]


def test_only_tensors_of_these_names(model: str) -> None:
    done = run(model, "--data", "samples.npy", "-o", "plots", "--tensor", "[xy]", "--format", "svg")
    assert done.exit_code == 0, done.output
    assert {path.name for path in Path("plots").iterdir()} == {"x.svg", "y.svg"}
    assert "Wrote 2 plots to plots" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    (
        (("--tensor", "z*"), "no quantized activation is named 'z*'"),
        (("--format", "gif"), "--format 'gif' is none of png, svg, pdf"),
        (("--preset", "FP16"), "no activation has a range"),
    ),
)
def test_what_cannot_be_plotted(model: str, flags: tuple[str, ...], message: str) -> None:
    done = run(model, "--data", "samples.npy", "-o", "plots", *flags)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not Path("plots").exists()


def test_without_matplotlib_the_command_does_no_work(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = run("absent.onnx", "--data", "samples.npy", "-o", "plots")
    assert done.exit_code == 2
    assert "quark-onnx[plot]" in done.stderr


def test_tensors_whose_names_differ_in_signs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = TEXT.replace(" b", ' "A/b"').replace("(b", '("A/b"').replace(" y =", ' "a:B" =').replace("(y", '("a:B"')
    onnx.save(text_model(text, w=normal(8, 8), v=normal(8, 4), u=normal(4, 3)), "model.onnx")
    np.save("samples.npy", normal(8, 8))
    done = run("model.onnx", "--data", "samples.npy", "-o", "plots")
    assert done.exit_code == 0, done.output
    assert {path.name for path in Path("plots").iterdir()} == {"x.png", "A_b.png", "a_B-2.png"}
