"""Along which axes of a tensor positions lie: told by what changes when the padding does.

    x, x′      a tensor, with one content of the padding and with another
    axis       of positions: as long as the mask, and x = x′ at all that count along it
    two axes   scores of queries and keys: x = x′ where both count

A tensor that does not change holds nothing of padding: all of it counts. So it is known whatever a model does to its
axes, if it keeps them apart; and where padding changes what counts, as nothing hides it, there is no telling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.sample_mask import Marks, counting, marks_of
from quark_onnx.graph import Model, io
from quark_onnx.graph.mask_inputs import MaskInput

Axes = dict[str, tuple[int, ...]]

AT_ONCE = 16
"""Tensors that a run returns: all of them are in memory, twice."""


def padded_axes(model: Model, tensors: Sequence[str], feed: Feed, mask: MaskInput) -> tuple[Axes, Axes]:
    """Of the tensors that padding changes, axes of positions; and of those of which they cannot be told, because
    padding changes what counts, too, all that are long enough.

    feed: one with padding.
    """
    marks = marks_of(mask, feed[mask.name])
    other = {name: array if name == mask.name else _with_other_padding(array, marks) for name, array in feed.items()}
    found, unknown = Axes(), Axes()
    for name, x, y in _of_both(model, tensors, feed, other):
        changed = _changed(x, y)
        long = _long(changed.shape, marks)
        axes = _axes(changed, long, marks)
        if axes is None:
            unknown[name] = long
        elif axes:
            found[name] = axes
    return found, unknown


def _of_both(model: Model, tensors: Sequence[str], feed: Feed, other: Feed) -> Iterator[tuple[str, Any, Any]]:
    """Each tensor for two feeds; some at a time."""
    yield from ((name, feed[name], other[name]) for name in tensors if name in feed)
    given = {value.name for value in model.graph.inputs}
    wanted = [name for name in tensors if name not in given]
    runner = Runner(io.with_outputs(model, wanted), wanted)
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        run = runner.returning(some)
        yield from zip(some, run(feed), run(other), strict=True)


def _changed(x: Any, y: Any) -> NDArray[np.bool_]:
    """Where two tensors differ; what is no tensor has no positions."""
    if not isinstance(x, np.ndarray):
        return np.zeros((), bool)
    return ~np.asarray((x == y) | ((x != x) & (y != y)))


def _axes(changed: NDArray[np.bool_], long: tuple[int, ...], marks: Marks) -> tuple[int, ...] | None:
    if not changed.any():
        return ()
    for axes in (*combinations(long, 1), *combinations(long, 2)):
        if not any(part.any() for part in counting(changed, axes, marks)):
            return axes
    return None


def _long(shape: tuple[int, ...], marks: Marks) -> tuple[int, ...]:
    """Axes that may be of positions; none where samples do not lie along the first one."""
    samples, length = marks.shape
    if samples > 1 and shape[:1] != (samples,):
        return ()
    return tuple(axis for axis in range(min(samples - 1, 1), len(shape)) if shape[axis] == length)


def _with_other_padding(array: NDArray[Any], marks: Marks) -> NDArray[Any]:
    """An input with what it holds at positions that count at the others, too.

    Its positions lie along the first axis behind that of the samples that is as long as the mask; or along axis 0.
    """
    samples, length = marks.shape
    if array.ndim and array.shape[0] == samples:
        axis = next((axis for axis in range(1, array.ndim) if array.shape[axis] == length), None)
        rows = list(zip(np.split(array, samples), marks, strict=True))
    else:
        axis = 0 if array.ndim and len(array) == length else None
        rows = [(array, np.asarray(marks.any(0)))]
    return array if axis is None else np.concatenate([_filled(row, axis, kept) for row, kept in rows])


def _filled(array: NDArray[Any], axis: int, row: NDArray[np.bool_]) -> NDArray[Any]:
    kept, others = np.flatnonzero(row), np.flatnonzero(~row)
    at = np.arange(len(row))
    if kept.size:
        at[others] = kept[np.arange(len(others)) % len(kept)]
    return array.take(at, axis)
