"""Zoos that are run: what becomes of good and of bad models, of runs that are killed, and on a cluster elsewhere."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx_text import parse_model

from quark_onnx import ConfigError, Plan, QuantizationConfig
from quark_onnx.zoo import Event, Outcome, ZooResult, check_zoo, convert_zoo
from quark_onnx.zoo.store import MEASURED

ROOT = Path(__file__).parents[2]
LATE = 150
"""Seconds after which a test that hangs ends the run, with a traceback of every thread."""

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N, 16] x) => (float[N, 8] y) <float[16, 32] w1, float[32, 8] w2> {
    [first] a = MatMul (x, w1)
    [relu] b = Relu (a)
    [second] y = MatMul (b, w2)
}"""

JUDGE = '''
import os, sys, time

def half(model):
    return 0.5 if "int8" in model else 1.0

def once(model):
    """Crashes the first time."""
    if not os.path.exists("seen"):
        open("seen", "w").close()
        print("I go", flush=True)
        os.abort()
    return 1

def crash(model):
    os.abort()

def hang(model):
    time.sleep(600)

def greedy(model):
    return len(bytearray(4 << 30))

def wrong(model):
    raise ValueError("no labels")

def silent(model):
    print("nothing to say")

if __name__ == "__main__":
    print("checking", sys.argv[1])
    print(half(sys.argv[1]))
'''

MANIFEST = """
defaults: {data: data.npz, preset: S8S8_AAWS}
models:
  - {input: a.onnx, name: hang, evaluator: "PYTHON -c 'import time; time.sleep(600.25)' {model}", timeout: 8}
  - {input: a.onnx, name: plain}
  - {input: a.onnx, name: strict, budget: {min_sqnr: 90}}
  - {input: a.onnx, name: finer, preset: [S8S8_AAWS, INT16_CNN_DEFAULT], budget: {min_sqnr: 55}}
  - {input: a.onnx, name: function, evaluator: "judge:half", budget: {max_drop: 0.6}}
  - {input: a.onnx, name: dropped, evaluator: "judge:half", budget: {max_drop: 0.1}}
  - {input: a.onnx, name: command, evaluator: "PYTHON judge.py {model}"}
  - {input: a.onnx, name: once, evaluator: "judge:once"}
  - {input: a.onnx, name: crash, evaluator: "judge:crash"}
  - {input: a.onnx, name: greedy, evaluator: "judge:greedy"}
  - {input: a.onnx, name: wrong, evaluator: "judge:wrong"}
  - {input: a.onnx, name: silent, evaluator: "judge:silent"}
  - {input: a.onnx, name: unlike, data: other.npz}
  - corrupt.onnx
  - gone.onnx
"""


@pytest.fixture(autouse=True, scope="module")
def deadline() -> Iterator[None]:
    faulthandler.dump_traceback_later(LATE, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def model(seed: int = 0) -> onnx.ModelProto:
    proto = parse_model(TEXT)
    rng = np.random.default_rng(seed)
    for name, shape in (("w1", (16, 32)), ("w2", (32, 8))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    del proto.graph.value_info[:]
    return proto


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, data, an evaluator and the manifests."""
    home = tmp_path_factory.mktemp("zoo")
    onnx.save(model(), str(home / "a.onnx"))
    (home / "corrupt.onnx").write_bytes((home / "a.onnx").read_bytes()[:-100])
    x = np.random.default_rng(1).standard_normal(
        (16, 16), np.float32
    )  # few, so that the same samples judge: 55 dB is theirs
    np.savez(home / "data.npz", x=x)
    np.savez(home / "other.npz", x=x[:, :9])
    (home / "judge.py").write_text(JUDGE, encoding="utf-8")
    (home / "zoo.yaml").write_text(MANIFEST.replace("PYTHON", sys.executable), encoding="utf-8")
    (home / "few").mkdir()
    for index in range(2):
        onnx.save(model(index), str(home / "few" / f"m{index}.onnx"))
    return home


class Run:
    """The zoo of the manifest, converted."""

    def __init__(self, home: Path) -> None:
        self.output, self.events = home / "out", list[Event]()
        self.result: ZooResult = convert_zoo(
            home / "zoo.yaml",
            self.output,
            workers=2,
            threads=1,
            memory="800MB",
            report=False,
            progress=self.events.append,
        )
        self.outcomes: Mapping[str, Outcome] = {outcome.row.name: outcome for outcome in self.result.outcomes}


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return Run(home)


BAD = {
    "strict": "over budget",
    "dropped": "over budget",
    **dict.fromkeys(("crash", "hang", "greedy", "wrong", "silent", "unlike", "corrupt", "gone"), "failed"),
}


def test_every_model_has_a_row(run: Run) -> None:
    names = re.findall(r"(?:name: |- )(\w+)(?:,|\}|\.onnx\n)", MANIFEST)
    assert list(run.outcomes) == names
    assert {name: one.row.status for name, one in run.outcomes.items() if not one.row.good} == BAD
    assert [one.row.name for one in run.result.bad] == [name for name in names if name in BAD]
    assert len(run.result.good) == 5
    assert not run.result.interrupted


def test_results(run: Run) -> None:
    """A line for each model, the same as the outcomes."""
    assert lines(run.output) == [one.to_dict() for one in run.result.outcomes]
    for name, one in run.outcomes.items():
        assert json.loads((run.output / name / "result.json").read_text("utf-8"))["name"] == name
        cost = json.loads((run.output / name / "cost.json").read_text("utf-8"))
        assert (cost["seconds"], cost["attempts"]) == (one.cost.seconds, one.cost.attempts)
        assert not one.kept


def lines(output: Path) -> list[dict[str, Any]]:
    """results.jsonl"""
    return [json.loads(line) for line in (output / "results.jsonl").read_text("utf-8").splitlines()]


def test_nothing_else_is_left(run: Run) -> None:
    assert {path.name for path in run.output.iterdir()} == {*run.outcomes, ".zoo", "results.jsonl"}
    assert list((run.output / ".zoo").iterdir()) == []
    for name, outcome in run.outcomes.items():
        made = {path.name for path in (run.output / name).iterdir()}
        outputs = set() if outcome.row.status == "failed" else {"model_int8.onnx", "plan", "evidence.json"}
        assert made == {"result.json", "cost.json", "log.txt", *outputs}


@pytest.mark.parametrize("name", ["plain", "strict", "finer", "function", "once"])
def test_outputs(name: str, run: Run, home: Path) -> None:
    row, folder = run.outcomes[name].row, run.output / name
    session = ort.InferenceSession(folder / "model_int8.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((2, 16), np.float32)})[0].shape == (2, 8)
    assert Plan.load(folder / "plan").nodes.keys() == {"first", "relu", "second"}
    config = QuantizationConfig.from_json((folder / "plan" / "config.json").read_text("utf-8"))
    assert (config.activation.bits == 16) == (name == "finer")
    assert "seconds" not in (folder / "evidence.json").read_text("utf-8")
    hashes = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in row.files}
    assert hashes == row.files
    assert set(row.files) == {
        "model_int8.onnx",
        "evidence.json",
        "plan/plan.json",
        "plan/arrays.npz",
        "plan/config.json",
    }
    assert (row.samples, row.probes, row.bytes["float"]) == (16, "calibration", 4 * (16 * 32 + 32 * 8))
    assert row.input == "a.onnx"


def test_budgets(run: Run) -> None:
    plain, strict, finer = (run.outcomes[name].row for name in ("plain", "strict", "finer"))
    assert plain.least_sqnr == strict.least_sqnr
    assert (strict.stage, strict.preset) == ("judge", "S8S8_AAWS")
    assert strict.reason.startswith(f"output 'y' keeps {strict.least_sqnr:.1f} dB, and should keep 90; let it try")
    assert [one["within_budget"] for one in finer.tries] == [False, True]
    assert [one["preset"] for one in finer.tries] == ["S8S8_AAWS", "INT16_CNN_DEFAULT"]
    assert finer.preset == "INT16_CNN_DEFAULT"
    assert finer.least_sqnr is not None
    assert finer.least_sqnr >= 55


def test_evaluators(run: Run) -> None:
    function, dropped, command = (run.outcomes[name].row for name in ("function", "dropped", "command"))
    assert function.scores == dropped.scores == command.scores == {"float": 1, "quantized": 0.5}
    assert function.drop == 0.5
    assert dropped.reason.startswith("the score falls by 0.5 (1 → 0.5), and may fall by 0.1")
    assert "checking" in (run.output / "command" / "log.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "stage", "said", "log", "attempts"),
    [
        ("crash", "evaluate", "after 2 attempts: its process was ended by SIGABRT", "Fatal Python error: Aborted", 2),
        (
            "hang",
            "evaluate",
            "after 2 attempts: it takes longer than 8 s; give it more time with timeout",
            "_printed",
            2,
        ),
        ("greedy", "evaluate", "after 2 attempts: it ran out of memory; give each worker more", "MemoryError", 2),
        ("wrong", "evaluate", "evaluator 'judge:wrong' failed: ValueError: no labels", "no labels", 1),
        ("silent", "evaluate", "evaluator 'judge:silent' gave None and not a number", "nothing to say", 1),
        ("unlike", "read", "9", "S8S8_AAWS, read: ", 1),
        ("corrupt", "evaluate|prepare", "corrupt.onnx is not a valid ONNX model", "is not a valid ONNX model", 1),
        ("gone", "input", "gone.onnx does not exist; mend", "gone.onnx does not exist", 0),
    ],
)
def test_failures(name: str, stage: str, said: str, log: str, attempts: int, run: Run) -> None:
    """Each has the stage, a reason with the way out, and a log."""
    outcome = run.outcomes[name]
    assert outcome.row.stage in stage.split("|")
    assert said in outcome.row.reason
    assert log in outcome.log
    assert log in (run.output / name / "log.txt").read_text("utf-8")
    assert outcome.cost.attempts == attempts


def test_what_crashes_once_is_good(run: Run) -> None:
    outcome = run.outcomes["once"]
    assert outcome.cost.attempts == 2
    assert outcome.row.scores == {"float": 1, "quantized": 1}


def test_what_hangs_is_ended_with_all_that_it_started(run: Run) -> None:
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert [line for line in commands if line and "600.25" in " ".join(line)] == []
    assert 16 <= run.outcomes["hang"].cost.seconds < 60


def test_progress(run: Run) -> None:
    first, *others = run.events
    assert (first.state, first.total, first.slots) == ("start", 15, 2)
    ends = {event.name: event for event in others if event.outcome is not None}
    assert {name: event.state for name, event in ends.items()} == {n: o.row.status for n, o in run.outcomes.items()}
    stages = [event.stage for event in others if event.name == "plain" and event.outcome is None]
    assert stages[0] == "hash"
    assert "prepare" in stages or "calibrate" in stages


def test_memory_is_watched(run: Run) -> None:
    assert 50e6 < run.outcomes["plain"].cost.peak_bytes < 800e6


def command(home: Path, *arguments: object, source: str = "few") -> subprocess.Popen[str]:
    """`quark-onnx zoo`, started in the folder."""
    code = "from quark_onnx.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    flags = ("-d", "data.npz", "--threads", 1, "--no-report", *arguments)
    flags = flags if "--scheduler" in arguments else (*flags, "--workers", 2 if "--json" in arguments else 1)
    call = [sys.executable, "-c", code, "zoo", source, *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(call, cwd=home, env=environment, encoding="utf-8", **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    try:
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    return process.returncode, out, err


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def at_work(output: Path) -> list[int]:
    """Processes of models of this folder."""
    found = psutil.process_iter(["cmdline"])
    return [process.pid for process in found if str(output) in " ".join((process.info["cmdline"] or [])[3:4])]


def content(output: Path) -> dict[str, Any]:
    """All that two runs have in common."""
    files = [file for file in output.rglob("*") if file.is_file() and file.name not in (*MEASURED, "results.jsonl")]
    times = ("seconds", "stages", "peak_bytes", "kept", "log")
    common = [{key: value for key, value in row.items() if key not in times} for row in lines(output)]
    return {"rows": common, **{str(file.relative_to(output)): file.read_bytes() for file in files}}


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """Two models, converted by a command that nothing disturbs."""
    code, out, err = ended(command(home, "-o", "whole", "--json"))
    assert (code, json.loads(out)["good"]) == (0, 2), err
    told = err.splitlines()
    assert [line.split(" ", 1)[0] for line in told] == ["[1/2]", "[2/2]"]
    assert all(": good (INT8_PROTECTED, " in line for line in told)
    return home / "whole"


def test_a_second_run_does_only_what_is_missing(whole: Path, home: Path) -> None:
    """What is whole is left alone; what was deleted, changed or is new is made; failures make the exit code 1."""
    output = home / "second"
    shutil.copytree(whole, output)
    (output / "m1" / "model_int8.onnx").unlink()
    (output / "m0" / "log.txt").unlink()  # it holds no result
    untouched = (output / "m0" / "result.json").stat().st_mtime_ns
    shutil.copy(home / "corrupt.onnx", home / "few" / "z.onnx")
    try:
        code, out, err = ended(command(home, "-o", "second", "--json"))
    finally:
        (home / "few" / "z.onnx").unlink()
    found = json.loads(out)
    assert (code, found["good"], found["bad"]) == (1, 2, 1), err
    assert {one["name"]: one["kept"] for one in found["models"]} == {"m0": True, "m1": False, "z": False}
    assert (output / "m0" / "result.json").stat().st_mtime_ns == untouched
    assert (output / "m1" / "model_int8.onnx").read_bytes() == (whole / "m1" / "model_int8.onnx").read_bytes()
    assert "m0: good (INT8_PROTECTED, " in err
    assert "as before)" in err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs the signals of POSIX")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_ended_goes_on(how: str, whole: Path, home: Path) -> None:
    """When one model is done and the next is at work; its process goes as well, and the next run ends the same."""
    output = home / how
    process = command(home, "-o", how)
    until(lambda: (output / "m0" / "result.json").exists() and bool(at_work(output)))
    cost = (output / "m0" / "cost.json").read_bytes()
    process.send_signal(signal.Signals[how])
    code, out, err = ended(process)
    until(lambda: not at_work(output), 5)
    rows = {row["name"]: row["status"] for row in lines(output)}
    assert rows["m0"] == "good"
    if how == "SIGKILL":
        assert code == -signal.SIGKILL
        assert (output / ".zoo" / "lock").exists()
    else:
        assert code == 130
        assert "Traceback" not in err
        assert "with the same command" in out
        assert list((output / ".zoo").iterdir()) == []
        assert rows["m1"] == "stopped"
    code, out, err = ended(command(home, "-o", how))
    assert code == 0, err
    assert content(output) == content(whole)
    assert (output / "m0" / "cost.json").read_bytes() == cost
    assert list((output / ".zoo").iterdir()) == []


CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


def test_a_scheduler_in_another_process(whole: Path, home: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment, cwd=home, **pipes)
    try:
        address = cluster.stdout.readline().strip()
        assert address.startswith("tcp://")
        code, _, err = ended(command(home, "-o", "elsewhere", "--scheduler", address))
        assert code == 0, err
        assert content(home / "elsewhere") == content(whole)
        with pytest.raises(ConfigError, match="an existing cluster has workers already"):
            convert_zoo(home / "few", home / "none", scheduler=address, workers=2, defaults={"data": "random"})
    finally:
        cluster.communicate("\n", timeout=30)
    with pytest.raises(ConfigError, match="no scheduler answers at 'nonsense://x'"):
        convert_zoo(home / "few", home / "none", scheduler="nonsense://x", defaults={"data": "random"})
    assert not (home / "none").exists()


def test_the_example_is_sound(home: Path) -> None:
    """Its models are valid, and its manifest has no problem with what it generates."""
    folder = ROOT / "examples" / "zoo"
    runpy.run_path(str(folder / "generate.py"))["generate"](home / "example")
    for name in ("zoo.yaml", "judge.py"):
        shutil.copy(folder / name, home / "example")
    names = check_zoo(home / "example" / "zoo.yaml", home / "example" / "int8")
    assert len(names) == len(set(names)) == 10
    for path in (home / "example" / "models").iterdir():
        with np.load(home / "example" / "data" / f"{path.stem}.npz") as data:
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            assert all(np.isfinite(array).all() for array in session.run(None, dict(data)))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"workers": 0}, "at least one worker"),
        ({"threads": 0}, "at least one worker"),
        ({"memory": "3 elephants"}, "memory '3 elephants' is no size; write 4GB"),
        ({"memory": "3kB"}, "less than a megabyte"),
    ],
)
def test_limits_that_make_no_sense(how: dict[str, Any], said: str, home: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        convert_zoo(home / "few", home / "none", defaults={"data": "random"}, **how)
    assert not (home / "none").exists()
