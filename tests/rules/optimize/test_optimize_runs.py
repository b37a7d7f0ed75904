"""The search as a whole, on a small net: what is written, kept, told and refused."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer
from quark_onnx.core.errors import ConfigError, DataError, ModelError, QuarkError
from quark_onnx.core.threads import VARIABLE
from quark_onnx.engine import output_judge
from quark_onnx.evaluators import EvaluatorError, identity
from quark_onnx.optimize import Budget, Optimized, Trial, optimize, outcome_wording

NET = text_model(
    """g (float[N,4,4,4] x) => (float[N,10] y) {
    [stem] h = Conv (x, w0, b0) [r0] hr = Relu (h) [pool] p = GlobalAveragePool (hr) [flat] f = Flatten (p)
    [head] y = Gemm <transB = 1> (f, w1, b1) }""",
    w0=normal(64, 4, 3, 3) / 6,
    b0=normal(64) / 4,
    w1=normal(10, 64) * 2,
    b1=normal(10),
)
BOXES = text_model(
    "g (float[N,4] x) => (float[N,1] y) { h = MatMul (x, w0) r = Relu (h) y = MatMul (r, w1) }",
    w0=normal(4, 64),
    w1=normal(64, 1),
)
TIGHT = Budget(max_kl=1e-6)
FIRST: dict[str, Any] = {"time_limit": 1e-3}
"""One trial, and no more."""


def samples(count: int = 25, seed: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(1, 4, 4, 4, seed=seed + i)} for i in range(count)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, and what one search has left in it."""
    home = tmp_path_factory.mktemp("searched")
    onnx.save(NET, home / "net.onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, "1")
        optimize(home / "net.onnx", samples(), TIGHT, output=home / "small.onnx", folder=home / "search")
    return home


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(kept, tmp_path / "home")


def again(home: Path, budget: Budget = TIGHT, **more: Any) -> tuple[Optimized, int]:
    """The search in a folder, and how many trials it had to make."""
    told: list[Trial] = []
    output = {} if "output" in more else {"output": home / "small.onnx"}
    data = more.pop("data", samples())
    source = more.pop("source", home / "net.onnx")
    found = optimize(source, data, budget, folder=home / "search", told=told.append, **output, **more)
    return found, len({one.number for one in told if one.best is None or one.number != one.best.number})


def test_the_budget_is_met_by_what_is_written_and_told(kept: Path) -> None:
    found, _ = again(kept)
    assert found.met and found.point.good
    assert found.point.size == (kept / "small.onnx").stat().st_size
    assert found.point.kl is not None and found.point.kl <= 1e-6
    best = min((point for point in found.points if point.good), key=lambda point: point.size)
    assert found.chosen == best.number
    session = ort.InferenceSession(kept / "small.onnx")
    plain = ort.InferenceSession(kept / "net.onnx")
    kls = []
    for feed in samples(10, seed=100):
        p, q = (np.exp(s.run(None, feed)[0][0].astype(np.float64)) for s in (plain, session))
        kls.append(float(np.sum(p / p.sum() * np.log((p / p.sum()) / (q / q.sum())))))
    assert np.mean(kls) < 1e-5  # on samples that it has not seen
    assert (kept / "net.onnx").read_bytes() == NET.SerializeToString()
    assert {row.nodes[0] for row in found.rows} == {"stem", "head"}
    assert {row.nodes[0]: row.chosen for row in found.rows} == dict(found.point.choices)


def test_the_configuration_of_the_chosen_point_makes_the_same_model(kept: Path) -> None:
    found, _ = again(kept)
    taught = [feed for i, feed in enumerate(samples()) if i not in (2, 7, 12, 17, 22)]
    made = ModelQuantizer(found.point.configuration).quantize_model(kept / "net.onnx", None, taught)
    assert found.samples == (len(taught), 5)
    assert made.model.SerializeToString() == onnx.load(kept / "small.onnx").SerializeToString()


def test_a_search_on_two_threads_finds_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")
    before, (first, _) = (home / "small.onnx").read_bytes(), again(home)
    shutil.rmtree(home / "search")
    found, trials = again(home)
    assert trials == len(first.points) and (home / "small.onnx").read_bytes() == before
    for one, other in zip(first.points, found.points, strict=True):
        timeless = {"seconds": 0.0, "latency": None}
        assert {**vars(one), **timeless} == {**vars(other), **timeless}


def test_the_same_search_again_tries_nothing(home: Path) -> None:
    before = (home / "small.onnx").read_bytes()
    (home / "small.onnx").unlink()
    _, trials = again(home)
    assert trials == 0 and (home / "small.onnx").read_bytes() == before


def test_another_budget_uses_what_was_measured_and_other_data_nothing(home: Path) -> None:
    found, trials = again(home, Budget(max_kl=5e-8))
    assert 0 <= trials < len(found.points) - 2
    found, trials = again(home, Budget(max_kl=1.0), data=samples(26))
    assert trials == len(found.points)
    other = onnx.ModelProto.FromString(NET.SerializeToString())
    other.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(normal(64, seed=9), "b0"))
    found, trials = again(home, Budget(max_kl=1.0), source=other)
    assert trials == len(found.points)


class Judge:
    """As many right answers as it is told."""

    def __init__(self, right: float) -> None:
        self.right = right

    def __call__(self, path: str) -> float:
        return self.right

    def score(self, path: str) -> float:
        return self.right


def told(path: str, *, right: float) -> float:
    return right


def with_right(right: float) -> Callable[[str], float]:
    return lambda path: right


KINDS: list[Callable[[float], Callable[[str], float]]] = [
    Judge,
    lambda right: Judge(right).score,
    with_right,
    lambda right: functools.partial(told, right=right),
]


@pytest.mark.parametrize("kind", KINDS, ids=["object", "method", "closure", "partial"])
def test_an_evaluator_that_holds_something_else_is_another_one(kind: Callable[[float], Callable[[str], float]]) -> None:
    home = Path()
    assert identity(kind(0.5), home) == identity(kind(0.5), home) != identity(kind(0.6), home)
    assert len({identity(one(0.5), home) for one in KINDS}) == len(KINDS)


def test_of_an_evaluator_that_holds_what_nobody_can_compare_nothing_is_known() -> None:
    judge = functools.partial(told, right=(one for one in ()))  # type: ignore[arg-type]
    assert identity(judge, Path()) != identity(judge, Path())


def test_another_evaluator_is_asked_and_the_same_is_not(home: Path) -> None:
    asked = Budget(max_kl=1.0, max_drop=0.1)
    for right, trials in ((0.5, 1), (0.5, 0), (0.6, 1)):
        found, made = again(home, asked, evaluate=with_right(right), **FIRST)
        assert (found.point.score, made) == (right, trials)


def failing(*at: int) -> Callable[[str], float]:
    """An evaluator that fails at these calls; the first one is of the float model."""
    calls: Iterator[int] = iter(range(1, 99))

    def judge(path: str) -> float:
        if next(calls) in at:
            raise RuntimeError("no memory on the board")
        return 1.0

    return judge


def test_where_an_evaluator_fails_the_search_goes_on_and_asks_again_the_next_time() -> None:
    found = optimize(NET, samples(), Budget(max_kl=1.0, max_drop=0.1), evaluate=failing(2))
    assert [bool(point.error) for point in found.points] == [True, False, False]
    assert "no memory on the board" in found.points[0].error and found.met and found.chosen == 3
    assert any("one number" in warning for warning in found.warnings)


def test_an_evaluator_that_failed_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(NET, tmp_path / "net.onnx")
    (tmp_path / "fault").touch()
    (tmp_path / "judge_of_tests.py").write_text(
        "import os\n\n\ndef judge(path):\n"
        "    assert 'net.onnx' in path or not os.path.exists('fault')\n    return 1, 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = Budget(max_kl=1.0, max_drop=0.1)
    with pytest.raises(ModelError, match=r"no trial gave a model; the first one: evaluator .*failed: AssertionError"):
        again(tmp_path, asked, evaluate="judge_of_tests:judge")
    (tmp_path / "fault").unlink()
    found, trials = again(tmp_path, asked, evaluate="judge_of_tests:judge")
    assert trials == 2 and found.met and found.point.noise == 0.0


def test_an_evaluator_that_cannot_judge_the_float_model_is_an_error() -> None:
    with pytest.raises(EvaluatorError, match="no memory on the board"):
        optimize(NET, samples(), Budget(max_drop=0.1), evaluate=failing(1))


def interrupting(stage: str, at: int) -> Callable[[str, int, int | None], None]:
    """Ctrl-C when a stage is told of for the so-manyth time."""
    seen: Iterator[int] = iter(range(1, 9999))

    def progress(name: str, done: int, total: int | None) -> None:
        if name == stage and next(seen) == at:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(("stage", "at", "points"), [("moments", 25, 1), ("layers", 5, 4), ("tune", 1, 2)])
def test_ctrl_c_in_the_middle_leaves_the_best_so_far(tmp_path: Path, stage: str, at: int, points: int) -> None:
    output = tmp_path / "small.onnx"
    found = optimize(NET, samples(), TIGHT, output=output, progress=interrupting(stage, at))
    assert found.stopped == "Ctrl-C" and len(found.points) == points and not found.met
    assert output.stat().st_size == found.point.size and [*tmp_path.iterdir()] == [output]
    onnx.checker.check_model(str(output), full_check=True)


def test_the_time_limit_ends_a_trial_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third one corrects biases, and takes longer than those before it: these say nothing of its time."""
    late = time.monotonic() + 10**6

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "tune":
            monkeypatch.setattr(time, "monotonic", lambda: late)

    output = tmp_path / "small.onnx"
    found = optimize(NET, samples(), TIGHT, output=output, time_limit=10**5, progress=progress)
    assert found.stopped == "the time limit" and len(found.points) == 2 and not found.met
    assert output.stat().st_size == found.point.size


def test_ctrl_c_before_there_is_a_model_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        optimize(NET, samples(), TIGHT, output=tmp_path / "small.onnx", progress=interrupting("read", 1))
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_met_says_what_stood_in_the_way() -> None:
    asked = Budget(max_drop=0.1)
    found = optimize(NET, samples(), asked, evaluate=lambda path: float("model.onnx" not in path), **FIRST)
    assert not found.met and found.reason.startswith(f"none of {len(found.points)} points is within the budget")
    assert found.blame[0].startswith("the score falls by 1 ")


def test_there_is_a_model_however_short_the_time(tmp_path: Path) -> None:
    found = optimize(NET, samples(), TIGHT, output=tmp_path / "small.onnx", **FIRST)
    assert found.stopped == "the time limit" and len(found.points) == 1 and not found.met
    assert found.point.size == (tmp_path / "small.onnx").stat().st_size


def test_few_samples_teach_and_judge_and_that_is_told() -> None:
    found = optimize(NET, samples(10), **FIRST)
    assert found.samples == (10, 10) and any("the same teach and judge" in text for text in found.warnings)


REFUSED: list[tuple[onnx.ModelProto, dict[str, Any], type[QuarkError], str]] = [
    (BOXES, {"budget": Budget(max_kl=0.1)}, ConfigError, "no output holds classes.*use min_sqnr"),
    (BOXES, {"budget": Budget(min_agreement=0.9)}, ConfigError, "no output holds classes.*use min_sqnr"),
    (NET, {"data": None}, DataError, "there is no calibration data"),
    (NET, {"budget": Budget(max_drop=0.1)}, ConfigError, "there is none: give one"),
    (NET, {"target": "cpux"}, ConfigError, "cpu"),
    (NET, {"objective": "speed"}, ConfigError, "objective: unknown value 'speed'"),
    (
        NET,
        {"options": {"LayerTypes": {"stem": {"weight_type": "uint4"}}}},
        ConfigError,
        "what the search decides",
    ),
    (
        NET,
        {"options": {"FastFinetune": {"NumIterations": 3}}},
        ConfigError,
        "'FastFinetune' is what the search decides",
    ),
    (NET, {"time_limit": 0}, ConfigError, "above 0 seconds"),
]


@pytest.mark.parametrize(("model", "asked", "error", "text"), REFUSED, ids=[text for *_, text in REFUSED])
def test_what_cannot_be_searched_for_is_refused_before_any_trial(
    model: onnx.ModelProto, asked: dict[str, Any], error: type[QuarkError], text: str
) -> None:
    dims = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    told: list[Trial] = []
    given = {"data": [{"x": normal(*dims, seed=i)} for i in range(25)], "told": told.append} | asked
    with pytest.raises(error, match=text):
        optimize(model, **given)
    assert not told


def test_a_model_without_anything_to_quantize_is_refused() -> None:
    waves = text_model("g (float[N,4] x) => (float[N,4] y) { y = Sin (x) }")
    with pytest.raises(ConfigError, match="nothing in the model can be quantized"):
        optimize(waves, [{"x": normal(1, 4)}] * 25, Budget(min_sqnr=20))


def test_the_estimates_of_a_target_count_16_bits_as_integers_of_half_the_pace() -> None:
    found = optimize(NET, samples(), Budget(max_kl=2e-4), target="qnn")
    plain, mixed = found.points[0], next(point for point in found.points if "a16w8" in point.choices.values())
    assert plain.integers == mixed.integers == 1 and plain.latency is None
    assert plain.time < mixed.time < 2 * plain.time
    for row in found.rows:
        times = {option.choice: option.time for option in row.options}
        assert times["a8w8"] < times["a16w8"] < times["float"]


def test_where_16_bits_are_too_few_layers_are_float_and_what_is_around_them_too() -> None:
    found = optimize(NET, samples(), Budget(max_kl=1e-6), target="qnn")
    assert found.met and set(found.point.choices.values()) == {"float"}
    assert not found.result.plan.sites


def test_where_latency_counts_integers_that_are_good_enough_are_all() -> None:
    found = optimize(NET, samples(), Budget(max_kl=0.01), objective="latency")
    assert len(found.points) == 1 and found.point.integers == 1 and not found.rows


def test_a_model_of_float16_is_searched_and_stays_one() -> None:
    half = onnx.ModelProto.FromString(NET.SerializeToString())
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    data = [{"x": feed["x"].astype(np.float16)} for feed in samples()]
    found = optimize(half, data, Budget(max_kl=0.02))
    assert found.met and not any("cast" in warning for warning in (*found.warnings, *found.result.report.warnings))
    assert found.result.model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert len(found.rows) in (0, 2) and found.point.size < found.float_size


def test_of_padding_nothing_is_learned_and_nothing_judged() -> None:
    """Behind the end of a sample lies what no scale is made for; where nothing is said of that, it counts."""
    words = text_model(
        """g (float[N,10,32] x, int64[N,10] attention_mask) => (float[N,10,10] y) {
        [one] h = MatMul (x, w0) [r] hr = Relu (h) m = Cast <to = 1> (attention_mask) k = Unsqueeze (m, axes)
        [mask] j = Mul (hr, k) [two] y = MatMul (j, w1) }""",
        axes=np.array([2]),
        w0=normal(32, 32) / 8,
        w1=normal(32, 10) / 8,
    )
    masks = [(np.arange(10) < 3 + seed % 6).astype(np.int64)[None] for seed in range(25)]
    data = [
        {"x": np.where(mask[..., None] == 1, normal(1, 10, 32, seed=i), np.float32(1000)), "attention_mask": mask}
        for i, mask in enumerate(masks)
    ]
    worth = []
    for option in ("attention_mask", False):
        point = optimize(words, data, Budget(min_sqnr=1), options={"SampleMask": option}, **FIRST).points[0]
        worth.append(point.sqnr or 0.0)
    assert worth[0] > 25 > worth[1]


def test_the_knee_is_told_as_such_and_is_no_failure() -> None:
    found = optimize(NET, samples())
    assert found.met and not found.budget and not found.blame and "the knee of" in found.reason
    assert found.advice and found.point in found.front


@pytest.mark.parametrize("runs_as_written", [True, False])
def test_a_model_that_is_not_within_the_budget_where_it_runs_is_told(
    monkeypatch: pytest.MonkeyPatch, runs_as_written: bool
) -> None:
    """Kernels that are at fault are made up: the chosen model runs as if noise were added to its outputs."""

    def run_of(quantized: Any, *, fuse: bool = True) -> Any:
        run = output_judge.run_of(quantized, fuse=fuse)
        return run if runs_as_written else lambda feed: [y + normal(*y.shape) for y in run(feed)]

    monkeypatch.setattr(outcome_wording, "run_of", run_of)
    found = optimize(NET, samples(), Budget(min_sqnr=20.0))
    told = [text for text in found.warnings if "not as it runs on this processor: output 'y' keeps" in text]
    assert found.met and len(told) == (not runs_as_written)
