"""A quantized model as x64 without VNNI computes it, on any processor, to the bit.

The graph that onnxruntime executes is cut around the nodes that are not certified exact: those are computed in numpy
(`engine.product_arithmetic`), everything between them by onnxruntime, and so are bodies of control flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.product_arithmetic import Multiply, computed
from quark_onnx.engine.runner import Arrays, Runner, executed_model
from quark_onnx.engine.saturation_certificate import certificates
from quark_onnx.graph import Model, Node, io
from quark_onnx.graph.passes import name_nodes
from quark_onnx.graph.segments import Segment, segments
from quark_onnx.graph.subgraphs import part
from quark_onnx.graph.view import constant, output_names
from quark_onnx.numerics.saturating_products import saturating_product

Values = dict[str, NDArray[Any]]
Run = Callable[[Feed], Arrays]


@contextmanager
def without_vnni(
    model: Model, outputs: Sequence[str] | None = None, multiply: Multiply = saturating_product
) -> Iterator[Run]:
    """A function as `Runner` is one: the outputs for a feed, with the sums of a processor whose 16 bits saturate.

    Args:
        outputs: names of tensors to return, default the graph outputs.
        multiply: how uint8 is multiplied by int8 (`computed`).

    Raises:
        ModelError: onnxruntime cannot load the model, or a kernel saturates that cannot be computed here.
    """
    names = output_names(model) if outputs is None else list(outputs)
    with executed_model(io.with_outputs(model, names)) as executed:
        name_nodes(executed)
        here = [node for node, found in certificates(executed).items() if found.verdict != "exact"]
        if inside := [node for node in here if node.graph is not executed.graph]:
            raise ModelError(
                f"{inside[0].op_type} {inside[0].name!r} is inside a body, which onnxruntime computes whole"
            )
        steps = _steps(executed, set(here), multiply)
        yield lambda feed: _run(steps, feed, names)


@dataclass
class _Piece:
    """Nodes that onnxruntime runs. The session is made when the types of the inputs are known: at the first feed."""

    model: Model
    segment: Segment
    runner: Runner | None = None

    def __call__(self, values: Values) -> None:
        inputs = {name: values[name] for name in self.segment.inputs}
        if not self.segment.outputs:  # nobody reads what it makes
            return
        if self.runner is None:
            self.runner = Runner(part(self.model, self.segment, like=inputs), optimized=False)
        values.update(zip(self.segment.outputs, self.runner(inputs), strict=True))


@dataclass(frozen=True)
class _Product:
    """A node that is computed here."""

    node: Node
    multiply: Multiply

    def __call__(self, values: Values) -> None:
        inputs = [
            None if v is None else constant(v) if v.is_initializer() else values[v.name or ""] for v in self.node.inputs
        ]
        values[self.node.outputs[0].name or ""] = computed(self.node, inputs, self.multiply)


def _steps(executed: Model, here: set[Node], multiply: Multiply) -> list[_Piece | _Product]:
    """The graph in order, each of the nodes `here` alone."""
    nodes = list(executed.graph)
    anchors = {node for i, node in enumerate(nodes) if node in here or (i and nodes[i - 1] in here)}
    pieces = segments(executed, {node.name or "" for node in anchors})
    return [_Product(p.nodes[0], multiply) if p.nodes and p.nodes[0] in here else _Piece(executed, p) for p in pieces]


def _run(steps: Sequence[_Piece | _Product], feed: Feed, names: Sequence[str]) -> Arrays:
    values: Values = dict(feed)
    for step in steps:
        step(values)
    return [values[name] for name in names]
