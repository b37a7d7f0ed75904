"""A failing case made smaller, as long as it fails in the same way: fewer outputs, nodes, options and samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
from model_builder import Arrays, bodies, free_names, run, type_of
from onnx import helper
from random_models import Case
from random_settings import Settings

Failing = tuple[Case, Settings]
Fails = Callable[[Case, Settings], bool]

TRIES = 300
"""Smaller cases that are tried, at most."""


def minimised(case: Case, settings: Settings, fails: Fails, tries: int = TRIES) -> Failing:
    """The smallest case found; `fails` tells whether one fails as the first one does."""
    smallest, left, again = (case, settings), tries, True
    while again and left > 0:
        again = False
        for smaller in _smaller(*smallest):
            left -= 1
            if fails(*smaller):
                smallest, again = smaller, True
                break
            if left <= 0:
                break
    return smallest


def _smaller(case: Case, settings: Settings) -> Iterator[Failing]:
    """Cases that have a little less, the largest steps first."""
    for make in (_one_output, _ends_earlier, _begins_later, _bypassed):
        yield from ((smaller, settings) for smaller in make(case))
    yield from ((case, fewer) for fewer in _fewer_options(settings))
    if len(case.feeds) > 1:
        yield replace(case, feeds=case.feeds[: len(case.feeds) // 2]), settings
    if len(case.judging) > 1:
        yield replace(case, judging=case.judging[:1]), settings


def _one_output(case: Case) -> Iterator[Case]:
    outputs = list(case.model.graph.output)
    for output in outputs if len(outputs) > 1 else ():
        yield pruned(case, [output])


def _ends_earlier(case: Case) -> Iterator[Case]:
    """A value inside as the only output."""
    values = _values(case)
    for node in case.model.graph.node:
        for name in node.output:
            if name in values and name not in {o.name for o in case.model.graph.output}:
                yield pruned(case, [type_of(name, values[name])])


def _begins_later(case: Case) -> Iterator[Case]:
    """What a node makes as inputs, with the values that it has."""
    for node in reversed(case.model.graph.node):
        names = [name for name in node.output if name]
        if len(node.input) and not {o.name for o in case.model.graph.output} & set(names):
            yield from _fed(case, node, names)


def _fed(case: Case, node: onnx.NodeProto, names: list[str]) -> Iterator[Case]:
    try:
        feeds, judging = (
            [f | found for f, found in zip(some, _computed(case, names, some), strict=True)]
            for some in (case.feeds, case.judging)
        )
    except Exception:  # onnxruntime's classes have no common base
        return
    if not set(names) <= set(feeds[0]):  # sequences
        return
    model = copy.deepcopy(case.model)
    model.graph.node.remove(node)
    model.graph.input.extend(type_of(name, feeds[0][name]) for name in names)
    yield pruned(replace(case, model=model, feeds=feeds, judging=judging), list(model.graph.output))


def _bypassed(case: Case) -> Iterator[Case]:
    """Readers of a node read what it reads, where that has the same form."""
    values = _values(case)
    for index, node in enumerate(case.model.graph.node):
        alike = [
            name
            for name in node.input
            if name in values
            and node.output[0] in values
            and values[name].dtype == values[node.output[0]].dtype
            and values[name].shape == values[node.output[0]].shape
        ]
        if not alike or node.output[0] in {o.name for o in case.model.graph.output}:
            continue
        model = copy.deepcopy(case.model)
        del model.graph.node[index]
        _read_instead(model.graph, node.output[0], alike[0])
        yield pruned(replace(case, model=model), list(model.graph.output))


def _read_instead(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for body in bodies(node):
            _read_instead(body, old, new)


def _fewer_options(settings: Settings) -> Iterator[Settings]:
    for part in ("fields", "options"):
        known = getattr(settings, part)
        for key in known:
            yield replace(settings, **{part: {k: v for k, v in known.items() if k != key}})


def pruned(case: Case, outputs: list[onnx.ValueInfoProto]) -> Case:
    """The case with these outputs, and without what they do not need."""
    model = copy.deepcopy(case.model)
    needed, kept = {output.name for output in outputs}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(free_names([node]))
            kept.append(node)
    inputs = [value for value in model.graph.input if value.name in needed]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(kept[::-1], model.graph.name, inputs, outputs, constants)
    model.graph.CopyFrom(graph)
    names = {value.name for value in inputs}
    feeds, judging = ([{n: a for n, a in f.items() if n in names} for f in some] for some in (case.feeds, case.judging))
    return replace(case, model=model, feeds=feeds, judging=judging)


def _values(case: Case) -> Arrays:
    """What is computed of the first sample, inputs included."""
    names = [name for node in case.model.graph.node for name in node.output if name]
    try:
        return {**case.feeds[0], **_computed(case, names, case.feeds[:1])[0]}
    except Exception:  # sequences; onnxruntime's classes have no common base
        return dict(case.feeds[0])


def _computed(case: Case, names: list[str], feeds: list[Arrays]) -> list[Arrays]:
    probe = copy.deepcopy(case.model)
    del probe.graph.output[:]
    del probe.graph.value_info[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return [{n: a for n, a in answer.items() if isinstance(a, np.ndarray)} for answer in run(probe, feeds)]
