"""The search at work on the model of digits: a budget is met, and what was measured is kept."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done, fails

from quark_onnx.cli import search_progress
from quark_onnx.demo import MODEL, digits
from quark_onnx.optimize import Trial

START = ("optimize", "digits.onnx", "-o", "small.onnx", "--data", "samples.npy")
FOLDER = Path("small.onnx.search")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy(MODEL, "digits.onnx")
    np.save("samples.npy", digits()[0][:40])
    return tmp_path


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "report.json").read_text("utf-8"))
    return found


def test_a_budget_is_met_and_the_next_command_goes_on() -> None:
    assert "met: a KL divergence of at most 0.001" in done(*START, "--max-kl", "0.001")
    onnx.checker.check_model("small.onnx", full_check=True)
    first, model = report(), Path("small.onnx").read_bytes()
    chosen = next(point for point in first["points"] if point["number"] == first["chosen"])
    assert first["met"] and chosen["kl"] <= 0.001 and chosen["size"] == len(model) < first["float_size"] / 4
    assert "</svg>" in (FOLDER / "report.html").read_text("utf-8")

    trials = {path: path.stat().st_mtime_ns for path in (FOLDER / "trials").iterdir()}
    done(*START, "--max-kl", "0.001", "--quiet")
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "trials").iterdir()} == trials
    assert report()["points"] == first["points"] and Path("small.onnx").read_bytes() == model


def test_there_is_a_model_however_short_the_time() -> None:
    ended = command(*START, "--min-sqnr", "100", "--time", "0.001")
    assert ended.exit_code == 1 and "the search was ended by the time limit" in ended.stderr
    assert len(report()["points"]) == 1 and Path("small.onnx").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_an_evaluator_that_is_killed_is_an_error_in_words() -> None:
    judge = f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)' {{model}}"
    assert "command was ended by SIGKILL" in fails(2, *START, "--max-drop", "1%", "--evaluate", judge)


def test_ctrl_c_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object, trial: Trial) -> None:
        if trial.number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(search_progress.Lines, "told", interrupt)
        ended = command(*START)
    assert ended.exit_code == 0 and "the search was ended by Ctrl-C" in ended.stderr
    assert len(report()["points"]) == 1 and Path("small.onnx").exists()
    kept = report()["points"]
    done(*START, "--max-kl", "0.001", "--quiet")
    assert len(report()["points"]) > 1 and report()["points"][0]["seconds"] == kept[0]["seconds"]  # of the first run
