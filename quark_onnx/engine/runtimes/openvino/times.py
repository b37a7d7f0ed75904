"""Microseconds that the nodes of a model take in OpenVINO, by the counters of its CPU plugin.

A kernel counts for a node as `executed_work` finds it: for the layer in it, or else the last node that it names. What
names none but quantizers, or none at all, as changes of layout do, counts for the node that reads it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from quark_onnx.core.errors import DataError
from quark_onnx.core.operators import LAYERS
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.executed_work import work_by_node
from quark_onnx.engine.kernel_times import REST, RUNS, SECONDS, WARM_UP
from quark_onnx.engine.runner import fit
from quark_onnx.engine.runtimes.openvino.names import Labelled, labelled
from quark_onnx.engine.runtimes.runtime import Executed
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import is_op

Counted = Callable[[Feed], Mapping[str, float]]
"""Runs a model once; microseconds of one run by OpenVINO's name of a kernel, the mean of all runs so far."""

Readers = Mapping[str, Sequence[str]]
"""OpenVINO's name of a kernel → those that read what it writes."""

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def times_by_node(
    model: Model, feeds: Iterable[Feed], compiled: Callable[[Labelled], tuple[Mapping[str, Executed], Readers, Counted]]
) -> dict[str, float]:
    """Microseconds of one run by name of the node, in order of the graph, and by `REST`; they add up to all kernels.

    Args:
        compiled: what OpenVINO executes of a model, by its name of it; who reads that; and how it runs.

    Raises:
        DataError: there is no feed, or the model fails on one.
    """
    given = [fit(feed, model) for feed in feeds]
    if not given:
        raise DataError("kernels are timed while the model runs, and there is no sample to run it on; give one")
    labels = labelled(model)
    executed, readers, run = compiled(labels)
    begin = time.perf_counter()
    for turn in range(WARM_UP + RUNS):
        if turn > WARM_UP and time.perf_counter() - begin > SECONDS:
            break
        taken = run(given[turn % len(given)])
    owners = owners_of_kernels(model, executed, readers, labels)
    found = {node.name or "": 0.0 for node in model.graph} | {REST: 0.0}
    for kernel, microseconds in taken.items():
        found[owners.get(kernel, REST)] += microseconds
    return {name: microseconds for name, microseconds in found.items() if microseconds}


def owners_of_kernels(
    model: Model, executed: Mapping[str, Executed], readers: Readers, labels: Labelled
) -> dict[str, str]:
    """OpenVINO's name of a kernel → the node of the model that it works for; those are missing that serve none."""
    nodes = {node.name or "": node for node in model.graph}
    work = work_by_node(model, [*executed.values()])
    layers = {id(one): name for name, one in work.items() if name in nodes and is_op(nodes[name], *LAYERS)}
    found = {}
    for kernel, one in executed.items():
        own = [name for name in one.nodes if name in nodes and not is_op(nodes[name], *_QUANTIZERS)]
        named = [name for name in one.nodes or labels.named_in(kernel) if name in nodes]
        owner = layers.get(id(one)) or next(reversed(own), None) or (_served(nodes[named[-1]]) if named else None)
        if owner is not None:
            found[kernel] = owner
    for kernel in reversed([*executed]):
        if (owner := next((found[reader] for reader in readers.get(kernel, ()) if reader in found), None)) is not None:
            found.setdefault(kernel, owner)
    return found


def _served(node: Node) -> str | None:
    """The node that a quantizer, or what is laid out for it, works for: what reads it, or else what it reads."""
    if not is_op(node, *_QUANTIZERS):
        return node.name
    ahead: Node | None = node
    while ahead is not None and is_op(ahead, *_QUANTIZERS):
        ahead = next((use.node for value in ahead.outputs for use in value.uses()), None)
    behind: Node | None = node
    while ahead is None and behind is not None and is_op(behind, *_QUANTIZERS):
        first = behind.inputs[0]
        behind = None if first is None else first.producer()
    found = ahead or behind
    return None if found is None else found.name
