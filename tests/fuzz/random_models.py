"""A random valid model of a seed, with the samples that it runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import control_flow
import elementwise_operators
import graph_patterns
import layer_operators
import microsoft_operators
import moving_operators
import numpy as np
import onnx
from model_builder import Array, Arrays, Builder, Rejected, bodies, free_names, model_of, run, type_of
from onnx import helper, numpy_helper
from random_names import rename
from recipe import Recipe

OPERATORS: dict[str, Recipe] = (
    elementwise_operators.OPERATORS
    | layer_operators.OPERATORS
    | microsoft_operators.OPERATORS
    | moving_operators.OPERATORS
    | graph_patterns.OPERATORS
    | control_flow.OPERATORS
)
"""All recipes by name: that of their operator, or of what several nodes make."""

OPSETS = range(11, 25)


@dataclass(frozen=True, eq=False)
class Case:
    """A model, the samples that it is calibrated on, and those that judge it."""

    seed: int
    model: onnx.ModelProto
    feeds: list[Arrays]
    judging: list[Arrays]

    @property
    def operators(self) -> Counter[str]:
        """Operator types, bodies and functions included, by number."""
        found = Counter(node.op_type for node in _all_nodes(self.model.graph.node))
        return found + Counter(n.op_type for f in self.model.functions for n in _all_nodes(f.node))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body.node)


def random_case(seed: int) -> Case:
    """The case of that seed: the same one, always."""
    for attempt in range(20):
        rng = np.random.default_rng([seed, attempt])
        try:
            return _case(seed, rng)
        except Rejected:
            continue
    raise AssertionError(f"no model comes of seed {seed}")


def _case(seed: int, rng: np.random.Generator) -> Case:
    opset = int(rng.choice(OPSETS))
    b = Builder(rng, opset, np.float16 if rng.random() < 0.06 else np.float32)
    draws = _inputs(b)
    inputs = list(draws)
    _grow(b, int(rng.integers(2, 16)))
    batches = 24 if rng.random() < 0.15 else 5
    feeds = [{name: draw() for name, draw in draws.items()} for _ in range(batches + 4)]
    outputs = _outputs(b, inputs, feeds)
    model = _assembled(b, inputs, outputs)
    feeds = [{v.name: feed[v.name] for v in model.graph.input if v.name in feed} for feed in feeds]
    if b.chance(0.5):
        feeds = _other_batches(model, feeds)
    rng_names = np.random.default_rng([seed, 77])
    old = [value.name for value in model.graph.input]
    rename(model, rng_names)
    new = dict(zip(old, (value.name for value in model.graph.input), strict=True))
    feeds = [{new[name]: array for name, array in feed.items()} for feed in feeds]
    return Case(seed, model, feeds[:batches], feeds[batches:])


def _inputs(b: Builder) -> dict[str, Draw]:
    """Inputs with a first value in the builder, and how more of them are drawn."""
    batch = int(b.choose([1, 1, 2]))
    shapes = [(batch, 3, 8, 8), (batch, 4, 6, 6), (batch, 8), (batch, 6, 8), (batch, 4, 12), (batch, 2, 3, 4, 4)]
    draws = {}
    for _ in range(int(b.choose([1, 1, 1, 2, 3]))):
        name, shape = b.name("x"), b.choose(shapes)
        draws[name] = Draw(b, shape, b.real)
    if b.chance(0.15):
        draws[b.name("ids")] = Draw(b, (batch, 5), np.dtype(np.int64))
    if b.chance(0.08):
        draws[b.name("flag")] = Draw(b, (), np.dtype(bool))
    b.values |= {name: draw() for name, draw in draws.items()}
    return draws


class Draw:
    """Arrays of one input: normal, even, one-sided or with outliers, at some scale; ids; truths."""

    def __init__(self, b: Builder, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.rng, self.shape, self.dtype = b.rng, shape, dtype
        self.kind, self.scale = int(b.rng.integers(5)), float(b.choose([1, 1, 1, 0.05, 10]))

    def __call__(self) -> Array:
        if self.dtype.kind == "b":
            return np.array(self.rng.random(self.shape) < 0.5)
        if self.dtype.kind == "i":
            return self.rng.integers(0, 7, self.shape).astype(self.dtype)
        x = self.rng.standard_normal(self.shape)
        if self.kind == 1:
            x = self.rng.uniform(0, 1, self.shape)
        elif self.kind == 2:
            x = np.maximum(x, 0)
        elif self.kind == 3:
            x = x + 3
        elif self.kind == 4:
            x = np.where(self.rng.random(self.shape) < 0.01, 6 * x, x)
        return (x * self.scale).astype(self.dtype)


def _grow(b: Builder, size: int) -> None:
    """So many recipes, as far as they have something to work on."""
    found = {name: recipe for name, recipe in OPERATORS.items() if recipe.since <= b.opset}
    weights = np.array([recipe.weight for recipe in found.values()])
    names = b.rng.choice(list(found), 4 * size, p=weights / weights.sum())
    done = 0
    for name in names:
        before = len(b.nodes)
        with b.attempt():
            found[str(name)].make(b)
        done += len(b.nodes) > before
        if done == size:
            return


def _outputs(b: Builder, inputs: list[str], feeds: list[Arrays]) -> list[str]:
    """What nothing reads, and a few values that are read; of those that say something on all samples."""
    read = set(free_names(b.nodes)) | {name for node in b.nodes for name in free_names([node])}
    made = [name for name in b.values if name not in inputs]
    ends = [name for name in made if name not in read]
    inner = [name for name in made if name in read and b.chance(0.06)]
    chosen = [*ends[-int(b.choose([1, 2, 6])) :], *inner]
    if not chosen:
        raise Rejected("no outputs")
    try:
        answers = run(_model(b, inputs, chosen), feeds)
    except Exception as error:  # onnxruntime's; some samples have values that the first one does not
        raise Rejected(str(error)) from error
    telling = [name for name in chosen if _tells([answer[name] for answer in answers])]
    if not any(b.values[name].dtype == b.real for name in telling):
        raise Rejected("no output tells anything")
    return telling


def _tells(arrays: list[Array]) -> bool:
    """Finite, of a size that quantizing is about, and not all the same."""
    if not all(np.isfinite(array.astype(np.float64)).all() for array in arrays):
        return False
    if arrays[0].dtype.kind != "f":
        return True
    joined = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    return bool(joined.std() > 1e-3 and abs(joined).max() < 1e4)


def _assembled(b: Builder, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    """The model without what nothing needs, mostly, and with declarations that say more or less."""
    if b.chance(0.85):
        needed = set(outputs)
        kept = []
        for node in reversed(b.nodes):
            if needed & set(node.output):
                needed |= set(free_names([node]))
                kept.append(node)
        b.nodes = kept[::-1]
        used = [name for name in inputs if name in needed]
        inputs = used or inputs[:1]
    model = _model(b, inputs, outputs)
    if b.chance(0.4):
        model = onnx.shape_inference.infer_shapes(model)
    if b.chance(0.4):
        _open(model, b)
    if b.chance(0.1) and model.graph.initializer:
        tensor = b.choose(model.graph.initializer)
        model.graph.input.append(type_of(tensor.name, numpy_helper.to_array(tensor)))  # its value is a default
    return model


def _open(model: onnx.ModelProto, b: Builder) -> None:
    """Dimensions that may vary: the batch, or every one but the channels."""
    wide = b.chance(0.3)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis == 0 or (wide and axis >= 2):
                dim.ClearField("dim_value")
                if b.chance(0.9):
                    dim.dim_param = f"{value.name}_{axis}" if wide else "batch size"


def _other_batches(model: onnx.ModelProto, feeds: list[Arrays]) -> list[Arrays]:
    """Some samples twice as long along their first axis, where the model runs on such."""
    varied = [
        {n: np.concatenate([a, a[::-1]]) if a.ndim else a for n, a in feed.items()} if i % 3 == 1 else feed
        for i, feed in enumerate(feeds)
    ]
    try:
        run(model, varied)
        answers = run(model, varied, optimized=True)  # which believes what bodies declare
    except Exception:  # the first axis is fixed, there or inside; onnxruntime's classes have no common base
        return feeds
    return varied if all(_tells([answer[name] for answer in answers]) for name in answers[0]) else feeds


def _model(b: Builder, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    made = {name for node in b.nodes for name in node.output}
    read = set(free_names(b.nodes)) | set(outputs)
    graph = helper.make_graph(
        b.nodes,
        "random",
        [type_of(name, b.values[name]) for name in inputs],
        [type_of(name, b.values[name]) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in b.constants.items() if name in read and name not in made],
    )
    called = {node.op_type for node in b.nodes if node.domain == "local"}
    return model_of(graph, b.opset, [f for f in b.functions if f.name in called])
