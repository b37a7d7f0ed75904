"""onnxruntime's CPU provider, with all optimizations, as a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quark_onnx.engine.kernel_times import kernel_times
from quark_onnx.engine.onnxruntime_ledger import made_from, onnxruntime_rows
from quark_onnx.engine.runner import VERSION, Runner, executed_model, run_file
from quark_onnx.engine.runtimes.runtime import Executed, Run, Runtime
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.engine.saturation_certificate import certify
from quark_onnx.graph import Model, Node, io
from quark_onnx.graph.view import numpy_dtype


def load(model: Model, outputs: Sequence[str] | None = None, *, threads: int = 0) -> Run:
    """See `runtime.Load`."""
    if outputs is None:
        return Runner(model, threads=threads)
    return Runner(io.with_outputs(model, list(outputs)), outputs, threads=threads)


def executed_nodes(model: Model) -> list[Executed]:
    """The nodes of the optimized graph; their precision is the narrowest type of numbers that they read."""
    nodes = [*model.graph.all_nodes()]
    makers = {value.name or "": node.name or "" for node in nodes for value in node.outputs}
    makers |= {node.name or "": node.name or "" for node in nodes}
    with executed_model(model) as executed:
        return [_executed(node, makers) for node in executed.graph]


def _executed(node: Node, makers: Mapping[str, str]) -> Executed:
    names = [node.name or "", *made_from(node.name or ""), *(value.name or "" for value in node.outputs)]
    read = [numpy_dtype(value) for value in node.inputs if value is not None]
    numbers = [dtype for dtype in read if dtype is not None and dtype.kind in "iuf"]
    return Executed(
        tuple(dict.fromkeys(made for name in names if (made := makers.get(name)))),
        node.op_type,
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        min(numbers, key=lambda dtype: dtype.itemsize).name if numbers else "",
        tuple(str(numpy_dtype(value) or "") for value in node.outputs),
    )


RUNTIME = Runtime(
    "onnxruntime",
    "onnxruntime",
    VERSION,
    load,
    executed_nodes,
    onnxruntime_rows,
    kernel_times,
    certify,
    without_vnni,
    run_file,
)
