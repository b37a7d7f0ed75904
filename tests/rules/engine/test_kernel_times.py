"""Times of kernels go to the nodes that they work for: names and sums, and no time is compared with another."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from quantized_models import graph, quantized
from text_models import normal, text_model

from quark_onnx.core.errors import DataError
from quark_onnx.engine.kernel_times import REST, _durations, kernel_times
from quark_onnx.graph import Model, io

NET = """(float[1,16,8,8] x) => (float[1,10] y)
    <float[16,16,3,3] w, float[16] b, float[16,16,1,1] v, float[16,10] m> {
    [first] f = Conv <pads = [1,1,1,1]> (x, w, b)  [relu] r = Relu (f)  [second] s = Conv (r, v)  [sum] a = Add (s, r)
    [pool] p = GlobalAveragePool (a)  [flat] t = Flatten (p)  [product] y = MatMul (t, m) }"""
LAYERS = {"first", "second", "product"}
FEEDS = [{"x": normal(1, 16, 8, 8)}, {"x": normal(1, 16, 8, 8, seed=1)}]


def names(model: Model) -> set[str]:
    return {node.name or "" for node in model.graph}


def test_every_layer_of_a_float_model_has_a_time() -> None:
    """Behind layouts of their own for blocks of channels, and with the activation in them."""
    model = graph(NET)
    found = kernel_times(model, FEEDS)
    assert LAYERS <= found.keys() <= names(model)
    assert min(found.values()) > 0
    assert "relu" not in found
    assert [*found] == [node.name for node in model.graph if node.name in found]


@pytest.mark.parametrize("weights", ["int8", "int4", "int16"])
def test_quantizers_count_for_the_nodes_that_need_them(weights: str) -> None:
    """Integer kernels, and types without, whose quantizers all run."""
    made = quantized(graph(NET, 21), weight_type=weights)
    found = kernel_times(made.quantized, FEEDS)
    assert LAYERS <= found.keys() <= names(made.model)


def test_a_quantizer_alone_counts_for_the_rest() -> None:
    text = "g (float[4] x) => (float[4] y) { q = QuantizeLinear (x, s)  y = DequantizeLinear (q, s) }"
    model = io.load(text_model(text, s=np.float32(0.1)))
    assert kernel_times(model, [{"x": normal(4)}]).keys() == {REST}


def test_a_quantizer_that_nothing_reads_counts_for_what_it_quantizes() -> None:
    text = """g (float[4,4] x) => (float[4,4] y) {
        [product] m = MatMul (x, w)  [quantizer] q = QuantizeLinear (m, s)  [back] y = DequantizeLinear (q, s) }"""
    model = io.load(text_model(text, w=normal(4, 4), s=np.float32(0.1)))
    assert kernel_times(model, [{"x": normal(4, 4)}]).keys() == {"product"}


def test_bodies_count_for_the_node_that_runs_them() -> None:
    text = """g (float[4,4] x, bool c) => (float[4,4] y) {
        [before] m = MatMul (x, w)
        [choice] i = If (c) <then_branch = a () => (float[4,4] t) { [inner] t = MatMul (m, w) },
                             else_branch = b () => (float[4,4] e) { [other] e = Sigmoid (m) }>
        [after] y = Softmax (i) }"""
    model = io.load(text_model(text, w=normal(4, 4)))
    found = kernel_times(model, [{"x": normal(4, 4), "c": np.array(True)}])
    assert found.keys() == {"before", "choice", "after"}


def test_what_is_inside_of_another_event_is_not_counted_twice() -> None:
    """A run of `outer` with `inner` in it, then `next`, which begins in the microsecond in which that ends."""
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "ts": 100 * run + start, "dur": dur}
        for run in range(40)
        for name, start, dur in (("inner", 12, 5), ("next", 30, 0), ("outer", 10, 20))
    ]
    other = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 99999}
    assert _durations([other, *events]) == {"outer": 20.5, "next": 0.5}


def test_warm_ups_and_slow_runs_do_not_count() -> None:
    taken = [900, 900, 900, *[7] * 8, *[50] * 20]
    events = [{"cat": "Node", "name": "n_kernel_time", "ts": 1000 * i, "dur": d} for i, d in enumerate(taken)]
    assert _durations(events) == {"n": 7.5}


def test_no_sample_is_told() -> None:
    with pytest.raises(DataError, match="there is no sample"):
        kernel_times(graph(NET), [])


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    kernel_times(graph(NET), FEEDS[:1])
    assert [*tmp_path.iterdir()] == []
