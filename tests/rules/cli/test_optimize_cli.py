"""`quark-onnx optimize`: what the flags ask for, what is written and said. The search itself is a stub here."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done, fails
from made_up_searches import mobilenet, point, searched
from rich.console import Console
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.cli import search_progress
from quark_onnx.core.plan import FILES, Plan
from quark_onnx.core.settings.budget import Budget
from quark_onnx.optimize import Optimized, Trial
from quark_onnx.report import optimize_page
from quark_onnx.result import Result

TEXT = """g (float[N, 8] x) => (float[N, 3] z) { [first] y = MatMul (x, w) [second] z = MatMul (y, v) }"""
START = ("optimize", "model.onnx", "-o", "out.onnx", "--data", "samples.npy")


@pytest.fixture(scope="module")
def result() -> Result:
    model = text_model(TEXT, w=normal(8, 6), v=normal(6, 3))
    return ModelQuantizer(get_default_config("A8W8")).quantize_model(model, None, list(normal(20, 1, 8)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    onnx.save(text_model(TEXT, w=normal(8, 6), v=normal(6, 3)), "model.onnx")
    np.save("samples.npy", normal(20, 8))
    return tmp_path


class Core:
    """In place of the search: tells of two trials, and knows the outcome."""

    def __init__(self, found: Optimized) -> None:
        self.found, self.printed = found, ""
        self.asked: dict[str, Any] = {}

    def __call__(self, model: Path, data: object, budget: Budget, **asked: Any) -> Optimized:
        self.asked = {"model": model, "data": data, "budget": budget, **asked}
        first, best = self.found.points[0], self.found.point
        asked["told"](Trial(1, first.name, None, 60.0))
        logging.getLogger("quark_onnx").warning("this trial is no good")
        asked["progress"]("calibrate", 1, 2)
        print(self.printed, end="")  # as an evaluator may
        asked["told"](Trial(1, first.name, first, 59.0))
        asked["told"](Trial(best.number, best.name, first, 58.0))
        asked["told"](Trial(best.number, best.name, best, 57.0))
        Path(asked["output"]).write_bytes(b"model")
        Path(asked["folder"], "trials").mkdir(parents=True, exist_ok=True)
        return replace(self.found, output=Path(asked["output"]))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch, result: Result) -> Core:
    stub = Core(replace(mobilenet(), result=result))
    monkeypatch.setattr("quark_onnx.cli.optimize.optimize", stub)
    return stub


# what is asked for


FLAGS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {"budget": Budget(), "objective": "size", "evaluate": None, "time_limit": None, "target": "cpu"}),
    ((), {"options": {}, "data": None, "data_path": Path("samples.npy"), "model": Path("model.onnx")}),
    (("--max-kl", ".05"), {"budget": Budget(max_kl=0.05)}),
    (("--min-agreement", "98.5%"), {"budget": Budget(min_agreement=0.985)}),
    (("--min-agreement", ".98", "--min-sqnr", "25"), {"budget": Budget(min_agreement=0.98, min_sqnr=25.0)}),
    (
        ("--max-drop", "1%", "--evaluate", "task:score"),
        {"budget": Budget(max_drop="1%"), "evaluate": "task:score"},
    ),
    (("--max-drop", "0.3", "--evaluate", "score {model}"), {"budget": Budget(max_drop=0.3)}),
    (("--objective", "latency", "--target", "qnn"), {"objective": "latency", "target": "qnn"}),
    (("--time", "10m"), {"time_limit": 600.0}),
    (("--time", "1.5h"), {"time_limit": 5400.0}),
    (("--folder", "kept"), {"folder": Path("kept")}),
    ((), {"folder": Path("out.onnx.search"), "output": Path("out.onnx")}),
    (("--samples", "7"), {"options": {"CalibDataSize": 7}}),
    (("--custom-ops", "ops.so"), {"options": {"UserCustomOpLibPath": ["ops.so"]}}),
    (("--mean", "0.5", "--color", "L"), {"options": {"CalibImages": {"mean": 0.5, "color": "L"}}}),
]


@pytest.mark.parametrize(("flags", "wanted"), FLAGS, ids=lambda value: " ".join(value) or "none")
def test_flags_reach_the_search(core: Core, flags: tuple[str, ...], wanted: dict[str, Any]) -> None:
    done(*START, *flags)
    assert {name: core.asked[name] for name in wanted} == wanted


REFUSED = [
    (2, ("--max-drop", "1%"), "give one with --evaluate.*--max-kl, --min-agreement or --min-sqnr"),
    (2, ("--max-drop", "much", "--evaluate", "a:b"), "max_drop must be a number such as 0.01.*'1%'.*'much'"),
    (2, ("--min-agreement", "98"), "--min-agreement '98' is no part of the samples; write 0.98 or 98%"),
    (2, ("--min-agreement", "98%%"), "no part of the samples"),
    (2, ("--min-sqnr", "-3"), "min_sqnr must be a number"),
    (2, ("--time", "soon"), "--time 'soon' is not a time above zero; write seconds, or 90s, 10m or 1.5h"),
    (2, ("--time", "0"), "--time '0'"),
    (2, ("--target", "cpo"), "did you mean 'cpu'"),
    (2, ("--random-data",), "random data are asked for, and --data"),
    (2, ("--size", "big"), "--size 'big' is not a height and width"),
    (2, ("-o", "model.onnx"), "is the input model, which is never modified"),
    (2, ("--folder", "samples.npy"), "samples.npy is a file; give the name of a folder"),
    (2, ("--folder", "out.onnx"), "--folder out.onnx is --output"),
    (2, ("--folder", "."), "exists and holds no search; choose another folder"),
    (2, ("-o", "out/report.html", "--folder", "out"), "--output out/report.html is the page; choose another name"),
    (
        2,
        ("-o", "out/plan/m.onnx", "--folder", "out"),
        "--output out/plan/m.onnx is in out/plan, which the plan replaces",
    ),
]


@pytest.mark.parametrize(("code", "flags", "words"), REFUSED, ids=[" ".join(flags) for _, flags, _ in REFUSED])
def test_what_cannot_be_done_is_refused_before_any_work(
    core: Core, code: int, flags: tuple[str, ...], words: str
) -> None:
    before = sorted(Path().iterdir())
    message = fails(code, *START, *flags)
    assert re.search(words, message), message
    assert core.asked == {} and sorted(Path().iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
@pytest.mark.parametrize("name", ["report.html", "report.json", "config.json"])
def test_a_pipe_in_the_folder_stays(core: Core, name: str) -> None:
    Path("out.onnx.search/trials").mkdir(parents=True)
    os.mkfifo(Path("out.onnx.search", name))
    assert "is a device, a pipe or a socket" in fails(2, *START)
    assert core.asked == {}


def test_data_are_needed(core: Core) -> None:
    assert "--data PATH" in fails(4, *START[:4])
    done(*START[:4], "--random-data")
    assert core.asked["options"] == {"UseRandomData": True}


# what comes out


def test_the_folder_holds_page_json_plan_and_configuration(core: Core) -> None:
    text = done(*START, "--max-kl", "0.1")
    kept = Path("out.onnx.search")
    assert sorted(path.name for path in kept.iterdir()) == [
        "config.json",
        "plan",
        "report.html",
        "report.json",
        "trials",
    ]
    assert (kept / "config.json").read_text("utf-8") == core.found.point.config + "\n"
    assert {path.name for path in (kept / "plan").iterdir()} <= {*FILES}
    assert Plan.load(kept / "plan").sites == core.found.result.plan.sites
    assert json.loads((kept / "report.json").read_text("utf-8"))["chosen"] == 6
    assert "<h1>model.onnx</h1>" in (kept / "report.html").read_text("utf-8")
    for fact in (
        "met: a KL divergence of at most 0.1",
        "point 6: 4 bits in 20 of 28 layers",
        "the smallest of 6 points",
        "1.9 MB → 318.0 kB (6.0 times smaller)",
        "KL 0.094, same arg-max 97.65%, 12.3 dB, 97% on integers",
        "50 samples that taught nothing; 150 taught",
        "307 kB, KL 0.281: --max-kl 0.284 as the budget",
        "out.onnx.search/report.html",
    ):
        assert fact in text, fact
    rows = [line.split() for line in text.splitlines() if line.rstrip().endswith((" within", " over"))]
    assert [row[0] for row in rows] == ["4", "→", "5", "3"]  # the front, the cheapest first; the chosen one is marked
    done(*START, "--max-kl", "0.1")  # takes the place of what is there


def test_columns_without_figures_are_left_out(core: Core) -> None:
    head = next(line for line in done(*START).splitlines() if "Point" in line)
    assert head.split() == ["#", "Point", "Size", "Time", "KL", "SQNR", "Budget"]
    points = [replace(p, kl=None, score=0.5812, drop=0.0098, noise=0.0041) for p in core.found.points]
    core.found = replace(core.found, points=tuple(points), budget={})
    text = done(*START)
    assert next(line for line in text.splitlines() if "Point" in line).split() == [
        "#",
        "Point",
        "Size",
        "Time",
        "SQNR",
        "Score",
    ]
    assert "0.5812 (0.0098 ± 0.0041 lower)" in text


def test_a_budget_that_is_missed_is_exit_code_1(core: Core) -> None:
    core.found = replace(core.found, met=False, chosen=2, blame=("the head takes most of it",))
    ended = command(*START, "--max-kl", "0.01")
    assert ended.exit_code == 1
    assert "NOT met: a KL" in ended.stdout and "the head takes most of it" in ended.stdout
    assert "→   2" in ended.stdout  # also where it is not on the front
    assert Path("out.onnx").exists() and Path("out.onnx.search/report.html").exists()


def test_ctrl_c_is_no_failure_and_says_how_to_go_on(core: Core) -> None:
    core.found = replace(core.found, stopped="Ctrl-C")
    ended = command(*START, "--quiet")
    assert ended.exit_code == 0 and ended.stdout == ""
    assert "the search was ended by Ctrl-C: out.onnx is the best so far; the same command goes on" in ended.stderr


def test_json_is_all_there_is_on_stdout(core: Core) -> None:
    core.printed = "accuracy 0.7\n"
    found = json.loads(done(*START, "--json"))
    assert found["model"] == "model.onnx" and found["output"] == "out.onnx" and found["chosen"] == 6
    assert found["report"] == "out.onnx.search/report.html" and found["front"] == [4, 6, 5, 3]


def test_without_jinja2_there_is_json_alone(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize_page, "installed", lambda: False)
    assert "out.onnx.search/report.json" in done(*START)
    assert not Path("out.onnx.search/report.html").exists()


def test_warnings_of_trials_are_withheld_and_those_of_the_result_shown(core: Core) -> None:
    report = replace(core.found.result.report, warnings=("an output is lost",))
    core.found = replace(core.found, result=replace(core.found.result, report=report))
    errors = command(*START, "--quiet").stderr
    assert "warning: few samples" in errors and "warning: an output is lost" in errors
    assert "no good" not in errors


# while it runs


def test_each_better_point_is_a_line_where_there_is_no_terminal(core: Core) -> None:
    lines = command(*START).stderr.splitlines()
    assert lines[:2] == [
        "[1] int8 per tensor: 541 kB, KL 1.92, same arg-max 52.00%, 8.7 dB, 97% on integers",
        "[6] 4 bits in 20 of 28 layers: 318 kB, KL 0.094, same arg-max 97.65%, 12.3 dB, 97% on integers",
    ]
    assert "int8" not in command(*START, "--quiet").stderr


def test_the_screen_tells_trial_time_and_best(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(search_progress.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    screen = search_progress.Screen(search_progress.display(console))

    def shown() -> str:
        with console.capture() as text:
            console.print(screen)
        return text.get()

    assert "preparing the search" in shown() and "left" not in shown()
    screen.told(Trial(1, "int8", None, 90.0))
    screen.tell("trial 1: int8", 0, None)
    screen.tell("calibrate", 3, 8)
    assert shown().count("int8") == 1
    assert "trial 1: int8, 1 min 30 s left" in shown() and "calibrating" in shown() and "3/8" in shown()
    now[0] += 40
    screen.told(Trial(2, "int4", point(1, 500_000, 0.02), 50.0))
    assert "trial 2: int4, 50.0 s left" in shown()
    assert "500 kB, KL 0.02" in shown()
    now[0] += 90  # the last trial takes longer
    assert "trial 2: int4, 0.0 s left" in shown()
    screen.told(Trial(3, "int4", None, None))
    assert "left" not in shown()


def test_a_search_without_figures_can_be_told() -> None:
    found = searched([point(1, 0, None, time=0.0)], 1, budget={})
    assert search_progress.worth(found.point) == "0 B, 97% on integers"
