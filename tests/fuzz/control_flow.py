"""Recipes of graphs inside graphs: If, Loop, Scan, and functions of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from model_builder import Array, Arrays, Builder, Rejected, type_of
from onnx import helper, numpy_helper
from recipe import Recipe


def _step(b: Builder, name: str) -> str:
    """One node that keeps shape and type of a value."""
    shape = b.dims(name)
    kind = b.rng.random()
    if b.depth and kind < 0.06:
        return _branches(b, name)
    if kind < 0.35 and len(shape) >= 2:
        return str(b.add("MatMul", [name, b.weight(shape[-1], shape[-1], fan=shape[-1])]))
    if kind < 0.6 and len(shape) == 4:
        weight = b.weight(shape[1], shape[1], 3, 3, fan=9 * shape[1])
        return str(b.add("Conv", [name, weight, b.weight(shape[1])], pads=[1, 1, 1, 1]))
    if kind < 0.8:
        return str(b.add(b.choose(["Relu", "Sigmoid", "Tanh", "Neg", "Abs"]), [name]))
    return str(b.add(b.choose(["Add", "Mul"]), [name, b.weight(*shape[-1:])]))


def _steps(b: Builder, name: str) -> str:
    for _ in range(int(b.rng.integers(1, 4))):
        name = _step(b, name)
    return name


def _graph(b: Builder, inputs: Arrays, outputs: Sequence[str]) -> onnx.GraphProto:
    """The body that a builder holds."""
    return helper.make_graph(
        b.nodes,
        b.name("body"),
        [type_of(name, array) for name, array in inputs.items()],
        [type_of(name, b.at(name)) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in b.constants.items() if not _made(b, name)],
    )


def _made(b: Builder, name: str) -> bool:
    return any(name in node.output for node in b.nodes)


def _plain(array: Array) -> bool:
    return 1 <= array.ndim <= 4 and array.size <= 512


def _branches(b: Builder, name: str) -> str:
    """An If on a constant, on a value of the graph, or on what the data are; its branches work on a value."""
    kind = b.rng.random()
    if kind < 0.3:
        condition = b.constant(bool(b.chance(0.5)))
    elif kind < 0.5:
        truths = [n for n, array in b.values.items() if array.dtype == bool and array.size == 1]
        condition = str(b.choose(truths)) if truths else b.constant(True)
    else:
        mean = b.add("ReduceMean", [name], keepdims=0)
        condition = b.add("Greater", [mean, b.constant(0.0, b.real)])
    branches = []
    for _ in range(2):
        inner = b.body()
        made = _steps(inner, name)
        branches.append(_graph(inner, {}, [made]))
    return str(b.add("If", [condition], then_branch=branches[0], else_branch=branches[1]))


def _if(b: Builder) -> None:
    _branches(b, b.pick(_plain))


def _loop(b: Builder) -> None:
    name = b.pick(_plain)
    inner = b.body()
    step, going, carried = b.name("i"), b.name("go"), b.name("state")
    inputs = {step: np.array(0, np.int64), going: np.array(True), carried: b.at(name)}
    inner.outer |= inputs
    after = _steps(inner, carried)
    still = inner.add("Identity", [going])
    seen = [_step(inner, after)] * inner.chance(0.5)
    body = _graph(inner, inputs, [still, after, *seen])
    trips = b.constant(int(b.choose([1, 2, 3])), np.int64)
    b.add("Loop", [trips, b.constant(True), name], 1 + len(seen), body=body)


def _scan(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim in (2, 3) and array.size <= 512)
    inner = b.body()
    each, state = b.name("x"), b.name("state")
    row = b.at(name)[0]
    inputs = {state: np.zeros(row.shape, b.real), each: row}
    inner.outer |= inputs
    after = inner.add("Tanh", [inner.add("Add", [_step(inner, each), state])])
    seen = _step(inner, after)
    body = _graph(inner, inputs, [after, seen])
    b.add("Scan", [b.constant(inputs[state]), name], 2, body=body, num_scan_inputs=1)


def _function(b: Builder) -> None:
    """A function of the model, called once or twice; its weights are constants in it, or come as an input."""
    name = b.pick(_plain)
    if len(b.functions) > 2:
        raise Rejected("enough of them")
    inner = b.body()
    given = inner.name("p")
    inner.outer[given] = b.at(name)
    made = _steps(inner, given)
    known = {n: a for n, a in inner.constants.items() if not _made(inner, n)}
    passed = list(known)[:1] if b.chance(0.4) else []
    kept = {n: numpy_helper.from_array(a) for n, a in known.items() if n not in passed}
    stored = [helper.make_node("Constant", [], [n], value=tensor) for n, tensor in kept.items()]
    op_type = b.name("Block")
    function = helper.make_function(
        "local", op_type, [given, *passed], [made], [*stored, *inner.nodes], [helper.make_opsetid("", b.opset)]
    )
    b.functions.append(function)
    result = b.add(op_type, [name, *(b.constant(known[n]) for n in passed)], domain="local")
    if b.chance(0.4):
        b.add(op_type, [result, *(b.constant(known[n]) for n in passed)], domain="local")


OPERATORS = {
    "If": Recipe(_if, 11, weight=0.8),
    "Loop": Recipe(_loop, 11, weight=0.8),
    "Scan": Recipe(_scan, 11, weight=0.6),
    "function": Recipe(_function, 11, weight=0.8),
}
