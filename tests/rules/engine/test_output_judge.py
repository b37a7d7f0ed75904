"""The judge of quantized models: it measures what `compare` does, on as many samples, outputs and threads as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from quantized_models import feeds, graph, quantized

from quark_onnx.engine import output_judge
from quark_onnx.engine.compare import compare
from quark_onnx.engine.output_judge import OutputJudge, run_of
from quark_onnx.graph import Model

TEXT = """(float[2,6] x) => (float[2,4] y, float[2,3] z, int64[2] c) <float[6,4] w, float[4,3] v>
    { [n] y = MatMul (x, w) [m] z = MatMul (y, v) c = ArgMax <axis = 1, keepdims = 0> (z) }"""
MODEL = graph(TEXT)
QUANTIZED = quantized(MODEL).model
FEEDS = feeds(MODEL, count=5)


def written(judge: OutputJudge, samples: int | None = None) -> object:
    return judge.measured(run_of(QUANTIZED, fuse=False), samples)


@pytest.mark.parametrize("samples", [None, 1, 5])
def test_it_measures_what_compare_does(samples: int | None) -> None:
    found = written(OutputJudge(MODEL, FEEDS), samples)
    assert found == compare(MODEL, QUANTIZED, FEEDS[:samples], optimized=False)
    assert found != compare(MODEL, QUANTIZED, FEEDS[: 2 if samples is None else samples - 1], optimized=False)


@pytest.mark.parametrize("names", [["z"], ["c", "y"]])
def test_only_these_outputs_count(names: list[str]) -> None:
    judge, whole = OutputJudge(MODEL, FEEDS, names=names), written(OutputJudge(MODEL, FEEDS))
    assert written(judge).outputs == {name: whole.outputs[name] for name in "yzc" if name in names}


def test_the_worst_output_is_named() -> None:
    outputs = compare(MODEL, QUANTIZED, FEEDS, optimized=False).outputs
    db, name = OutputJudge(MODEL, FEEDS).worth(run_of(QUANTIZED, fuse=False))
    assert db == outputs[name].db == min(one.db for one in outputs.values())
    assert OutputJudge(MODEL, FEEDS, names=[name, "c"]).worth(run_of(MODEL)) == (math.inf, name)


def test_where_nothing_can_be_measured_there_is_nothing_to_protect() -> None:
    empty = graph("(float[N] x) => (float[N] y) { y = Relu (x) }")
    judge = OutputJudge(empty, [{"x": np.zeros(0, np.float32)}])
    assert judge.worth(run_of(empty)) == (math.inf, "")


@pytest.mark.parametrize(("cores", "memory"), [(1, 1 << 30), (2, 1 << 30), (2, 0)])
def test_neither_threads_nor_memory_have_a_say(cores: int, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory what the float model makes of samples lies in a file."""
    monkeypatch.setattr(output_judge, "cores", lambda: cores)
    monkeypatch.setattr(output_judge, "quarter_of_memory", lambda: memory)
    assert written(OutputJudge(MODEL, FEEDS)) == compare(MODEL, QUANTIZED, FEEDS, optimized=False)


def sequences(scale: float) -> Model:
    """Two tensors in a sequence, of which the second is so many times the first."""
    text = "(float[2] x) => (seq(float[2]) y) { p = Mul (x, s) y = SequenceConstruct (x, p) }"
    return graph(text, s=np.float32(scale))


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_sequences_are_judged_by_what_is_in_them(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_judge, "quarter_of_memory", lambda: memory)
    judge = OutputJudge(sequences(2.0), [{"x": np.array([1, 2], np.float32)}])
    assert judge.worth(run_of(sequences(2.5)))[0] == pytest.approx(10 * math.log10(5 / 0.25))
