"""Budgets of a zoo: judged by the worst that is known of an output, whatever its type."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console
from silent_zoo import Silent
from text_models import normal, text_model

from quark_onnx import get_default_config
from quark_onnx.cli import zoo as command
from quark_onnx.cli.zoo_progress import summary
from quark_onnx.core.json_writing import plain
from quark_onnx.core.settings.budget import Budget
from quark_onnx.zoo import Outcome, ZooResult
from quark_onnx.zoo.convert import convert
from quark_onnx.zoo.entry import Entry, Try
from quark_onnx.zoo.page import _word
from quark_onnx.zoo.rows import Row, row_of

TEXTS = {
    "labels": "g (float[N, 8] x) => (int64[N, 1] y) { l = MatMul (x, w)  y = ArgMax <axis = 1> (l) }",
    "bool": "g (float[N, 8] x) => (bool[N, 6] y) { l = MatMul (x, w)  y = Greater (l, zero) }",
    "logits": "g (float[N, 8] x) => (float[N, 6] y) { y = MatMul (x, w) }",
    "nothing": "g (float[N, 8] x) => (int64[2, M] y) { l = MatMul (x, w)  r = Mul (l, zero)  y = NonZero (r) }",
    "scores": """g (float[N, 8, 20] x) => (float[N, 12, 20] y) {
        l = Conv (x, kernel)  b = Mul (l, big)  s = Sigmoid (l)  c = Concat <axis = 1> (b, s)  y = Conv (c, same) }""",
}


def converted(kind: str, budget: Budget, home: Path, **fields: Any) -> Row:
    constants = {"w": normal(8, 6), "zero": np.float32(0), "big": np.float32(4), "kernel": normal(6, 8, 1)}
    constants["same"] = np.eye(12, dtype=np.float32)[:, :, None]
    used = {name: array for name, array in constants.items() if f" {name})" in TEXTS[kind]}
    onnx.save(text_model(TEXTS[kind], **used), home / "m.onnx")
    np.savez(home / "data.npz", x=normal(96, 8, 20) if kind == "scores" else normal(64, 8))
    config = replace(get_default_config("S8S8_AAWS"), **fields)
    tries = (Try("S8S8_AAWS", config.to_json()),)
    entry = Entry("m", str(home / "m.onnx"), "1", str(home), tries, str(home / "data.npz"), budget=budget)
    convert(entry, home, Silent())
    return row_of(json.loads((home / "out" / "result.json").read_text("utf-8")))


@pytest.mark.parametrize("kind", ["labels", "bool"])
def test_labels_have_a_budget(kind: str, tmp_path: Path) -> None:
    row = converted(kind, Budget(min_sqnr=25), tmp_path, weight_type="int4")
    share = row.outputs["y"].equal
    assert share is not None and share < 1 and row.sqnr == {}
    worth = row.least_sqnr
    assert worth is not None and worth == row.outputs["y"].db
    assert row.status == "over budget"
    assert f"output 'y' has {share:.2%} equal values, which counts as {worth:.1f} dB, and should keep 25" in row.reason
    assert row.tries[0]["sqnr"] == pytest.approx(worth)
    assert row_of(json.loads(json.dumps(plain(row)))) == row


def test_labels_within_the_budget(tmp_path: Path) -> None:
    assert converted("bool", Budget(min_sqnr=10), tmp_path).status == "good"


def test_classes_are_told_of_each_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logits have classes; labels have none."""
    row = converted("logits", Budget(min_sqnr=60), tmp_path, weight_type="int4")
    agreement, kl = row.outputs["y"].agreement, row.outputs["y"].kl
    assert agreement is not None and kl is not None and agreement < 1 and kl > 0
    assert (row.tries[0]["agreement"], row.tries[0]["kl"]) == (row.classes.agreement, row.classes.kl) == (agreement, kl)
    assert f"KL {kl:.3g}" in _word({**row.tries[0], "preset": "A8W8"})
    monkeypatch.setattr(command, "out", Console(width=200, highlight=False, markup=False))
    command._print(ZooResult(tmp_path, (Outcome(replace(row, status="good")),)))
    assert f"{kl:.3g}" in capsys.readouterr().out
    assert f"same arg-max {agreement:.2%}, KL {kl:.3g}" in summary(Outcome(replace(row, status="good")))


def test_what_has_no_classes_tells_none(tmp_path: Path) -> None:
    row = converted("labels", Budget(min_sqnr=1), tmp_path)
    assert (row.tries[0]["agreement"], row.tries[0]["kl"]) == (row.classes.agreement, row.classes.kl) == (None, None)
    assert "KL" not in _word({**row.tries[0], "preset": "A8W8"}) + summary(Outcome(row))


def test_nothing_measured_is_no_success(tmp_path: Path) -> None:
    row = converted("nothing", Budget(min_sqnr=1), tmp_path)
    assert (row.status, row.least_sqnr) == ("over budget", None)
    assert "no output holds a value on these samples" in row.reason
    assert any("holds nothing that could be measured" in warning for warning in row.warnings)


def test_scores_behind_boxes_have_a_budget(tmp_path: Path) -> None:
    """16 of 96 samples judge; their 20 positions are 320 numbers for each slice. Scores are bad here, but not lost."""
    row = converted("scores", Budget(min_sqnr=25), tmp_path)
    one = row.outputs["y"]
    assert one.sqnr is not None and one.sqnr > 25
    assert one.worst is not None and one.worst.index >= 6 and row.least_sqnr == one.worst.sqnr
    assert row.status == "over budget"
    assert f"worst {one.worst.sqnr:.1f} dB (axis 1, index {one.worst.index}), and should keep 25" in row.reason


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(max_kl=1.0), ""),
        (Budget(max_kl=1e-9), "output 'y' has KL {:.3g} from the float one, and may have 1e-09"),
        (Budget(min_agreement=0.5, min_sqnr=90), "output 'y' keeps "),
    ],
)
def test_classes_have_a_budget(budget: Budget, said: str, tmp_path: Path) -> None:
    row = converted("logits", budget, tmp_path, weight_type="int4")
    kl = row.outputs["y"].kl
    assert kl is not None and kl > 1e-6 and row.tries[0]["kl"] == pytest.approx(kl)
    assert row.status == ("over budget" if said else "good") and row.reason.startswith(said.format(kl))


def test_labels_are_no_classes_that_diverge(tmp_path: Path) -> None:
    row = converted("labels", Budget(max_kl=1.0), tmp_path)
    assert (row.status, row.tries[0]["kl"]) == ("over budget", None)
    assert "no output holds classes, and max_kl is part of the budget; use min_sqnr in its place" in row.reason


def test_warnings_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "out", Console(width=200, highlight=False, markup=False))
    rows = [Outcome(Row(f"m{i}", "m.onnx", "good", warnings=(f"it is larger {i}",))) for i in range(10)]
    command._print(ZooResult(tmp_path, tuple(rows)))
    text = capsys.readouterr().out
    assert "m0: it is larger 0" in text and "m9" not in text.split("Warnings")[1] and "and 2 more" in text
