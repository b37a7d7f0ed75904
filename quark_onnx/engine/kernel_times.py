"""Microseconds that the nodes of a model take on this machine, by onnxruntime's own profiler.

What is timed are kernels of onnxruntime's optimized graph; the node of a kernel is

    the one whose name it has, or had before fusions appended to it
    else, of those that it computes (from its output back to what other kernels give), the layer, or else the last one
    else the node that reads its output, or gives its input: quantizers and changes of layout

so a layer's time is that of its kernel, of the activation in it, and of the quantizers that it alone needs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.core.errors import DataError
from quark_onnx.core.operators import LAYERS
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.onnxruntime_ledger import made_from
from quark_onnx.engine.runner import Runner, fit
from quark_onnx.graph import Model, Node, io
from quark_onnx.graph.view import is_op

WARM_UP, RUNS = 3, 30

SECONDS = 2.0
"""No new run begins after so many seconds, but for the first one that counts."""

REST = ""
"""Stands for the node of kernels that serve none."""

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_KERNEL = "_kernel_time"
_BLOCKED = "_nchwc"


def kernel_times(model: Model, feeds: Iterable[Feed], *, threads: int = 1, fuse: bool = True) -> dict[str, float]:
    """Microseconds of one run by name of the node, in order of the graph, and by `REST`; they add up to all kernels.

    Nodes that no kernel is left of are not there: the time is that of the node whose kernel does their work. The time
    of a body is that of the node that runs it. Quantizers of the model are no nodes of their own, see above.

    Args:
        model: float, or quantized by any tool; its nodes have names, and those without count for `REST`.
        feeds: to run on, in turn.
        threads: that onnxruntime may use; 0: its own choice.
        fuse: on integer kernels, where there are any; False: with the session entry session.disable_quant_qdq=1.

    Raises:
        DataError: there is no feed, or the model fails on one.
    """
    given = [fit(feed, model) for feed in feeds]
    if not given:
        raise DataError("kernels are timed while the model runs, and there is no sample to run it on; give one")
    with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
        kept, profile = Path(folder) / "optimized.onnx", Path(folder) / "profile"
        runner = Runner(model, threads=threads, fuse=fuse, keep=kept, profile=profile)
        _run(runner, given)
        events = json.loads(Path(runner.session.end_profiling()).read_text("utf-8"))
        executed = io.load_executed(kept)
        try:
            owners = _owners(model, executed)
        finally:
            io.close(executed)
    found = {node.name or "": 0.0 for node in model.graph} | {REST: 0.0}
    for kernel, taken in _durations(events).items():
        found[owners.get(kernel, REST)] += taken
    return {name: taken for name, taken in found.items() if taken}


def _run(runner: Runner, feeds: Sequence[Feed]) -> None:
    begin = time.perf_counter()
    for turn in range(WARM_UP + RUNS):
        if turn > WARM_UP and time.perf_counter() - begin > SECONDS:
            break
        runner(feeds[turn % len(feeds)])


def _durations(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Microseconds of each kernel: the lower quartile of its runs, which other processes disturb least."""
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    runs, end = defaultdict[str, list[float]](list), 0
    for event in nodes:
        if event["ts"] >= end:  # else it is inside the last one: of a body
            runs[event["name"].removesuffix(_KERNEL)].append(event["dur"] + 0.5)  # whole ones, rounded down
            end = event["ts"] + event["dur"]
    return {name: float(np.quantile(taken[WARM_UP:] or taken, 0.25)) for name, taken in runs.items()}


def _owners(model: Model, executed: Model) -> dict[str, str]:
    """Kernel → the node of the model that it works for."""
    nodes = {node.name or "" for node in model.graph if node.op_type not in _QUANTIZERS}
    makers = {value.name or "": node for node in model.graph for value in node.outputs}
    kernels = [*executed.graph]
    ends = {tensor for kernel in kernels for tensor in _tensors(kernel)}
    found: dict[Node, str | None] = {}
    for kernel in kernels:
        named = (name for name in _names(kernel) if name in nodes)
        made = (_computed(makers[tensor], ends) for tensor in _tensors(kernel) if tensor in makers)
        found[kernel] = next(named, None) or next(filter(None, made), None)
    for kernel in reversed(kernels):
        readers = (found.get(use.node) for value in kernel.outputs for use in value.uses())
        found[kernel] = found[kernel] or next(filter(None, readers), None)
    for kernel in kernels:
        givers = (found.get(maker) for value in kernel.inputs if value is not None and (maker := value.producer()))
        found[kernel] = found[kernel] or next(filter(None, givers), None)
    return {kernel.name or "": name or REST for kernel, name in found.items()}


def _computed(last: Node, ends: Set[str]) -> str | None:
    """What one kernel computes that ends with this node, and begins behind other kernels: its layer, or last node."""
    waiting, seen = deque([last]), [last]
    while waiting:
        for value in waiting.popleft().inputs:
            maker = None if value is None or value.name in ends else value.producer()
            if maker is not None and maker not in seen:
                waiting.append(maker)
                seen.append(maker)
    real = [node for node in seen if node.op_type not in _QUANTIZERS]
    layers = [node for node in real if is_op(node, *LAYERS)]
    return next((node.name for node in layers + real), None)


def _names(kernel: Node) -> Iterator[str]:
    name = kernel.name or ""
    yield from (name, *made_from(name))


def _tensors(kernel: Node) -> Iterator[str]:
    """Its outputs, under the names that they had before onnxruntime changed their layout."""
    yield from (value.name or "" for value in kernel.outputs)
    yield from (name.removesuffix(_BLOCKED) for name in _names(kernel) if name.endswith(_BLOCKED))
