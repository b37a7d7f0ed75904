"""Samples that run together, as one batch: a run of a small model costs more to begin than to compute.

A model may well mix what it is given together (a norm over the batch, a Reshape to a fixed size), so that nothing here
is taken for granted: what the first of all batches of a shape makes is compared with what its samples make alone. It
is made of the samples that differ most: black images do not show that a mean is taken over all of them, nor do those
that all reach 255 that they are divided by the largest value of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Arrays, Runner
from quark_onnx.graph import Model
from quark_onnx.graph.bodies import bodies
from quark_onnx.graph.view import shape

Array = NDArray[Any]

TOGETHER = 4
"""Samples of a batch: with more of them nothing is won, and what they make falls out of the processor's cache."""

ROOM = 2**23
"""Bytes of a batch of model inputs: what a model makes of them is ten times as large, and more."""

NEAR = 2.0**-12
"""Part of a tensor's largest value that a sum may be off by where a kernel adds in another order: of 4,096 numbers of
float32, at most."""

FLIPPED = 0.01
"""Part of a tensor of the quantized model that may be further off: what was on the border between two codes."""

ROWS_BY_VALUE = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
"""Operators that make as many rows as values ask for: those of several samples cannot be told apart."""

Shapes = tuple[tuple[int, ...], ...]


class Stack(NamedTuple):
    """Numbers of the samples that run together; which shapes they have, and whether they are the first with these."""

    members: tuple[int, ...]
    kind: int = 0
    first: bool = False


def apart(count: int) -> list[Stack]:
    """Each sample alone."""
    return [Stack((i,)) for i in range(count)]


def stacks(model: Model, samples: Mapping[str, Sequence[Array]], count: int) -> list[Stack]:
    """Which of `count` samples may run together: those of the same shapes, if all inputs have an open first axis.

    A model with bodies runs one by one: which of them is run may depend on the sample, and not on the first ones.

    Args:
        samples: of each of the model's inputs.
    """
    shapes = [shape(value) for value in model.graph.inputs if not value.is_initializer()]
    if not all(dims and dims[0] is None for dims in shapes) or any(bodies(model.graph)):
        return apart(count)
    alike: dict[Any, list[int]] = {}
    for i in range(count):
        alike.setdefault(tuple((column[i].dtype, column[i].shape) for column in samples.values()), []).append(i)
    found = []
    for kind, (key, members) in enumerate(alike.items()):
        size = max(1, sum(kind.itemsize * math.prod(dims) for kind, dims in key))
        most = min(TOGETHER, ROOM // size) if all(dims and dims[0] for _, dims in key) else 1
        if most < 2 or len(members) < 2 * most:  # comparing would cost what running together saves
            found += [Stack((i,)) for i in members]
            continue
        members = _unlike_first(samples, members, most)
        cuts = [*range(0, len(members), most), len(members)]
        found += [Stack(tuple(members[a:b]), kind, first=not a) for a, b in pairwise(cuts)]
    return found


def _unlike_first(samples: Mapping[str, Sequence[Array]], members: Sequence[int], count: int) -> list[int]:
    """The members, with those in front that differ most from each other by their least, mean and largest values."""
    firsts = [(column, column[members[0]]) for column in samples.values()]
    columns = [column for column, array in firsts if array.dtype.kind in "fiub" and array.size]
    told = np.array([[f(column[i]) for column in columns for f in (np.min, np.mean, np.max)] for i in members], float)
    told = np.nan_to_num(told, posinf=0, neginf=0)
    spread = np.ptp(told, axis=0)
    told = (told - told.min(0)) / np.where(spread > 0, spread, 1)
    chosen: list[int] = []
    far = np.abs(told - told.mean(0)).sum(1)
    for _ in range(count):
        chosen.append(int(far.argmax()))
        off = np.abs(told - told[chosen[-1]]).sum(1)
        far = off if len(chosen) == 1 else np.minimum(far, off)
        far[chosen] = -1
    return [members[i] for i in (*chosen, *sorted(set(range(len(members))) - set(chosen)))]


def run(runner: Runner, feeds: Sequence[Feed], made: Shapes | None, flipped: float = 0) -> tuple[list[Arrays], bool]:
    """What a model makes of each sample of a stack, and whether they could run together.

    made: shapes that the first samples of their kind became; None: these are the first.
    flipped: part of a tensor that may be off for another reason than that they are mixed.
    """
    together = _together(runner, feeds) if len(feeds) > 1 else None
    if together is not None and made is not None and shapes_of(together[0]) == made:
        return together, True
    alone = [runner(feed) for feed in feeds]
    if together is not None and made is None and _alike(together, alone, flipped):
        return together, True
    return alone, False


def shapes_of(arrays: Arrays) -> Shapes:
    """Of what was made of one sample."""
    return tuple(array.shape for array in arrays)


def _together(runner: Runner, feeds: Sequence[Feed]) -> list[Arrays] | None:
    """What is made of all of them in one run, sample by sample; None if it cannot be told apart, or does not run."""
    columns = {name: [feed[name] for feed in feeds] for name in feeds[0]}
    if not all(_stackable(column) for column in columns.values()):
        return None
    try:
        found = runner({name: joined(column) for name, column in columns.items()})
    except (DataError, ModelError):  # a Reshape to a fixed size, say; alone they will tell what is wrong, if anything
        return None
    if not all(_divisible(array, len(feeds)) for array in found):
        return None
    return [list(row) for row in zip(*(np.split(array, len(feeds)) for array in found), strict=True)]


def _divisible(array: Any, count: int) -> bool:
    """Whether it may be the same number of rows for each of so many samples."""
    return isinstance(array, np.ndarray) and array.ndim > 0 and len(array) % count == 0


def _stackable(column: Sequence[Any]) -> bool:
    """Whether all are arrays of one type and shape."""
    if not all(isinstance(array, np.ndarray) and array.ndim for array in column):
        return False
    return len({(array.dtype, array.shape) for array in column}) == 1


def joined(arrays: Sequence[Array]) -> Array:
    """Along the first axis; without a copy where they are parts of one array that lie one behind the other."""
    first = arrays[0]
    if first.base is not None and all(a.base is first.base and a.flags.c_contiguous for a in arrays):
        places = [a.__array_interface__["data"][0] for a in arrays]
        if all(b - a == first.nbytes for a, b in pairwise(places)):
            whole = (len(arrays) * len(first), *first.shape[1:])
            strides = first.nbytes // len(first), *first.strides[1:]  # its own first one is any, where it has one row
            return np.lib.stride_tricks.as_strided(first, whole, strides, writeable=False)
    return np.concatenate(arrays)


def _alike(found: Sequence[Arrays], wanted: Sequence[Arrays], flipped: float) -> bool:
    """Whether each tensor is the same in both, all samples taken together, up to the order in which sums are taken."""
    pairs = zip(zip(*found, strict=True), zip(*wanted, strict=True), strict=True)
    return all(_stackable([*a, *b]) and _near(np.concatenate(a), np.concatenate(b), flipped) for a, b in pairs)


def _near(found: Array, wanted: Array, flipped: float) -> bool:
    if np.array_equal(found, wanted, equal_nan=found.dtype.kind == "f"):
        return True
    if found.dtype.kind == "f":
        finite = np.isfinite(wanted)
        if not np.array_equal(finite, np.isfinite(found)):
            return False
        bound = max(NEAR, 4 * float(np.finfo(found.dtype).eps)) * float(np.abs(wanted[finite]).max(initial=0))
        off = np.abs(found[finite].astype(np.float64) - wanted[finite]) > bound
    elif found.dtype.itemsize < 4 and found.dtype.kind in "iu":  # codes; wider ones are numbers of something
        steps = np.abs(found.astype(np.int64) - wanted)
        if steps.max(initial=0) > 1:
            return False
        off = steps > 0
    else:
        return False
    return float(off.mean()) <= flipped
