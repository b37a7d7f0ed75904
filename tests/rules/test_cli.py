"""The command line: what each command prints and writes, and how it fails."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import batchnorm, normal, text_model
from rich.console import Console
from typer.testing import CliRunner

from quark_onnx import QuantizationConfig, __version__
from quark_onnx.cli import app, console, main
from quark_onnx.core.presets import PRESETS

TEXT = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [norm] b = BatchNormalization (a, gamma, beta, mean, var)
    [relu] c = Relu (b)
    [erf] d = Erf (c)
    [pool] e = GlobalAveragePool (d)
    [flat] f = Flatten (e)
    [head] y = Gemm (f, v)
}"""


def command(*arguments: object) -> Any:
    """Run a command; bugs are raised, not turned into an exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def done(*arguments: object) -> str:
    """The stdout of a command that succeeds."""
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def document(*arguments: object) -> Any:
    """The JSON of a command: valid by the letter, and all there is on stdout."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(done(*arguments, "--json"), parse_constant=refuse)


def fails(code: int, *arguments: object) -> str:
    """The message of a command that fails: a single line, and nothing on stdout."""
    result = command(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    message = str(result.stderr)
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: model.onnx, and samples in several forms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    onnx.save(text_model(TEXT, w=normal(5, 3, 3, 3), v=normal(5, 4), **batchnorm(5)), "model.onnx")
    samples = normal(6, 3, 8, 8)
    np.save("samples.npy", samples)
    np.savez("samples.npz", x=samples)
    Path("folder").mkdir()
    for index, sample in enumerate(samples):
        np.save(f"folder/{index}.npy", sample)
    return tmp_path


# quantize


def test_quantize_writes_a_model_and_a_summary() -> None:
    text = done("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in onnx.load("out.onnx").graph.node}
    for expected in ("Conv", "Erf is not in the operator table", "Output SQNR", "6 samples", "smaller", "out.onnx"):
        assert expected in text


@pytest.mark.parametrize("data", ["samples.npy", "samples.npz", "folder"])
def test_all_forms_of_data_give_the_same_model(data: str) -> None:
    done("quantize", "model.onnx", "-o", "out.onnx", "--data", data, "--quiet")
    done("quantize", "model.onnx", "-o", "first.onnx", "--data", "samples.npy", "-q")
    assert Path("out.onnx").read_bytes() == Path("first.onnx").read_bytes()


def test_quantize_json_holds_the_report() -> None:
    report = document("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy", "--layers")
    assert (report["model"], report["output"], report["samples"]) == ("model.onnx", "out.onnx", 6)
    assert report["fused"]["Conv"] == [1, 1]
    assert report["sqnr"]["y"] > 20
    assert set(report["layers"]) >= {"x", "c", "y"}
    assert {row["node"]: row["status"] for row in report["ledger"]}["erf"] == "float"
    assert report["config"]["activation_type"] == "int8"


def test_quantize_lists_layers_worst_first() -> None:
    text = done("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy", "--layers")
    table = text[: text.index("Operator")]
    ratios = [float(line.split()[1]) for line in table.splitlines() if "dB" in line]
    assert len(ratios) >= 3
    assert ratios == sorted(ratios)


def test_quiet_prints_nothing() -> None:
    result = command("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert Path("out.onnx").is_file()


def test_flags_change_the_configuration() -> None:
    flags = "--preset A8W8 --per-channel --activation-type uint8 --weight-type int8 -x stem --exclude h*d --samples 2"
    options = ["--option", "Percentile=99.5", "--option", "AlignConcat=false"]
    report = document("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", *flags.split(), *options)
    config = report["config"]
    assert config["per_channel"] is True
    assert (config["activation_type"], config["weight_type"]) == ("uint8", "int8")
    assert config["nodes_to_exclude"] == ["stem", "h*d"]
    assert config["extra_options"]["Percentile"] == 99.5
    assert config["extra_options"]["AlignConcat"] is False
    assert config["extra_options"]["CalibDataSize"] == report["samples"] == 2


def test_config_file_instead_of_preset() -> None:
    Path("c.json").write_text(QuantizationConfig(per_channel=True, nodes_to_exclude=("head",)).to_json())
    arguments = ("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", "--config", "c.json")
    config = document(*arguments, "--per-tensor", "-x", "stem")["config"]
    assert (config["per_channel"], config["nodes_to_exclude"]) == (False, ["head", "stem"])
    assert "only one" in fails(2, *arguments, "--preset", "A8W8")


def test_image_flags_become_options() -> None:
    from PIL import Image

    Path("photos").mkdir()
    for index in range(2):
        Image.fromarray((np.arange(300).reshape(10, 10, 3) + index).astype(np.uint8)).save(f"photos/{index}.png")
    flags = "--size 8x8 --scale 1 --mean 1,2,3 --std 64 --color BGR --crop center_crop --layout NCHW"
    report = document("quantize", "model.onnx", "-o", "o.onnx", "-d", "photos", *flags.split())
    assert report["samples"] == 2
    assert report["config"]["extra_options"]["CalibImages"] == {
        "size": [8, 8],
        "scale": 1.0,
        "mean": [1.0, 2.0, 3.0],
        "std": 64.0,
        "color": "BGR",
        "crop": "center_crop",
        "layout": "NCHW",
    }


def test_random_data_warns_once_on_stderr() -> None:
    result = command("quantize", "model.onnx", "-o", "o.onnx", "--random-data", "--samples", "3", "--json")
    assert json.loads(result.stdout)["samples"] == 3
    assert result.stderr.count("RANDOM data") == 1
    assert result.stderr.startswith("warning: ")


def test_external_data() -> None:
    done("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", "--external-data")
    assert Path("o.onnx.data").is_file()


def test_nothing_to_quantize_is_a_warning() -> None:
    result = command("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", "-x", "*", "--layers")
    assert result.exit_code == 0
    assert "warning: nothing was quantized" in result.stderr


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=100))
    arguments = ("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy")
    assert document(*arguments)["samples"] == 6
    assert "proving the result" in screen.getvalue()
    screen.truncate(0)
    done(*arguments, "--quiet")
    assert screen.getvalue() == ""


# inspect and presets


def test_inspect_says_why_not() -> None:
    text = done("inspect", "model.onnx")
    for expected in ("BatchNormalization", "Erf is not in the operator table", "fold-bn", "[?, 3, 8, 8]"):
        assert expected in text
    report = document("inspect", "model.onnx", "-x", "head")
    assert report["before"]["BatchNormalization"] == 1
    reasons = {row["node"]: row["reason"] for row in report["nodes"]}
    assert reasons["stem"] == ""
    assert "nodes_to_exclude" in reasons["head"]


def test_inspect_nodes() -> None:
    lines = [line.split() for line in done("inspect", "model.onnx", "--nodes").splitlines()]
    rows = {words[0]: words[1:3] for words in lines if words}
    assert rows["stem"] == ["Conv", "yes"]
    assert rows["erf"] == ["Erf", "no"]


def test_inspect_tells_what_has_no_integer_kernel() -> None:
    text = "g (float[1, 2, 4, 4] x) => (float[1, 3, 9, 9] y) { y = ConvTranspose <strides = [2, 2]> (x, w) }"
    onnx.save(text_model(text, w=normal(2, 3, 3, 3)), "transpose.onnx")
    assert "no integer kernel" in done("inspect", "transpose.onnx")


def test_presets() -> None:
    text = done("presets")
    assert all(name in text for name in PRESETS)
    assert document("presets").keys() == PRESETS.keys()
    assert QuantizationConfig.from_dict(document("presets", "A8W8")["A8W8"]) == PRESETS["A8W8"]
    assert "one scale for the whole tensor" in done("presets", "A8W8")
    assert "did you mean 'A8W8'" in fails(2, "presets", "A8W9")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_explained(name: str) -> None:
    assert "Activations" in done("presets", name)


# plan, apply, diff


def test_a_plan_applied_is_the_quantized_model() -> None:
    done("quantize", "model.onnx", "-o", "direct.onnx", "-d", "samples.npy", "--per-channel", "--save-plan", "saved")
    text = done("plan", "model.onnx", "-o", "plan", "-d", "samples.npy", "--per-channel")
    assert "quark-onnx apply model.onnx plan -o" in text
    assert done("diff", "plan", "saved").strip() == "The plans decide the same."
    for plan in ("plan", "saved"):
        text = done("apply", "model.onnx", plan, "-o", "applied.onnx")
        assert "Erf is not in the operator table" in text
        assert Path("applied.onnx").read_bytes() == Path("direct.onnx").read_bytes()


def test_apply_prepares_as_the_plan_was_made() -> None:
    """16-bit activations raise the opset; optimize_model=False leaves BatchNormalization alone."""
    config = QuantizationConfig(activation_type="int16", optimize_model=False, nodes_to_exclude=("stem",))
    Path("c.json").write_text(config.to_json())
    done("plan", "model.onnx", "-o", "plan", "-d", "samples.npy", "--config", "c.json")
    assert document("apply", "model.onnx", "plan", "-o", "o.onnx")["fused"]["Conv"] == [0, 1]
    assert "BatchNormalization" in {node.op_type for node in onnx.load("o.onnx").graph.node}


def test_diff_exits_1_when_plans_differ() -> None:
    done("plan", "model.onnx", "-o", "a", "-d", "samples.npy")
    report = document("plan", "model.onnx", "-o", "b", "-d", "samples.npy", "-x", "stem")
    assert ["stem", "Conv", "named in nodes_to_exclude"] in report["float"]
    result = command("diff", "a", "b")
    assert result.exit_code == 1
    assert "− nodes stem" in result.stdout
    assert command("diff", "a", "b", "--quiet").stdout == ""
    report = json.loads(command("diff", "a", "b", "--json").stdout)
    assert report["equal"] is False
    assert "+ notes stem" in report["differences"]


def test_plan_warns_about_random_data_once() -> None:
    result = command("plan", "model.onnx", "-o", "p", "--random-data")
    assert (result.exit_code, result.stderr.count("RANDOM data")) == (0, 1)


# compare


def quantized(*flags: str) -> str:
    done("quantize", "model.onnx", "-o", "int8.onnx", "-d", "samples.npy", "-q", *flags)
    return "int8.onnx"


def test_compare_measures_outputs() -> None:
    report = document("compare", "model.onnx", quantized(), "-d", "samples.npy")
    assert report["samples"] == 6
    assert report["outputs"]["y"]["sqnr"] > 20
    assert report["outputs"]["y"]["top1_agreement"] == 1.0
    assert "100.00%" in done("compare", "model.onnx", "int8.onnx", "-d", "samples.npy", "--samples", "3")


def test_compare_of_equal_models_is_exact() -> None:
    assert document("compare", "model.onnx", "model.onnx", "-d", "folder")["outputs"]["y"]["sqnr"] == "inf"
    assert "exact" in done("compare", "model.onnx", "model.onnx", "-d", "folder")


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "A8W8"])
def test_compare_layers_knows_folded_batchnorm(preset: str) -> None:
    """`a` is the value before BatchNormalization in the float model, and behind it in the quantized one."""
    layers = document("compare", "model.onnx", quantized("-p", preset), "-d", "samples.npy", "--layers")["layers"]
    assert set(layers) >= {"x", "c", "y"}
    assert min(layers.values()) > 20


def test_compare_layers_of_a_model_that_was_not_folded() -> None:
    Path("c.json").write_text(QuantizationConfig(optimize_model=False).to_json())
    layers = document("compare", "model.onnx", quantized("--config", "c.json"), "-d", "samples.npy", "--layers")[
        "layers"
    ]
    assert set(layers) >= {"x", "a"}
    assert min(layers.values()) > 20


def test_compare_works_for_another_tool() -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        feeds = iter([{"x": sample[None]} for sample in np.load("samples.npy")])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantize_static("model.onnx", "other.onnx", Reader())
    report = document("compare", "model.onnx", "other.onnx", "-d", "samples.npy", "--layers")
    assert report["outputs"]["y"]["sqnr"] > 20
    assert len(report["layers"]) >= 3
    assert min(report["layers"].values()) > 20


def test_compare_counts_equal_values_of_integer_outputs() -> None:
    text = "g (float[N, 4] x) => (float[N, 3] y, int64[N, 1] k) { y = Gemm (x, w)  k = ArgMax <axis = 1> (y) }"
    onnx.save(text_model(text, w=normal(4, 3)), "labels.onnx")
    np.save("rows.npy", normal(5, 4))
    report = document("compare", "labels.onnx", "labels.onnx", "-d", "rows.npy")
    assert report["outputs"]["k"] == {"sqnr": None, "equal": 1.0}
    assert "equal values" in done("compare", "labels.onnx", "labels.onnx", "-d", "rows.npy")


def test_compare_refuses_other_interfaces() -> None:
    def saved(name: str, text: str) -> str:
        onnx.save(text_model(text), name)
        return name

    first = saved("a.onnx", "g (float[1, 3, 8, 8] x) => (float[1, 192] y) { y = Flatten (x) }")
    renamed = saved("b.onnx", "g (float[1, 3, 8, 8] x) => (float[1, 192] z) { z = Flatten (x) }")
    asking = saved("c.onnx", "g (float[1, 3, 8, 8] x, float s) => (float y) { y = Mul (x, s) }")
    reshaped = saved("d.onnx", "g (float[1, 3, 8, 8] x) => (float[3, 64] y) { y = Flatten <axis = 2> (x) }")
    assert "no output 'y'" in fails(3, "compare", first, renamed, "-d", "samples.npy")
    assert "no input 's'" in fails(3, "compare", first, asking, "-d", "samples.npy")
    assert "[1, 192]" in fails(3, "compare", first, reshaped, "-d", "samples.npy")


# errors


@pytest.mark.parametrize(
    ("code", "arguments", "expected"),
    [
        (2, "quantize model.onnx -o o.onnx -d samples.npy -p A8W9", "did you mean 'A8W8'"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --weight-type int9", "did you mean"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --exclude nix", "matches no node"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --option Percentile", "KEY=VALUE"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --option Percentil=99", "did you mean 'Percentile'"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --mean a,b", "--mean"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --mean 1,2", "one, or 3"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --size big", "--size"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --color RGBA", "did you mean"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --random-data", "leave one of them out"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --config none.json", "none.json"),
        (2, "quantize model.onnx -o model.onnx -d samples.npy", "input model"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --save-plan folder", "holds no plan.json"),
        (2, "plan model.onnx -o folder -d samples.npy", "holds no plan.json"),
        (2, "plan model.onnx -o model.onnx/plan -d samples.npy", "cannot write"),
        (2, "inspect model.onnx --option AlignConcat=maybe", "AlignConcat"),
        (3, "quantize none.onnx -o o.onnx -d samples.npy", "does not exist"),
        (3, "inspect samples.npy", "not a valid ONNX model"),
        (3, "compare model.onnx none.onnx -d samples.npy", "does not exist"),
        (4, "quantize model.onnx -o o.onnx", "--data PATH"),
        (4, "quantize model.onnx -o o.onnx -d none", "does not exist"),
        (4, "plan model.onnx -o plan", "--data PATH"),
        (4, "compare model.onnx model.onnx", "--data PATH"),
        (5, "apply model.onnx none -o o.onnx", "no plan in none"),
        (5, "diff none none", "no plan in none"),
    ],
)
def test_errors_are_one_line_and_a_code(code: int, arguments: str, expected: str) -> None:
    assert expected in fails(code, *arguments.split())
    assert not Path("o.onnx").exists()


def test_apply_refuses_another_model() -> None:
    done("plan", "model.onnx", "-o", "plan", "-d", "samples.npy", "-x", "stem")
    text = "g (float[1, 3, 8, 8] x) => (float[1, 192] y) { y = Flatten (x) }"
    onnx.save(text_model(text), "other.onnx")
    assert "the plan was made for model" in fails(5, "apply", "other.onnx", "plan", "-o", "o.onnx")
    assert "input model" in fails(2, "apply", "model.onnx", "plan", "-o", "model.onnx")


@pytest.mark.parametrize("text", [None, "{", '{"per_chanel": true}'])
def test_apply_needs_the_configuration(text: str | None) -> None:
    done("plan", "model.onnx", "-o", "plan", "-d", "samples.npy")
    Path("plan/config.json").unlink()
    if text is not None:
        Path("plan/config.json").write_text(text)
    assert "config.json" in fails(5, "apply", "model.onnx", "plan", "-o", "o.onnx")


def test_usage_errors_exit_with_2() -> None:
    for arguments in (["quantize", "model.onnx"], ["nonsense"], ["presets", "--nonsense"]):
        assert command(*arguments).exit_code == 2


def test_bugs_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("quark_onnx.cli.look.open_job", broken)
    with pytest.raises(ZeroDivisionError):
        command("inspect", "model.onnx")


# the program


def test_version_and_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert done("--version").strip() == f"quark-onnx {__version__}"
    monkeypatch.setattr(sys, "argv", ["quark-onnx", "inspect", "none.onnx"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 3
    assert capsys.readouterr().err.startswith("error: model none.onnx does not exist")


@pytest.mark.parametrize("name", ["quantize", "inspect", "compare", "plan", "apply", "diff", "presets", "demo"])
def test_help_is_there_with_an_example(name: str) -> None:
    assert name in done("--help")
    text = done(name, "--help")
    assert "--json" in text
    assert f"quark-onnx {name}" in text


def test_the_package_does_not_import_the_command_line() -> None:
    code = "import sys, quark_onnx; sys.exit('typer' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
