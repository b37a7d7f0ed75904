"""A graph that grows node by node: each node runs on real values when it is added, and one that cannot is taken back.

So the shape and type of every value are known, whatever shape inference makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

LARGEST = 1e4
"""No value that a node makes is larger: what grows beyond tells nothing of quantization."""

MOST = 4096
"""Elements of a value."""

IR_VERSIONS = {11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}
"""Of the release that brought each operator set."""


class Rejected(Exception):
    """The recipe has nothing to work on, or makes a node that does not run: it is left out."""


def session(model: onnx.ModelProto | str, *, optimized: bool = False, threads: int = 1) -> ort.InferenceSession:
    """onnxruntime's CPU provider, silent."""
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def free_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Names that the nodes, and the bodies in them, read from outside; in order of their first use."""
    made: set[str] = set()
    found: dict[str, None] = {}
    for node in nodes:
        inner = [name for body in bodies(node) for name in captured(body)]
        found |= dict.fromkeys(name for name in (*node.input, *inner) if name and name not in made)
        made.update(node.output)
    return list(found)


def captured(graph: onnx.GraphProto) -> list[str]:
    """Names that a body reads from the graph around it."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    needed = [*free_names(graph.node), *(o.name for o in graph.output)]
    own |= {name for node in graph.node for name in node.output}
    return [name for name in dict.fromkeys(needed) if name not in own]


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that stand in a node."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def type_of(name: str, array: Array, shape: Sequence[int | str | None] | None = None) -> onnx.ValueInfoProto:
    """The declaration of an input or output."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape if shape is None else shape)


class Builder:
    """Nodes, constants and concrete values of one graph; its methods raise `Rejected`.

    values     what is computed from the inputs, by name, for one sample
    constants  initializers
    real       the float type of the model
    depth      of the graph in others
    """

    def __init__(self, rng: np.random.Generator, opset: int, real: Any = np.float32) -> None:
        self.rng, self.opset, self.real = rng, opset, np.dtype(real)
        self.nodes: list[onnx.NodeProto] = []
        self.values: Arrays = {}
        self.constants: Arrays = {}
        self.functions: list[onnx.FunctionProto] = []
        self.outer: Arrays = {}
        self.outer_constants: Arrays = {}
        self.counter = [0]
        self.depth = 0

    def body(self) -> Builder:
        """A builder for a graph inside this one, whose values it may read."""
        inner = Builder(self.rng, self.opset, self.real)
        inner.outer = {**self.outer, **self.values}
        inner.outer_constants = {**self.outer_constants, **self.constants}
        inner.functions, inner.counter, inner.depth = self.functions, self.counter, self.depth + 1
        return inner

    def name(self, hint: str) -> str:
        """A name that nothing has."""
        self.counter[0] += 1
        return f"{hint}{self.counter[0]}"

    def chance(self, probability: float) -> bool:
        """True that often."""
        return bool(self.rng.random() < probability)

    def choose(self, options: Sequence[Any]) -> Any:
        """One of them."""
        return options[int(self.rng.integers(len(options)))]

    def pick(self, wanted: Callable[[Array], bool] = lambda array: True, *, real: bool = True) -> str:
        """A value of the graph; those that nothing reads yet, and late ones, come more often."""
        read = {name for node in self.nodes for name in node.input}
        known = self.values or self.outer
        found = [n for n, a in known.items() if (not real or a.dtype == self.real) and a.size and wanted(a)]
        if not found:
            raise Rejected("no such value")
        weights = np.array([(1 + index) * (1 if name in read else 4) for index, name in enumerate(found)], float)
        return str(self.rng.choice(found, p=weights / weights.sum()))

    def at(self, name: str) -> Array:
        """The value or constant of that name."""
        known = (self.values, self.constants, self.outer, self.outer_constants)
        return next(values[name] for values in known if name in values)

    def dims(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return self.at(name).shape

    def constant(self, array: Any, dtype: Any = None) -> str:
        """An initializer or a Constant node; one that exists already, where it is equal."""
        array = np.asarray(array, dtype)
        for name, known in self.constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and (known == array).all():
                return name
        name = self.name("c")
        if self.chance(0.15):
            tensor = numpy_helper.from_array(array, self.name("t"))
            self.nodes.append(helper.make_node("Constant", [], [name], self.name("n"), value=tensor))
        self.constants[name] = array
        return name

    def ints(self, *numbers: int) -> str:
        """A constant int64 vector."""
        return self.constant(numbers, np.int64)

    def weight(self, *shape: int, fan: int = 1) -> str:
        """A constant of random numbers / √fan; now and then one that another node has, or one that is hard to keep."""
        alike = [n for n, a in self.constants.items() if a.shape == shape and a.dtype == self.real]
        if alike and self.chance(0.3):
            return str(self.choose(alike))
        array = np.asarray(self.rng.standard_normal(shape) / np.sqrt(max(fan, 1)))
        kind = self.rng.random()
        if kind < 0.06 and array.ndim > 1:
            array *= 10.0 ** self.rng.uniform(-1.5, 0.5, (shape[0], *[1] * (len(shape) - 1)))
        elif kind < 0.10 and array.size:
            array.flat[int(self.rng.integers(array.size))] *= 8
        elif kind < 0.12 and array.ndim:
            array[: len(array) // 2] = 0
        return self.constant(array, self.real)

    def add(self, op_type: str, inputs: Sequence[str], outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """A node; the name of its output, or a list of several names."""
        made = [self.name("v") for _ in range(outputs)]
        node = helper.make_node(op_type, list(inputs), made, self.name("n"), domain=domain, **attributes)
        self.append([node], made)
        return made[0] if outputs == 1 else made

    def append(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
        """Nodes that run together, and those of their outputs that others may read."""
        self.values |= self._run(nodes, outputs)
        self.nodes.extend(nodes)

    def _run(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> Arrays:
        needed = free_names(nodes)
        constants = {**self.outer_constants, **self.constants}
        fed = {name: self.at(name) for name in needed if name not in constants}
        graph = helper.make_graph(
            list(nodes),
            "g",
            [type_of(name, array) for name, array in fed.items()],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(constants[name], name) for name in needed if name in constants],
        )
        try:
            found = session(model_of(graph, self.opset, self.functions)).run(None, fed)
        except Exception as error:  # onnxruntime's classes have no common base
            raise Rejected(str(error)) from error
        made = dict(zip(outputs, found, strict=True))
        if not all(isinstance(array, np.ndarray) and usable(array) for array in found):
            raise Rejected("values that tell nothing")
        return made

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """All of it, or, where something is rejected, nothing."""
        nodes, values, constants = list(self.nodes), dict(self.values), dict(self.constants)
        functions = list(self.functions)
        try:
            yield
        except Rejected:
            self.nodes, self.values, self.constants = nodes, values, constants
            self.functions[:] = functions


def usable(array: Array) -> bool:
    """Whether a value has numbers to work with: finite, not too large, neither none nor too many."""
    if not 0 < array.size <= MOST:
        return False
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all() and np.abs(array).max() <= LARGEST)


def model_of(
    graph: onnx.GraphProto, opset: int, functions: Sequence[onnx.FunctionProto] = (), **opsets: int
) -> onnx.ModelProto:
    """The model of a graph, with the domains that its nodes may have."""
    imports = {"": opset, "com.microsoft": 1, **({"local": 1} if functions else {}), **opsets}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        ir_version=max(IR_VERSIONS[opset], 8 if functions else 0),
        functions=functions,
        producer_name="random",
    )


def run(model: onnx.ModelProto | str, feeds: Sequence[Mapping[str, Array]], *, optimized: bool = False) -> list[Arrays]:
    """All outputs, as written or as kernels compute them, feed by feed."""
    runner = session(model, optimized=optimized)
    names = [output.name for output in runner.get_outputs()]
    return [dict(zip(names, runner.run(names, dict(feed)), strict=True)) for feed in feeds]
