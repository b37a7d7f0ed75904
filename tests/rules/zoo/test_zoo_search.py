"""A zoo searches: what a manifest may say of it, what comes out, and that a killed search goes on to the same bytes."""

from __future__ import annotations

import itertools
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
from typer.testing import CliRunner

from quark_onnx import QuantizationConfig
from quark_onnx.cli import app
from quark_onnx.cli import zoo as command
from quark_onnx.core.settings.budget import Budget
from quark_onnx.optimize import optimizer
from quark_onnx.optimize.trials import Trials
from quark_onnx.zoo import ManifestError, Outcome, ZooResult
from quark_onnx.zoo.convert import convert
from quark_onnx.zoo.entry import Entry, Goal
from quark_onnx.zoo.manifest import read_zoo
from quark_onnx.zoo.page import _line
from quark_onnx.zoo.process_watch import Limits
from quark_onnx.zoo.result_address import address
from quark_onnx.zoo.rows import Row, row_of
from quark_onnx.zoo.store import hashes, locked
from quark_onnx.zoo.task import Task

TEXT = "g (float[N, 16] x) => (float[N, 8] y) { a = MatMul (x, w1)  b = Relu (a)  y = MatMul (b, w2) }"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    onnx.save(text_model(TEXT, w1=normal(16, 32), w2=normal(32, 8)), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", x=normal(40, 16))
    (tmp_path / "judge.py").write_text("def score(path):\n    return [1, 0, 1]\n", encoding="utf-8")
    return tmp_path


def read(home: Path, model: str, defaults: str = "") -> Entry:
    text = f"defaults: {{{defaults}}}\nmodels:\n  - input: m.onnx\n    {model}\n"
    (home / "zoo.yaml").write_text(text, encoding="utf-8")
    (entry,) = read_zoo(home / "zoo.yaml", home / "out")
    return entry


DATA = "data: data.npz"


def test_a_goal_takes_the_place_of_presets(home: Path) -> None:
    entry = read(home, "objective: balanced\n    time: 10m\n    samples: 30\n    options: {Percentile: 99}", DATA)
    options = {"CalibDataSize": 30, "Percentile": 99}
    assert (entry.goal, entry.tries) == (Goal("balanced", "cpu", options, 600), ())
    assert Entry.from_json(entry.to_json()) == entry
    plain = read(home, "preset: A8W8", DATA)
    assert (plain.goal, plain.tries[0].preset) == (None, "A8W8")
    assert read(home, "objective: size\n    target: qnn", "data: random").goal == Goal(
        "size", "qnn", {"UseRandomData": True}
    )


def test_an_entry_takes_back_the_other_way_of_the_defaults(home: Path) -> None:
    assert read(home, "objective: size", f"{DATA}, preset: A8W8").goal == Goal("size")
    entry = read(home, "preset: A8W8", f"{DATA}, objective: size, time: 10m")
    assert (entry.goal, [one.preset for one in entry.tries]) == (None, ["A8W8"])
    assert read(home, "objective: null", f"{DATA}, preset: A8W8").tries[0].preset == "A8W8"


@pytest.mark.parametrize(
    ("bad", "said", "good"),
    [
        ("objective: sizes", "4: objective must be size, latency or balanced, not 'sizes'", "objective: size"),
        ("objective: [size]", "4: objective must be size, latency or balanced, not ['size']", "objective: latency"),
        (
            "objective: size\n    preset: A8W8",
            "5: objective: size searches for what a preset says; remove one of both",
            "objective: size\n    name: other",
        ),
        (
            "objective: size\n    config: {per_channel: true}",
            "5: objective: size searches for the configuration, per_channel included; remove it, or name a preset",
            "objective: size\n    config: {}",
        ),
        (
            "objective: size\n    options: {LayerTypes: {}}",
            "5: objective: size searches for the configuration, LayerTypes included; remove it",
            "objective: size\n    options: {AlignConcat: true}",
        ),
        (
            "objective: size\n    data: null",
            "3: objective: size needs samples that judge; give data",
            "objective: size",
        ),
        ("objective: size\n    target: cpuu", "5: target: unknown value 'cpuu'; did you mean 'cpu'?", "target: cpu"),
        ("objective: size\n    time: soon", "5: time must be seconds, or a text such as 10m", "objective: size"),
        ("time: 10m", "4: time is the limit of a search; give an objective, or a timeout", "timeout: 10m"),
        (
            "objective: size\n    time: 1h\n    timeout: 30m",
            "5: the timeout of 1800 s ends the search before its time of 3600 s; let it be longer",
            "objective: size\n    time: 20m\n    timeout: 30m",
        ),
        (
            "objective: size\n    budget: {max_drop: 1%}",
            "5: max_drop needs an evaluator",
            "objective: size\n    budget: {max_kl: 1}",
        ),
    ],
)
def test_problem_and_its_twin(bad: str, said: str, good: str, home: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read(home, bad, DATA)
    (problem,) = caught.value.problems
    assert f"{problem.place.rpartition(':')[2]}: {problem.text}".startswith(said)
    assert read(home, good, DATA)


def converted(home: Path, name: str, budget: Budget, **goal: Any) -> Row:
    entry = replace(read(home, "objective: size", DATA), budget=budget)
    assert entry.goal is not None
    entry = replace(entry, goal=replace(entry.goal, **goal), evaluator="judge:score")
    (home / name).mkdir()
    convert(entry, home / name, Silent())
    return row_of(json.loads((home / name / "out" / "result.json").read_text("utf-8")))


def test_a_search_and_one_that_was_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest point within the budget is the model; of two trials that were made already none is made again.

    Times are others in every run, and what is told of them is in no row.
    """
    times = itertools.count()
    monkeypatch.setattr(optimizer, "slower", lambda *_: (f"it takes {next(times)} times as long",))
    row = converted(home, "once", Budget(max_kl=0.01))
    within = [one for one in row.tries if one["within_budget"]]
    (taken,) = (one for one in row.tries if one["preset"] == row.preset)
    assert row.good and taken == min(within, key=lambda one: one["size"]) and len(row.tries) > len(within) > 1
    assert (
        row.preset.startswith("search: size (") and taken["size"] == (home / "once/out/model_int8.onnx").stat().st_size
    )
    assert row.scores == {"float": 2 / 3, "quantized": 2 / 3} and row.drop == 0
    config = QuantizationConfig.from_json((home / "once/out/plan/config.json").read_text("utf-8"))
    assert config.option("LayerTypes")
    _shown(row, home, monkeypatch, capsys)

    trials, tried = str(home / "trials"), Trials._tried
    made: list[str] = []

    def until_killed(self: Trials, config: QuantizationConfig, text: str) -> dict[str, Any]:
        if len(made) == 2:
            raise SystemExit
        made.append(text)
        return tried(self, config, text)

    monkeypatch.setattr(Trials, "_tried", until_killed)
    with pytest.raises(SystemExit):
        converted(home, "killed", Budget(max_kl=0.01), trials=trials)
    monkeypatch.setattr(Trials, "_tried", lambda self, config, text: made.append(text) or tried(self, config, text))
    again = converted(home, "again", Budget(max_kl=0.01), trials=trials)
    assert len(made) == len(set(made)) == len(row.tries) and next(times) == 2
    assert again == row and hashes(home / "again/out") == hashes(home / "once/out")


def _shown(row: Row, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On the page of the zoo and in the table."""
    line = _line(home, Outcome(row))
    assert line.preset == row.preset and len(line.tried) == len(row.tries) - 1
    assert all((": over budget, " in word) != one["within_budget"] for word, one in _paired(line.tried, row))
    monkeypatch.setattr(command, "out", Console(width=200, highlight=False, markup=False))
    command._print(ZooResult(home, (Outcome(row),)))
    assert row.preset in capsys.readouterr().out


def _paired(words: tuple[str, ...], row: Row) -> list[tuple[str, Any]]:
    return list(zip(words, [one for one in row.tries if one["preset"] != row.preset], strict=True))


def test_a_budget_that_is_out_of_reach(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over after the first trial, as the second one would take as long."""
    tried = Trials._tried
    monkeypatch.setattr(Trials, "_tried", lambda *trial: tried(*trial) | {"seconds": 1e6})
    row = converted(home, "m", Budget(min_sqnr=90), time=1e5)
    assert (row.status, row.stage, len(row.tries)) == ("over budget", "judge", 1)
    assert "and should keep 90; " in row.reason and row.reason.endswith("; allow more, or give it more time")
    assert "the search was ended by the time limit: this is the best so far" in row.warnings[-1]


def test_no_time_for_a_second_trial_where_the_first_one_failed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trials, "_tried", lambda *trial: {"error": "no model", "seconds": 1e6})
    row = converted(home, "m", Budget(), time=1e5)
    assert (row.status, row.tries) == ("failed", ())
    assert row.reason == "the time limit ended the search before a trial gave a model; allow more time"


def test_trials_lie_in_the_folder_of_the_zoo_and_outlive_a_run(home: Path) -> None:
    def given(entry: Entry) -> Entry:
        with locked(home / "out") as store:
            folder = Task(entry, store, Limits())._folder()
            return Entry.from_json((folder / "entry.json").read_text("utf-8"))

    entry = read(home, "objective: size", DATA)
    trials = home / "out" / ".zoo" / "searches" / "m"
    assert given(entry) == replace(entry, goal=Goal("size", trials=str(trials)))
    trials.mkdir(parents=True)
    given(entry)
    assert trials.is_dir()
    plain = read(home, "preset: A8W8", DATA)
    assert given(plain) == plain


def test_flags_are_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    asked = ["zoo", "zoo.yaml", "-o", "out", "--check", "--data", "data.npz", "--objective", "size", "--time", "5m"]
    Path("zoo.yaml").write_text("models: [m.onnx]", encoding="utf-8")
    assert CliRunner().invoke(app, asked).stdout == "1 models, no problems.\n"
    both = CliRunner().invoke(app, [*asked, "--preset", "A8W8"])
    assert both.exit_code == 2 and "defaults.preset: objective: size searches for what a preset says" in both.stderr


def test_the_address_knows_the_goal_but_not_where_trials_lie(home: Path) -> None:
    entry = read(home, "objective: size", DATA)
    assert entry.goal is not None
    known = address(entry)
    assert known == address(replace(entry, goal=replace(entry.goal, trials="elsewhere")))
    others: list[dict[str, Any]] = [{"objective": "latency"}, {"time": 3.0}, {"options": {"NumBins": 9}}]
    assert len({known, *(address(replace(entry, goal=replace(entry.goal, **other))) for other in others)}) == 4
