"""Whether labels are what a loss compares with the first output: class ids for cross-entropy, else numbers like its.

The graph of a loss would take most of what is wrong without a word: an id that is too large is no class, a negative one
another, and a column of labels is spread over the whole output.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.labels import LABELS
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.graph.loss_terms import classes
from quark_onnx.graph.view import FLOATS

Array = NDArray[Any]
Shape = tuple[int, ...]


def refuse_misfit(model: Model, feeds: Kept, labels: Array | None, losses: Losses) -> None:
    """Nothing, where the losses can read the labels.

    Args:
        model: the float one.
        feeds: samples with their labels, but for those of positions that do not count.
        labels: of all samples; None: there are none.

    Raises:
        ConfigError: losses that need labels have none, or nothing reads those that there are.
        DataError: the labels are of another kind, or of another shape than the first output has.
    """
    reading = [name for name in losses.weights if name in ("cross_entropy", "l1", "l2")]
    if labels is None:
        if reading:
            raise ConfigError(
                f"QAT: the loss {reading[0]} compares with labels, and there are none; pass labels=… (--labels FILE), "
                "or leave it out: kl compares with the float model, which needs none"
            )
        return
    if not reading and losses.graph is None:
        raise ConfigError(
            "QAT: labels are given, and none of the losses reads them: add cross_entropy, l1 or l2 to losses, or leave "
            "the labels out"
        )
    output = next((value for value in model.graph.outputs if value.dtype in FLOATS), None)
    if not reading or output is None:
        return
    name = output.name or ""
    shape, given = Runner(model, [name])(feeds[0])[0].shape, feeds[0][LABELS].shape
    if "cross_entropy" in reading:
        found = classes(output)
        axis = len(shape) - 1 if found is None else found.axis
        _refuse_kind(labels, given, shape, axis, name)
        if any(_wrong(feed[LABELS], shape[axis]).any() for feed in feeds.only((LABELS,))):
            _refuse_values(labels, shape[axis], name)
    for loss in reading:
        if loss != "cross_entropy":
            _refuse_numbers(labels, given, shape, loss, name)


def _refuse_kind(labels: Array, given: Shape, shape: Shape, axis: int, output: str) -> None:
    """Unless they are whole numbers, one for each row of the output."""
    wanted = shape[:axis] + shape[axis + 1 :]
    if labels.dtype.kind == "f":
        whole = np.array_equal(labels, np.rint(labels)) and given == wanted
        way = "labels.astype('int64')" if whole else "labels.argmax(-1)" if given == shape else "another loss, l2 say"
        raise DataError(f"cross_entropy takes class ids, whole numbers, and the labels are {labels.dtype}: pass {way}")
    if given != wanted:
        way = "labels.argmax(-1)" if given == shape else f"one for each of {_dims(wanted)}"
        raise DataError(
            f"output {output!r} has {shape[axis]} classes along axis {axis} of {_dims(shape)}, and the labels have the "
            f"shape {_dims(given)}: pass {way}, or compare as you like with a graph of your own (losses graph)"
        )


def _wrong(labels: Array, count: int) -> Array:
    return np.asarray((labels < 0) | (labels >= count))


def _refuse_values(labels: Array, count: int, output: str) -> NoReturn:
    """Some are no classes."""
    wrong = np.argwhere(_wrong(labels, count))
    at = wrong[0].tolist()
    shifted = labels.min() == 1 and labels.max() == count
    way = "they count from 1: pass labels - 1" if shifted else "leave such samples out, and their labels"
    raise DataError(
        f"{len(wrong)} of {labels.size} labels are no class, first {labels[tuple(at)]} of sample {at[0]}: output "
        f"{output!r} has the classes 0 … {count - 1}; {way}"
    )


def _refuse_numbers(labels: Array, given: Shape, shape: Shape, loss: str, output: str) -> None:
    """Unless they are numbers in the shape of the output."""
    if labels.dtype.kind != "f":
        raise DataError(
            f"{loss} takes numbers that output {output!r} is to become, and the labels are {labels.dtype}: pass "
            "labels.astype('float32'), or take cross_entropy if they are class ids"
        )
    if given != shape:
        ids = "; class ids are whole numbers, labels.astype('int64')" if given == shape[:-1] else ""
        raise DataError(
            f"{loss} compares with labels like output {output!r}, {_dims(shape)}, and they have the shape "
            f"{_dims(given)}: reshape them{ids}"
        )


def _dims(shape: Shape) -> str:
    """A shape of any number of samples."""
    return f"({', '.join(['N', *map(str, shape[1:])])})"
