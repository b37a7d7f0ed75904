"""The command line: what each command prints and writes, and how it fails."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done, fails
from rich.console import Console
from text_models import batchnorm, normal, text_model

from quark_onnx import QuantizationConfig, __version__
from quark_onnx.cli import console, main
from quark_onnx.cli.tuning_text import tuning_rows, worst_table
from quark_onnx.core.records import LayerRecord
from quark_onnx.core.settings.presets import PRESETS, get_default_config
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.progress import terminal_line

TEXT = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [norm] b = BatchNormalization (a, gamma, beta, mean, var)
    [relu] c = Relu (b)
    [erf] d = Erf (c)
    [pool] e = GlobalAveragePool (d)
    [flat] f = Flatten (e)
    [head] y = Gemm (f, v)
}"""


def document(*arguments: object) -> Any:
    """The JSON of a command: valid by the letter, and all there is on stdout."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(done(*arguments, "--json"), parse_constant=refuse)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: model.onnx, and samples in several forms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    onnx.save(text_model(TEXT, w=normal(5, 3, 3, 3), v=normal(5, 4), **batchnorm(5)), "model.onnx")
    samples = normal(6, 3, 8, 8)
    np.save("samples.npy", samples)
    np.save("many.npy", normal(80, 3, 8, 8) + normal(80, 1, 1, 1))  # as activations are: rounding has room to gain
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
    assert set(report["layers"]) >= {"x", "c", "f"}
    assert {row["node"]: row["status"] for row in report["ledger"]}["erf"] == "float"
    assert report["config"]["activation_type"] == "int8"


def test_quantize_lists_layers_worst_first() -> None:
    text = done("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy", "--layers")
    table = text[: text.index("Operator")]
    ratios = [float(line.split()[1]) for line in table.splitlines() if "dB" in line]
    assert len(ratios) >= 3
    assert ratios == sorted(ratios)


def test_flags_choose_target_and_methods() -> None:
    flags = ["--target", "tensorrt", "--method", "tf_enhanced", "--weight-method", "MSE", "-p", "A8W8"]
    config = document("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", *flags)["config"]
    assert (config["target"], config["calibrate_method"]) == ("tensorrt", "tf_enhanced")
    assert config["extra_options"]["WeightCalibrateMethod"] == "MinMSE"
    text = fails(2, "quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", "--target", "tensorr")
    assert "did you mean 'tensorrt'" in text


def test_quiet_prints_nothing() -> None:
    result = command("quantize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert Path("out.onnx").is_file()


def test_flags_change_the_configuration() -> None:
    flags = "--preset A8W8 --per-channel --activation-type uint8 --weight-type int8 -x pool --exclude h*d --samples 2"
    options = ["--option", "Percentile=99.5", "--option", "AlignConcat=false"]
    report = document("quantize", "model.onnx", "-o", "o.onnx", "-d", "samples.npy", *flags.split(), *options)
    config = report["config"]
    assert config["per_channel"] is True
    assert (config["activation_type"], config["weight_type"]) == ("uint8", "int8")
    assert config["nodes_to_exclude"] == ["pool", "h*d"]
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
    assert len(list(Path().glob("o.onnx.*.data"))) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-o r.html --report r.html", "--output r.html is --report"),
        ("-o ./a/../r.json --report r.html", "--output a/../r.json is the report's JSON"),
        ("-o link --report r.html", "--output link is --report"),
        ("-o plan/m.onnx --save-plan plan", "--output plan/m.onnx is in plan, which --save-plan replaces"),
        ("-o samples.npz -d samples.npz", "--output samples.npz is --data"),
        ("-o c.npz --calibration-cache c.npz", "--output c.npz is --calibration-cache"),
        ("-o same.onnx", "--output same.onnx is the input model"),
        ("-o fifo", "fifo is a device, a pipe or a socket"),
        ("-o o.onnx --report fifo.html", "fifo.html is a device, a pipe or a socket"),
        ("-o o.onnx --report second.html", "second.json is a device, a pipe or a socket"),
        ("-o o.onnx --calibration-cache fifo.npz", "fifo.npz is a device, a pipe or a socket"),
        ("-o o.onnx --save-plan full", "full also holds 'notes.txt'"),
    ],
)
def test_outputs_that_would_replace_what_they_must_not(arguments: str, said: str) -> None:
    """Nothing is done, and nothing is written."""
    for name in ("fifo", "fifo.html", "second.json", "fifo.npz"):
        os.mkfifo(name)
    Path("link").symlink_to("r.html")
    os.link("model.onnx", "same.onnx")
    Path("a").mkdir()
    Path("full").mkdir()
    for name in ("plan.json", "notes.txt"):
        Path("full", name).touch()
    before = sorted(Path().rglob("*"))
    data = () if "-d" in arguments else ("-d", "samples.npy")
    assert said in fails(2, "quantize", "model.onnx", *data, *arguments.split())
    assert sorted(Path().rglob("*")) == before


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


# fine-tuning

TUNE = ("quantize", "model.onnx", "-o", "out.onnx", "-d", "many.npy", "--preset", "S8S8_AAWS_ADAROUND")


def few(iterations: int = 20) -> tuple[str, str]:
    """Flags that make fine-tuning quick."""
    return "--option", f'FastFinetune={{"NumIterations": {iterations}}}'


def stop_at(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when progress comes to this."""

    def tell(stage: str, done: int, total: int | None) -> None:
        if stage.partition(",")[0] == where:
            raise KeyboardInterrupt

    for module in ("quantize", "plans"):
        monkeypatch.setattr(f"quark_onnx.cli.{module}.progress", lambda quiet: contextlib.nullcontext(tell))


def test_fine_tuning_is_in_the_report() -> None:
    text = done(*TUNE, *few())
    for expected in ("Gained least", "stem", "head", "Error on held-out samples", "Fine-tuning    2 layers: "):
        assert expected in text
    report = document(*TUNE, *few())
    assert [record["node"] for record in report["tuned"]] == ["stem", "head"]
    assert report["tuned"][0].keys() == {field.name for field in fields(LayerRecord)}
    assert report["tuned"][0]["iterations"] == 20
    assert (report["untuned"], report["interrupted"]) == ({}, False)
    assert report["seconds"]["tune"] > 0


def test_what_layers_became_is_counted_and_the_worst_are_listed() -> None:
    def record(index: int, choice: str, held: float, accepted: bool = True) -> LayerRecord:
        return LayerRecord(f"layer{index}", "Conv", choice, accepted, 9, 1.0, 2.0, 1.0, 2.0, held)

    records = [record(i, "tuned", 1 + i / 10) for i in range(6)]
    records += [record(6, "nearest", 1.9), record(7, "untuned", 1.95), record(8, "raw", 2.0, False)]
    records += [record(9, "tuned", 1.0, False)]  # the whole model got no better
    rows = tuning_rows(records, {"a": "both inputs are activations", "b": "not quantized: excluded"}, 2.34)
    assert rows["Fine-tuning"] == "10 layers: 6 tuned, 1 scale and bias only, 1 bias only, 2 left as is; 2.3 s"
    assert str(rows["Not tuned"]) == "1 layer: both inputs are activations"
    without = [replace(record, iterations=0) for record in records]  # GPTQ has none
    assert "Fine-tuning" in tuning_rows(without, {}, 2.34)
    assert "Bias correction" in tuning_rows(without[6:9], {}, 2.34)
    screen = Console(file=io.StringIO(), width=100)
    screen.print(worst_table(records))
    lines = [line.split() for line in screen.file.getvalue().splitlines() if "layer" in line]  # type: ignore[attr-defined]
    assert [(line[0], line[-1]) for line in lines] == [
        ("layer8", "+0.0%"),
        ("layer9", "+0.0%"),
        ("layer7", "-2.5%"),
        ("layer6", "-5.0%"),
        ("layer5", "-25.0%"),
    ]


def test_options_of_fine_tuning_change_the_presets() -> None:
    twice = (*few(30), "--option", 'FastFinetune={"UpdateBias": false}')
    config = document(*TUNE, *twice)["config"]
    expected = {"OptimAlgorithm": "adaround", "NumIterations": 30, "UpdateBias": False}
    assert config["extra_options"]["FastFinetune"] == expected
    assert "set include_fast_ft=True" in fails(2, *TUNE[:-2], *few())
    assert "FastFinetune" in fails(2, *TUNE, "--option", "FastFinetune=adaquant")


def test_bias_correction_and_no_cle() -> None:
    report = document(*TUNE[:-2], "--bias-correction", "--no-cle")
    assert report["config"]["extra_options"]["BiasCorrection"] is True
    assert report["config"]["include_cle"] is False
    assert "equalize" not in report["seconds"]
    assert {record["choice"] for record in report["tuned"]} <= {"untuned", "raw"}
    assert "Bias correction  2 layers: " in done(*TUNE[:-2], "--bias-correction", "--no-cle")
    report = document(*TUNE[:-2], "--no-bias-correction")
    assert (report["config"]["include_cle"], report["tuned"], report["correction"]) == (True, [], None)


def test_without_a_preset_it_is_the_default() -> None:
    report = document(*TUNE[:-2])
    assert QuantizationConfig.from_dict(report["config"]) == get_default_config()
    assert report["correction"]["samples"] == 8
    assert "Bias correction not needed: the worst output is worth " in " ".join(done(*TUNE[:-2]).split())
    coarse = (*TUNE[:-2], "--weight-type", "int3", "--no-protect")
    assert len(document(*coarse)["tuned"]) == 2
    text = " ".join(done(*coarse).split())
    assert "dB with it, " in text
    assert "on 8 samples that it did not learn from; " in text
    few = " ".join(done("quantize", "model.onnx", "-o", "out.onnx", "-d", "samples.npy").split())
    assert "Bias correction left out: too few samples to judge it by " in few
    plan = document("plan", "model.onnx", "-o", "p", "-d", "many.npy")
    assert plan["correction"] == report["correction"]


def test_the_default_fits_the_target_and_flags_change_it() -> None:
    random = ("quantize", "model.onnx", "-o", "out.onnx", "--random-data", "--samples", "2")
    for target, row in TARGETS.items():
        config = document(*random, "--target", target)["config"]
        assert (config["target"], config["per_channel"]) == (target, row.per_channel)
    assert document(*random, "--per-tensor")["config"]["per_channel"] is False
    half = document(*random[:-2], "--activation-type", "float16", "--weight-type", "float16")["config"]
    assert QuantizationConfig.from_dict(half).conversion == "float16"
    assert "remove ActivationSymmetric=False" in fails(2, *random, "-p", "S8S8_AAWS", "--target", "tensorrt")


def test_protect_from_the_command_line() -> None:
    def protect(*flags: str) -> Any:
        return document("inspect", "model.onnx", *flags)["config"]["extra_options"]["Protect"]

    assert protect() is True
    assert protect("--no-protect") is protect("--option", "Protect=false") is False
    assert protect("--option", 'Protect=["head*", "!stem"]') == ["head*", "!stem"]
    assert "Protect does not take 'head'" in fails(2, "inspect", "model.onnx", "--option", "Protect=head")
    weights = ("--option", "WeightsOnly=true", "--option", 'Protect=["head"]')
    assert "Protect needs activations with ranges" in fails(2, "inspect", "model.onnx", *weights)


def test_an_interrupted_run_is_kept_and_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is what the run would have written without Ctrl-C."""
    done(*TUNE, *few(), "--save-plan", "whole")
    whole = Path("out.onnx").read_bytes()
    with monkeypatch.context() as patch:
        stop_at("tune head", patch)
        result = command(*TUNE, *few(), "--save-plan", "part", "--json")
    assert result.exit_code == 0
    assert "fine-tuning was interrupted" in result.stderr
    assert "with --resume part" in result.stderr
    report = json.loads(result.stdout)
    assert report["interrupted"] is True
    assert [record["node"] for record in report["tuned"]] == ["stem"]
    assert Path("out.onnx").read_bytes() != whole
    onnx.checker.check_model("out.onnx")

    text = done(*TUNE[:-2], "--resume", "part", "--save-plan", "part")
    assert "from a plan with 1 tuned weight " in text
    assert Path("out.onnx").read_bytes() == whole
    assert done("diff", "whole", "part").strip() == "The plans decide the same."
    assert document(*TUNE, *few(), "--resume", "part")["interrupted"] is False


def test_a_time_limit_is_kept_and_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a setting of fine-tuning: kept with the plan, and one that going on may change."""
    done(*TUNE, *few(), "--save-plan", "whole")
    seconds = itertools.count(0.0, 10.0)
    monkeypatch.setattr("quark_onnx.engine.tuning_pace.perf_counter", lambda: next(seconds))
    report = document(*TUNE, *few(), "--time-limit", "15", "--save-plan", "part")
    assert report["config"]["extra_options"]["FastFinetune"]["TimeLimit"] == 15
    assert report["config"]["extra_options"]["FastFinetune"]["NumIterations"] == 20
    assert (report["interrupted"], [record["node"] for record in report["tuned"]]) == (True, ["stem"])
    result = command(*TUNE[:-2], "--resume", "part", "--save-plan", "again", "--time-limit", "5")
    assert "by its time limit of 5 s: 0 of 1 layers are done, 'head' would take about" in result.stderr
    assert "with --resume again" in result.stderr
    done(*TUNE[:-2], "--resume", "again", "--save-plan", "last", "--time-limit", "100")
    assert done("diff", "whole", "last").strip() == "The plans decide the same."


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_time_limit_is_some_seconds(value: str) -> None:
    assert f"(TimeLimit) must be a number above 0, not {float(value)}" in fails(2, *TUNE, f"--time-limit={value}")


def test_a_time_limit_needs_something_to_end() -> None:
    for preset in ("S8S8_AAWS", "INT8_PROTECTED", "FP16"):
        assert "--time-limit ends fine-tuning, and" in fails(2, *TUNE[:-1], preset, "--time-limit", "9")
    assert "there is none" in fails(2, *TUNE[:-2], "--bias-correction", "--time-limit", "9")


def test_an_interrupted_run_without_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at("tune head", monkeypatch)
    result = command(*TUNE, *few(), "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "--save-plan FOLDER would" in result.stderr


def test_what_is_interrupted_elsewhere_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at("calibrate", monkeypatch)
    assert command(*TUNE, "--save-plan", "part").exit_code == 130
    assert not Path("out.onnx").exists()
    assert not Path("part").exists()


def test_an_interrupted_plan_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at("tune head", patch)
        result = command("plan", "model.onnx", "-o", "part", *TUNE[4:], *few(), "-x", "pool")
    assert (result.exit_code, result.stderr.count("--resume part")) == (0, 1)
    assert "Fine-tuning" in result.stdout
    report = document("quantize", "model.onnx", "-o", "o.onnx", "-d", "many.npy", "-x", "pool", "--resume", "part")
    assert [record["node"] for record in report["tuned"]] == ["head"]


def test_what_a_plan_has_decided_cannot_change() -> None:
    done("plan", "model.onnx", "-o", "p", "-d", "samples.npy", "-p", "S8S8_AAWS", "--bias-correction")
    resume = (*TUNE[:-2], "--resume", "p")
    assert len(document(*resume, "-p", "S8S8_AAWS_ADAROUND", *few())["tuned"]) == 2  # this may
    for flags in ("--per-channel", "--weight-type int4", "-x stem", "--no-cle", "-p A8W8", "--option AlignConcat=true"):
        assert "the plan in p was made with" in fails(2, *resume, *flags.split())
    text = TEXT.replace("Relu", "Sigmoid")
    onnx.save(text_model(text, w=normal(5, 3, 3, 3), v=normal(5, 4), **batchnorm(5)), "other.onnx")
    assert "the plan was made for model" in fails(5, "quantize", "other.onnx", *resume[2:])
    assert "no plan in none" in fails(5, *TUNE, "--resume", "none")
    Path("p/config.json").unlink()
    assert "config.json" in fails(5, *resume)


def test_the_line_of_progress() -> None:
    """The layer at work, what the last one gained, and the time left, from all layers so far."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    shown = terminal_line.display(screen)
    seconds = [0.0]
    shown.get_time = lambda: seconds[0]

    def after(stage: str, done: int, total: int | None) -> str:
        teller.tell(stage, done, total)
        seconds[0] += 60
        with screen.capture() as captured:
            screen.print(shown.get_renderable())
        return captured.get()

    teller = terminal_line.Line(shown)
    assert "calibrating" in after("calibrate", 5, 5)
    assert "fine-tuning" in (text := after("tune", 0, None)) and "5/5" not in text
    assert "fine-tuning a/[b]" in (text := after("tune a/[b]", 0, 4)) and "0/4" in text
    assert "last" not in text
    assert "last 20.1 → 23.4 dB" in after("tune a/[b]: 20.1 → 23.4 dB (tuned)", 1, 4)
    assert "left" not in after("tune c", 1, 4)  # one layer tells no speed
    text = after("tune c: 30.0 → 30.0 dB (raw)", 2, 4)
    assert "fine-tuning c" in text and "2/4" in text and "last 30.0 → 30.0 dB" in text
    assert "0:04:00 left" in text  # two layers at two minutes each
    assert f"fine-tuning …{'x' * 43} " in after("tune " + "y" * 9 + "x" * 43, 2, 4)
    text = after("tune c (about 40 s), about 3 min left", 2, 4)  # better than by the number of layers
    assert "fine-tuning c (about 40 s) " in text and "about 3 min left" in text and "0:0" not in text.split("min")[1]
    assert "about 3 min left" in after("tune c: 20.1 → 23.4 dB (tuned)", 3, 4)
    assert "about" not in after("tune d", 3, 4)
    assert "about" not in after("prove", 0, None)
    assert "last" not in after("apply", 0, None)


def test_the_demo_has_a_fine_tuned_model() -> None:
    """Of the same size and on integers, as the one it is compared with; nearer to the float model."""
    models = document("demo")["models"]
    rounded, tuned = models["INT8 per tensor"], models["INT8 + AdaRound"]
    assert (tuned["bytes"], tuned["fused"]) == (rounded["bytes"], rounded["fused"])
    assert tuned["sqnr"] > rounded["sqnr"] + 1
    assert tuned["right"] >= models["float"]["right"] - 2
    assert tuned["milliseconds"] > 0


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


def plain(name: str) -> str:
    """The name of a preset without what is done after rounding."""
    return re.sub("_(ADAROUND|ADAQUANT|GPTQ|QAT)$", "", name)


def test_presets() -> None:
    text = done("presets")
    assert all(plain(name) in text for name in PRESETS)
    assert "INT8_PROTECTED is the default." in text
    first = next(line for line in text.splitlines() if "int8" in line)
    assert first.split()[0] == "INT8_PROTECTED"
    assert "_ADAROUND, _ADAQUANT, _GPTQ and _QAT at the end" in " ".join(text.split())
    assert document("presets").keys() == PRESETS.keys()
    assert QuantizationConfig.from_dict(document("presets", "A8W8")["A8W8"]) == PRESETS["A8W8"]
    assert "one scale for the whole tensor" in done("presets", "A8W8")
    assert "did you mean 'A8W8'" in fails(2, "presets", "A8W9")


def test_presets_fit_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = done("presets").splitlines()
    assert max(map(len, lines)) <= 80
    for name in PRESETS:
        assert any(plain(name) in line.split() for line in lines)
    text = " ".join(done("presets", "A8W8_ADAQUANT").split())
    for expected in ("AdaQuant trains the weights", "samples held out", "evened out between layers", "Smoothing"):
        assert expected in text
    assert "OptimAlgorithm" not in text
    text = " ".join(done("presets", "S4S4_AAWS_QAT").split())
    assert "AdaRound learns which weights" in text
    assert "scales of weights, ranges of activations are trained through the whole model, 20 passes" in text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_explained(name: str) -> None:
    text = done("presets", name)
    assert "Target" in text
    assert "Activations" in text or "Conversion" in text


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
    assert "+ notes stem: named in nodes_to_exclude" in report["differences"]


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
    assert report["outputs"]["y"]["agreement"] == 1.0
    assert report["worst"] == report["outputs"]["y"]["sqnr"]
    assert "100.00%" in done("compare", "model.onnx", "int8.onnx", "-d", "samples.npy", "--samples", "3")


def test_compare_of_equal_models_is_exact() -> None:
    assert document("compare", "model.onnx", "model.onnx", "-d", "folder")["outputs"]["y"]["sqnr"] == "inf"
    assert "exact" in done("compare", "model.onnx", "model.onnx", "-d", "folder")


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "A8W8"])
def test_compare_layers_knows_folded_batchnorm(preset: str) -> None:
    """`a` is the value before BatchNormalization in the float model, and behind it in the quantized one."""
    layers = document("compare", "model.onnx", quantized("-p", preset), "-d", "samples.npy", "--layers")["layers"]
    assert set(layers) >= {"x", "c", "f"}
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
    assert (report["outputs"]["k"]["sqnr"], report["outputs"]["k"]["equal"]) == (None, 1.0)
    assert "all equal" in done("compare", "labels.onnx", "labels.onnx", "-d", "rows.npy")


def test_compare_shows_the_worst_slice_and_what_is_wrong() -> None:
    """Boxes and scores in one tensor, and a quantizer with one scale behind it."""
    both = "b = Mul (x, big) s = Sigmoid (x) z = Concat <axis = 1> (b, s)"
    shape = "(float[N, 3, 64] x) => (float[N, 6, 64] y)"
    onnx.save(text_model(f"g {shape} {{ {both} y = Identity (z) }}", big=np.float32(300)), "boxes.onnx")
    grid = {"big": np.float32(300), "scale": np.float32(10), "zero": np.int8(0)}
    rounded = "q = QuantizeLinear (z, scale, zero) y = DequantizeLinear (q, scale, zero)"
    onnx.save(text_model(f"g {shape} {{ {both} {rounded} }}", **grid), "coarse.onnx")
    np.save("rows.npy", normal(8, 3, 64))
    result = command("compare", "boxes.onnx", "coarse.onnx", "-d", "rows.npy")
    assert "0.0 dB (axis 1, index" in result.stdout
    assert "warning: output 'y' keeps" in result.stderr and "(axis 1, index" in result.stderr
    found = document("compare", "boxes.onnx", "coarse.onnx", "-d", "rows.npy")
    assert found["worst"] == found["outputs"]["y"]["worst"]["sqnr"] < 1 < 25 < found["outputs"]["y"]["sqnr"]


def test_quantize_says_what_outputs_keep() -> None:
    text = "g (float[N, 4] x) => (int64[N, 1] k) { l = Gemm (x, w)  k = ArgMax <axis = 1> (l) }"
    onnx.save(text_model(text, w=normal(4, 3)), "labels.onnx")
    np.save("rows.npy", normal(50, 4))
    told = done("quantize", "labels.onnx", "-o", "out.onnx", "-d", "rows.npy")
    assert re.search(r"Output SQNR +(all|[\d.]+%) equal  k", told)
    assert re.search(r"out\.onnx  \([\d.]+ [kb]", told)


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
    result = command("compare", first, reshaped, "-d", "samples.npy")
    assert result.exit_code == 0
    assert "e.g. [3, 64] for [1, 192]" in result.output


# errors


@pytest.mark.parametrize(
    ("code", "arguments", "expected"),
    [
        (2, "quantize model.onnx -o o.onnx -d samples.npy -p A8W9", "did you mean 'A8W8'"),
        (2, "quantize model.onnx -o o.onnx -d samples.npy --weight-type int99", "did you mean"),
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

    monkeypatch.setattr("quark_onnx.cli.inspect_model.open_job", broken)
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
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
