"""What evaluators may give, a number or one for each sample, and what is said of anything else."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quark_onnx.core.errors import DataError
from quark_onnx.evaluators import EvaluatorError, Score, refusal, score

MODEL = Path("net.onnx")

CHANCE = 0.14
"""Five relative standard errors of the noise, see test_paired_bootstrap.py."""


def said(value: Any) -> Score:
    def judge(path: str) -> Any:
        assert path == "net.onnx"
        return value

    return score(judge, Path(), MODEL)


def printed(*lines: str) -> Score:
    text = "\n".join(lines)
    return score(f'{sys.executable} -c \'print("""{text}""")\' {{model}}', Path(), MODEL)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), [0.5], "0.5", Decimal("0.5")])
def test_one_number(value: Any) -> None:
    found = said(value)
    assert (found.value, found.samples, found.noise) == (0.5, None, None)


@pytest.mark.parametrize(
    "values",
    [[1, 0, 1, 1], (True, False, True, True), np.array([1, 0, 1, 1], np.uint8), "1 0 1, 1", "[1.0, 0, true, 1]"],
)
def test_one_number_for_each_sample(values: Any) -> None:
    found = said(values)
    assert found.value == 0.75
    assert found.samples is not None and found.samples.dtype == np.float64
    assert found.samples.tolist() == [1, 0, 1, 1]
    assert found.noise == pytest.approx(np.std([1, 0, 1, 1]) / 2, rel=CHANCE)


@pytest.mark.parametrize("line", ["0.25 0.75", "0.25, 0.75", "0.25,0.75", "[0.25, 0.75]", "0.25\t0.75"])
def test_a_command_prints_them_on_its_last_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = printed("loss 3.5", line)
    assert found.samples is not None and found.samples.tolist() == [0.25, 0.75]
    assert "loss 3.5" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "gave None and not a number"),
        ("accuracy 0.5", "gave 'accuracy 0.5' and not a number"),
        ("0.5]", "gave '0.5]' and not a number"),  # the last line of an array that numpy wraps
        ("[[1, 2], [3, 4]]", r"gave an array of shape \(2, 2\) for net.onnx; it must be a number, or a list"),
        ([[1.0], [2.0, 3.0]], "and not a number, or a list of numbers"),
        ({"top1": 0.5}, "and not a number"),
        ([0.5, None], "and not a number"),
        (1j, "and not a number"),
        ([], r"gave an array of shape \(0,\)"),
        (np.zeros((3, 1)), r"gave an array of shape \(3, 1\)"),
        (float("nan"), "gave nan for net.onnx; it must be finite"),
        ([0.5, float("-inf")], "gave -inf for net.onnx at sample 1; it must be finite"),
    ],
)
def test_what_is_no_score_is_told(value: Any, text: str) -> None:
    with pytest.raises(EvaluatorError, match=f"evaluator 'said.<locals>.judge' .*{text}"):
        said(value)


def test_the_noise_of_a_drop_is_that_of_pairs() -> None:
    """What makes a sample hard is in both scores: alone each differs by chance, their difference does not."""
    hard = np.random.default_rng(0).standard_normal(400)
    before, after = said(hard), said(hard - 0.25)
    assert before.noise == pytest.approx(hard.std() / 20, rel=CHANCE)
    assert before.noise_of_drop(after) == pytest.approx(0, abs=1e-15)
    shuffled = before.noise_of_drop(said(hard[::-1]))
    assert shuffled == pytest.approx((hard - hard[::-1]).std() / 20, rel=CHANCE)
    assert before.noise_of_drop(said(0.5)) is None
    assert said(0.5).noise_of_drop(before) is None


def test_scores_of_different_samples_are_not_compared() -> None:
    text = r"gave 4 numbers for net.onnx and 3 for net.onnx; score every model on the same samples"
    with pytest.raises(EvaluatorError, match=f"evaluator 'said.<locals>.judge' {text}"):
        said([1, 2, 3, 4]).noise_of_drop(said([1, 2, 3]))


def test_a_function_that_fails_is_told_and_our_own_errors_pass() -> None:
    def fails(path: str) -> float:
        raise ZeroDivisionError("no images")

    def ours(path: str) -> float:
        raise DataError("no labels")

    with pytest.raises(EvaluatorError, match=r"fails' failed: ZeroDivisionError: no images"):
        score(fails, Path(), MODEL)
    with pytest.raises(DataError, match="no labels"):
        score(ours, Path(), MODEL)


def test_an_evaluator_that_exits_ends_nothing_else(tmp_path: Path) -> None:
    def leaves(path: str) -> float:
        raise SystemExit(3)

    with pytest.raises(EvaluatorError, match=r"leaves' ends Python \(exit code 3\); let it return a number"):
        score(leaves, tmp_path, tmp_path / "model.onnx")


def test_a_function_by_name_is_found_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jury_of_samples.py").write_text("def right(path):\n    return [path == 'net.onnx', False]\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert refusal("jury_of_samples:right", tmp_path) == ""
    assert "has no function 'left'" in refusal("jury_of_samples:left", tmp_path)
    assert score("jury_of_samples:right", tmp_path, MODEL).value == 0.5
