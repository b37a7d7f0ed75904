"""The examples run, and do what they say, on the model of digits that comes with the package."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image

from quark_onnx import Plan
from quark_onnx.demo import MODEL, digits

ROOT = Path(__file__).parents[2]


def start(folder: Path, name: str, *arguments: object) -> subprocess.Popen[str]:
    """An example at work in `folder`, as a user would start it."""
    command = [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*map(str, command)], cwd=folder, env=environment, encoding="utf-8", **pipes)


def run(folder: Path, name: str, *arguments: object) -> str:
    """What an example prints."""
    return ended(start(folder, name, *arguments))


def ended(process: subprocess.Popen[str]) -> str:
    """What a process prints that has to succeed."""
    text, errors = process.communicate()
    assert process.returncode == 0, errors
    return text


def test_quantize_images(tmp_path: Path) -> None:
    """The PNG files hold the digits, so the model sees what it was trained on."""
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(digits()[0][:40]):
        pixels = np.rint((image[0] + 1) * 127.5).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    text = run(tmp_path, "quantize_images.py", MODEL, "photos", "small.onnx", "L")
    assert "Conv: 9 of 9 run on integers" in text
    assert "on 8 images" in text  # of 40
    assert float(text.split("logits: ")[1].split()[0]) > 30
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)


def test_finetune_adaround(tmp_path: Path) -> None:
    text = run(tmp_path, "finetune_adaround.py")
    assert "10/10 head.gemm" in text
    ratios = {line.split(":")[0]: float(line.split()[1]) for line in text.splitlines() if line.endswith(" dB")}
    assert ratios["tuned"] > ratios["rounded"] > 30
    assert [path.name for path in tmp_path.iterdir()] == ["digits_adaround.onnx"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_finetune_adaround_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path, "finetune_adaround.py")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("  2/10"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "interrupted: run again to go on from interrupted_plan" in ended(process)
    tuned = len(Plan.load(tmp_path / "interrupted_plan").codes)
    assert 2 <= tuned < 10

    text = run(tmp_path, "finetune_adaround.py")
    assert f"{10 - tuned}/{10 - tuned} head.gemm" in text
    assert [path.name for path in tmp_path.iterdir()] == ["digits_adaround.onnx"]


def test_read_the_plan(tmp_path: Path) -> None:
    text = run(tmp_path, "read_the_plan.py")
    assert "'weight': 10" in text
    assert "~ qparams head.pool.out" in text
    before, after = (float(part.split(" dB")[0].split()[-1]) for part in text.splitlines()[-1].split(","))
    assert after < before
    assert Plan.load(tmp_path / "digits_plan").sites["head.flatten.out"].role == "activation"
    onnx.checker.check_model(tmp_path / "digits_wider.onnx", full_check=True)


def test_optimize_to_a_budget(tmp_path: Path) -> None:
    """Half a point of accuracy on 300 images is one or two of them; as many again are within chance on the others."""
    text = run(tmp_path, "optimize_to_a_budget.py")
    before, after = (float(part.split(" kB")[0]) for part in text.splitlines()[-3].split(" → "))
    assert after < before / 4
    before, after = (float(part) for part in text.split("on other images: ")[1].splitlines()[0].split(" → "))
    assert after >= before - 0.01
    assert "  1 8 bits, one scale per weight\n" in text
    assert "  1 8 bits, one scale per weight\n" not in run(tmp_path, "optimize_to_a_budget.py")  # it was tried before
    assert {path.name for path in (tmp_path / "digits_search").iterdir()} == {"report.html", "report.json", "trials"}
    onnx.checker.check_model(tmp_path / "digits_small.onnx", full_check=True)


def test_aimet_tutorial(tmp_path: Path) -> None:
    """4-bit weights; the float model has .988 of the 599 digits: 1 point is two standard deviations."""
    text = run(tmp_path, "aimet_tutorial.py")
    assert float(text.split("simulated: ")[1]) >= 0.97
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adaround.encodings",
        "digits.encodings",
        "digits.onnx",
        "digits_qdq.onnx",
    }
    onnx.checker.check_model(tmp_path / "out" / "digits_qdq.onnx", full_check=True)


@pytest.mark.assets
@pytest.mark.slow
def test_simulate_mobilenet(tmp_path: Path, protocol: ModuleType) -> None:
    """100 test images: 5 points are one standard deviation of a top-1 around .6."""
    test = [i for i in range(1000) if i % 5][::8]
    np.savez(
        tmp_path / "calibration.npz",
        input=np.concatenate([feed["input"] for feed in protocol.TASKS["mobilenet-imagenet"].calib(32)]),
    )
    np.savez(tmp_path / "test.npz", input=protocol.imagenet(test), labels=np.array(test))
    model = protocol.TASKS["mobilenet-imagenet"].model
    text = run(tmp_path, "simulate_mobilenet.py", model, "calibration.npz", "test.npz")
    score = {name: float(value) for name, value in (line.rsplit(": ", 1) for line in text.splitlines())}
    assert score["rounded to nearest"] < 0.1
    assert score["AdaRound"] > score["float"] - 0.1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"mobilenet.onnx", "mobilenet.encodings"}


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda file: file.stem)
def test_examples_are_short_and_tested(file: Path) -> None:
    assert 30 <= len(file.read_text("utf-8").splitlines()) <= 60
    assert f'"{file.name}"' in Path(__file__).read_text("utf-8")


def test_train_low_bits(tmp_path: Path) -> None:
    text = run(tmp_path, "train_low_bits.py", 2)
    right = {line.split(":")[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("step")}
    assert right["rounded"] + 0.01 < right["trained"]
    assert (tmp_path / "training_of_digits.npz").exists()
