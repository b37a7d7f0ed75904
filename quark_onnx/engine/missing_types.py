"""Types and ranks that ONNX's shape inference does not tell: onnxruntime's session is asked, then one run of the data.

    session    operators of other domains, functions that onnxruntime knows      types, often shapes
    one run    a Reshape to a computed shape, a Squeeze without axes             ranks: dimensions may differ next time

What ONNX can infer from an answer is inferred, so that few tensors are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, Value, io
from quark_onnx.graph.passes import infer_shapes
from quark_onnx.graph.value_info import contradict, describes, inferred, inner, is_known, tell, unknown

AT_ONCE = 32
"""Tensors that one run returns: all of them are in memory."""

ROUNDS = 8
"""Runs at most; tensors that they do not suffice for go into fewer."""

_TENSOR = re.compile(r"tensor\((\w+)\)")

FROM_SESSION = "onnxruntime told the types of {}, which ONNX's shape inference does not know"
FROM_RUN = "the ranks of {} are those of the first calibration sample: shape inference cannot tell them"
STALE = "what the model's value_info says of {} is not what it computes, and was dropped"


def listed(names: Sequence[str]) -> str:
    """Tensors in a sentence: one by its name, of several the first."""
    first = repr(names[0])
    return first if len(names) == 1 else f"{len(names)} tensors ({first} first)"


def ask_session(model: Model) -> list[str]:
    """Fill in what onnxruntime knows and ONNX does not; names of the tensors that have become known."""
    missing = [value for value in unknown(model.graph) if value.type is None]
    names = [value.name or "" for value in missing]
    if not names:
        return []
    try:
        runner = Runner(io.with_outputs(model, names), optimized=False)
    except ModelError:  # operators of the user's own, for instance: whoever needs a type says so
        return []
    told_by_session(missing, runner)
    infer_shapes(model)
    return [name for name, value in zip(names, missing, strict=True) if value.type is not None]


def told_by_session(values: Iterable[Value], runner: Runner) -> None:
    """Fill in what onnxruntime knows of values that a model returns."""
    answers = {answer.name: answer for answer in runner.session.get_outputs()}
    for value in values:
        answer = answers[value.name]
        if found := _TENSOR.fullmatch(answer.type):  # no dimensions: a scalar, or not known
            dims = [dim if isinstance(dim, int) else None for dim in answer.shape]
            tell(value, found.group(1), dims or None)


def ask_run(model: Model, feed: Feed) -> tuple[Model, list[str], list[str]]:
    """The model with the ranks that a run on `feed` shows, where neither ONNX nor onnxruntime can tell them.

    Returns:
        The model, a copy if there is anything to add; the tensors whose ranks have become known; and those that the
        model's value_info described wrongly.
    """
    bare = inferred(model)
    ask_session(bare)
    open_ = {value.name or "" for value in unknown(bare.graph)}
    if not open_:
        return model, [], []
    told = io.copy(model)
    said = {value.name or "": value for value in inner(told.graph) if value.name in open_}
    try:
        wrong = _observe(bare, feed, said)
    except (ModelError, DataError):  # whoever runs the model for its results tells what is wrong
        return model, [], []
    new, stale = [], []
    for seen in inner(bare.graph):
        value = said.get(seen.name or "")
        if value is None or not is_known(seen):
            continue
        if value.name in wrong or contradict(value, seen):
            stale.append(seen.name or "")
        elif not is_known(value):
            new.append(seen.name or "")
        else:
            continue
        value.type, value.shape = seen.type, seen.shape
    return told, new, stale


def _observe(bare: Model, feed: Feed, said: Mapping[str, Value]) -> set[str]:
    """Run the model, some tensors at a time, until all ranks are known that can be seen.

    said: what is claimed of tensors; all claims are looked at.

    Returns:
        Where a claim is wrong.
    """
    wrong = set()
    waiting = [value for value in inner(bare.graph) if (value.name or "") in said]
    while waiting := [value for value in waiting if not is_known(value) or is_known(said[value.name or ""])]:
        count = max(AT_ONCE, -(-len(waiting) // ROUNDS))
        some, waiting = waiting[:count], waiting[count:]
        names = [value.name or "" for value in some]
        arrays = Runner(io.with_outputs(bare, names), names, optimized=False)(feed)
        for value, array in zip(some, arrays, strict=True):
            if isinstance(array, np.ndarray):
                tell(value, array.dtype, [None] * array.ndim)
                if not describes(said[value.name or ""], array):
                    wrong.add(value.name or "")
        infer_shapes(bare)
    return wrong
