"""A quantized model whose quantizers can be switched off one by one, in one session: what would it be without these?

Every quantizer stands in a branch that is taken or not, by an element of one input:

    If (on)  v → QuantizeLinear → DequantizeLinear   else  v → Identity

So a set of quantizers is tried by one run, without building, optimizing and loading another model; and a run costs no
more than what is on (measured on a detector of 300 quantizers: a third of what it costs with a Where behind each).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import numpy as np

from quark_onnx.core.plan import Plan, Site
from quark_onnx.engine.apply_plan import Writer, has_scale
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import MANY, Arrays, Runner, fit
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.edit import add_elements, forget_types, new_branch, new_node
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.view import is_op, output_names

W = TypeVar("W", bound=Writer)


class Switchable:
    """The quantized model of a plan, in the arithmetic that is written, a switch for each site with a scale of its own.

    A run takes one thread; several threads may run it at once.

    Args:
        model: the float model that the plan belongs to; it is left as it is.
        plan: complete; nothing in it is quantized at run time.
    """

    def __init__(self, model: Model, plan: Plan) -> None:
        self.outputs = output_names(model)
        self._model, writer = _written(model, plan, _Switching)
        self._switches, self._input = writer.switches, writer.input
        self._run = _runner(self._model, self.outputs, heavy=io.is_heavy(model))

    @property
    def tensors(self) -> Collection[str]:
        """Those whose quantizer has a switch."""
        return self._switches

    def __call__(self, feed: Feed, off: Collection[str] = ()) -> Arrays:
        """The outputs, in the order of the model, with the quantizers of these tensors off."""
        on = {self._input: np.array([tensor not in off for tensor in self._switches])} if self._switches else {}
        return self._run(fit(feed, self._model) | on)


def without_switches(model: Model, plan: Plan) -> Callable[[Feed], Arrays]:
    """The outputs with all quantizers on, of a model that has no branches: loading it takes a part of the time."""
    quantized, _ = _written(model, plan, Writer)
    run = _runner(quantized, output_names(model), heavy=io.is_heavy(model))
    return lambda feed: run(fit(feed, quantized))


def _written(model: Model, plan: Plan, kind: type[W]) -> tuple[Model, W]:
    quantized = io.copy(model)
    writer = kind(quantized.graph, plan)
    writer.write()
    remove_unused(quantized)
    forget_types(quantized.graph)
    for output in quantized.graph.outputs:
        output.shape = None  # behind a branch onnxruntime fails where what the model declares is not true
    return quantized, writer


def _runner(model: Model, outputs: Sequence[str], *, heavy: bool) -> Runner:
    # Optimizing takes time that grows with the square of the branches, and writes weights out as floats again.
    return Runner(model, outputs, optimized=len(model.graph) <= MANY and not heavy, threads=1, fuse=False)


class _Switching(Writer):
    """Writes every quantizer into a branch. `switches`: tensor → what decides, in the order of the input's elements."""

    def write(self) -> None:
        self.switches: dict[str, Value] = {}
        self.input = ""
        super().write()
        if self.switches:
            self.input = add_elements(self.graph, "bool", list(self.switches.values()), "quantizers_on").name or ""

    def placed(self, site: Site, value: Value, nodes: list[Node]) -> list[Node]:
        if not has_scale(site):
            return nodes
        switch = self.switches[site.tensor] = Value()
        apart = [self._apart(value, nodes)] if is_op(value.producer(), "Cast") else []
        source = apart[0].outputs[0] if apart else value
        same = new_node(self.graph, "Identity", [source], f"{site.tensor}_Identity", f"{site.tensor}_same")
        return [*apart, new_branch(self.graph, switch, nodes, [same], f"{site.tensor}_If", f"{site.tensor}_switched")]

    def _apart(self, value: Value, nodes: list[Node]) -> Node:
        """A `Max` of one tensor, which changes nothing, for the branches to read.

        onnxruntime 1.32 takes out a Cast to double and one back, whatever a branch reads of them.
        """
        made = new_node(self.graph, "Max", [value], f"{value.name}_Max", f"{value.name}_apart")
        for node in nodes:
            if node.inputs[0] is value:
                node.replace_input_with(0, made.outputs[0])
        return made
