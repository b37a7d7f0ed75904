"""A training step under a limit of memory: the same gradients, fewer bytes, and a limit that is too low is told."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from mapped_memory import PROC
from training_nets import NETS, Quantized, quantized
from training_values import values_of

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.stages.train.step import Gradients, Step

MOST = 2**40


def step(made: Quantized, limit: int | None) -> Gradients:
    values = values_of(made.graph, made.model, made.plan)
    return Step(made.graph, made.model, limit=limit).gradients(values, made.shard)


def least(made: Quantized) -> int:
    """The fewest bytes, which the error tells."""
    with pytest.raises(ConfigError, match=r"memory_limit: .* raise it, or lower shard") as told:
        step(made, 1)
    found = re.search(r"at least (\d+) bytes", str(told.value))
    assert found is not None
    return int(found[1])


def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many a graph is cut into, each time that it is."""
    from quark_onnx.stages.train import recomputation

    found: list[int] = []
    made = recomputation._Pieces

    def count(graph: Any, model: Any, where: Any, threads: int) -> Any:
        found.append(len(where.anchors) + 1)
        return made(graph, model, where, threads)

    monkeypatch.setattr(recomputation, "_Pieces", count)
    return found


@pytest.mark.parametrize("net", NETS)
def test_pieces_have_the_gradients_of_the_whole(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, cuts = quantized(net, Losses(features=0.5)), pieces(monkeypatch)
    want, got = step(made, None), step(made, least(made))
    assert cuts and cuts[0] > 1
    assert got.samples == want.samples and got.terms == want.terms and got.of.keys() == want.of.keys()
    for name, array in want.of.items():
        # sums of what comes back from several pieces are in another order than in one graph
        np.testing.assert_allclose(got.of[name], array, rtol=1e-5, atol=1e-6 * np.abs(array).max())


def test_twin_what_fits_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    made, cuts = quantized("convolutions"), pieces(monkeypatch)
    want, got = step(made, None), step(made, MOST)
    assert not cuts
    for name, array in want.of.items():
        np.testing.assert_array_equal(got.of[name], array)


def test_a_larger_shard_is_cut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, cuts = quantized("convolutions"), pieces(monkeypatch)
    limit, values = least(made), values_of(made.graph, made.model, made.plan)
    run = Step(made.graph, made.model, limit=limit)
    run.gradients(values, {"x": made.shard["x"][:1]})
    run.gradients(values, made.shard)
    run.gradients(values, {"x": made.shard["x"][:2]})
    assert len(cuts) <= 2 and cuts[-1] > 1


CHILD = """
import re, sys
from pathlib import Path
import numpy as np
from text_models import text_model, normal
from tuning_cases import case, draw
from training_values import values_of
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph

LAYERS = 24
nodes = " ".join(f"h{i} = Conv <pads = [1, 1, 1, 1]> (r{i}, w{i}) r{i + 1} = Relu (h{i})" for i in range(LAYERS))
text = f"g (float[N, 8, 64, 64] r0) => (float[N, 8] y) {{ {nodes} p = GlobalAveragePool (r{LAYERS}) y = Flatten (p) }}"
feeds = [{"r0": feed["x"]} for feed in draw((1, 8, 64, 64), 2)]
made = case(text, feeds, {f"w{i}": normal(8, 8, 3, 3, seed=i) / 8 for i in range(LAYERS)})
graph = training_graph(made.model, made.plan, Losses())
values = values_of(graph, made.model, made.plan)
limit = int(sys.argv[1])
step = Step(graph, made.model, limit=limit or None)
shard = {"r0": np.concatenate([feeds[0]["r0"]] * 32)}
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
step._teacher(shard)
before = peak()
step.gradients(values, shard)
print((peak() - before) * 1024)
"""


def taken(limit: int) -> int:
    """Bytes by which the peak of a process grows in one step."""
    path = [folder for folder in sys.path if folder]
    code = f"import sys; sys.path[:0] = {path!r}\n{CHILD}"
    return int(
        subprocess.run([sys.executable, "-c", code, str(limit)], capture_output=True, text=True, check=True).stdout
    )


SESSIONS = 30 * 2**20
"""Bytes of graphs and sessions, of which there are more, and which the limit is not about."""


@pytest.mark.skipif(not PROC, reason="there is no /proc to read the peak in, and others count that of the parent")
def test_the_peak_is_below_the_limit() -> None:
    limit = 120 * 2**20
    assert taken(limit) < limit + SESSIONS < 0.8 * taken(0)
