"""Two answers to one question as pairs of arrays that can be compared, whatever onnxruntime returns.

float    the values themselves
others   integers, bool and text are kept or not: 1 for every value of the reference, and 1 or 0 for the other one.
         As a signal, noise to signal is the share of values that differ, so a share p of equal ones counts as
         −10·log10(1 − p) dB: 99 % equal is 20 dB.

Sequences and maps become a pair for every tensor in them. Where one is missing, or has another shape, what one of the
two lacks is zero: the error is at least as large as what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pair:
    """What to compare: two float arrays of equal shape.

    exact   the values were no floats; they count as kept or not
    inside  of a sequence or a map
    shapes  of both as they were, where they differ
    """

    x: Array
    y: Array
    exact: bool = False
    inside: bool = False
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def paired(reference: object, other: object) -> Iterator[Pair]:
    """The pairs of an output of two models: one for a tensor, as many as it has for a sequence or a map."""
    yield from _paired(reference, other, inside=False)


def _paired(x: object, y: object, *, inside: bool) -> Iterator[Pair]:
    if isinstance(x, Mapping) or isinstance(y, Mapping):
        ours, theirs = (v if isinstance(v, Mapping) else {None: v} for v in (x, y))
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _paired(ours.get(key), theirs.get(key), inside=True)
    elif isinstance(x, (list, tuple)) or isinstance(y, (list, tuple)):
        left, right = (v if isinstance(v, (list, tuple)) else [v] for v in (x, y))
        for one, another in zip_longest(left, right):
            yield from _paired(one, another, inside=True)
    elif x is not None or y is not None:  # an optional output may be empty
        yield _pair(x, y, inside=inside)


def _pair(x: object, y: object, *, inside: bool) -> Pair:
    a = np.asarray(x) if x is not None else np.empty(0, np.asarray(y).dtype)
    b = np.asarray(y) if y is not None else np.empty(0, a.dtype)
    exact = a.dtype.kind != "f"
    shapes = None if a.shape == b.shape else (a.shape, b.shape)
    if exact:
        return Pair(*_kept(a, b), exact, inside, shapes)
    if b.dtype.kind not in "fiub":
        b = np.empty(0, a.dtype)  # text is no number
    return Pair(*(_padded(a, b) if shapes or a.shape != b.shape else (a, b)), exact, inside, shapes)


def _kept(a: Array, b: Array) -> tuple[Array, Array]:
    """One for each value of the larger array, and whether it is equal in both."""
    corner = _corner(a.shape, b.shape)
    same = np.asarray(a[corner] == b[corner]) if corner is not None else np.empty(0, bool)
    if a.shape == b.shape:
        return np.ones(a.shape), same.astype(np.float64)
    kept = np.zeros(max(a.size, b.size))
    kept[: same.size] = same.ravel()
    return np.ones(kept.shape), kept


def _padded(a: Array, b: Array) -> tuple[Array, Array]:
    """Both with zeros where only the other one has values."""
    if a.ndim != b.ndim:
        return np.concatenate([a.ravel(), np.zeros(b.size)]), np.concatenate([np.zeros(a.size), b.ravel()])
    shape = tuple(map(max, zip(a.shape, b.shape, strict=True)))
    padded = np.zeros((2, *shape))
    for target, array in zip(padded, (a, b), strict=True):
        target[tuple(slice(n) for n in array.shape)] = array
    return padded[0], padded[1]


def _corner(one: tuple[int, ...], another: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Where both have values; None where their axes are not the same."""
    return None if len(one) != len(another) else tuple(slice(n) for n in map(min, zip(one, another, strict=True)))
