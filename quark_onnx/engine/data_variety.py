"""Whether samples differ: data that are all zero, or one picture over and over, teach and prove nothing.

Of each input the first sample is kept, and hashes of a few different ones; once enough of them differ nothing is looked
at any more. Rows of a batch count as samples of their own.

An input that stays the same is in order beside one that varies, where it is small (a threshold, a length) or is shaped
like it (a mask, positions), and beside floats that vary in any case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ENOUGH = 4
"""So many different samples, and an input varies."""

MANY = 20
"""Of so many samples that should be more than `ENOUGH`."""

SMALL = 8
"""Inputs of fewer numbers, such as a threshold or the size of a picture, say little by varying, or by not doing so."""

NEAR = 0.01
"""Of the deviation of a sample: 8 bits over ±3 deviations have steps of twice that, and such noise moves no code."""

COMPARED = 1 << 20
"""Numbers of a sample that are compared; of larger ones every k-th."""


class Variety:
    """The inputs of the samples that were seen."""

    def __init__(self) -> None:
        self._inputs: dict[str, _Input] = {}

    def add(self, feed: Mapping[str, Array]) -> None:
        """Look at a feed; nothing of it is kept but one copy. Empty arrays do not count."""
        for name, array in ((name, array) for name, array in feed.items() if array.size):
            self._inputs.setdefault(name, _Input()).add(array)

    def warnings(self) -> Iterator[str]:
        """A line for each input that teaches nothing; none where the samples vary."""
        small = all(seen.size < SMALL for seen in self._inputs.values())
        counting = {name: seen for name, seen in self._inputs.items() if small or seen.size >= SMALL}
        varying = [seen for seen in counting.values() if seen.fault() is None]
        for name, seen in counting.items():
            fault = seen.fault()
            if fault is not None and not any(_excuses(other, seen) for other in varying):
                yield (
                    f"input {name!r} {fault}: nothing can be learned or proved from that; check what the reader loads "
                    "and the preprocessing, and give samples such as the model will meet"
                )


def _excuses(varying: _Input, other: _Input) -> bool:
    """Whether an input may stay the same beside one that varies."""
    return varying.is_float or not other.is_float or other.dims <= varying.dims | {1}


class _Input:
    """What was seen of one input."""

    def __init__(self) -> None:
        self.count = self.feeds = self.size = 0
        self.is_float = False
        self.dims: set[int] = set()
        self._first: Array | None = None
        self._near = self._uniform = True
        self._different: set[bytes] = set()
        self._batches: set[bytes] = set()

    def add(self, array: Array) -> None:
        samples = array if array.ndim > 1 and len(array) > 1 else (array,)
        self.feeds, self.count = self.feeds + 1, self.count + len(samples)
        self.is_float = array.dtype.kind == "f"
        if len(self._batches) < 2:
            self._batches.add(_digest(array))
        for sample in samples:
            if len(self._different) == ENOUGH and not self._near and not self._uniform:
                break
            self._add(sample)

    def _add(self, sample: Array) -> None:
        self.size = max(self.size, sample.size)
        self.dims.update(sample.shape)
        if len(self._different) < ENOUGH:
            self._different.add(_digest(sample))
        if self._first is None:
            self._first = np.array(sample.reshape(-1)[:: -(-sample.size // COMPARED)])
        elif self._near:
            part = sample.reshape(-1)[:: -(-sample.size // COMPARED)]
            self._near = len(self._different) == 1 or _alike(self._first, part)
        if self._uniform:
            self._uniform = bool((sample == self._first[0]).all())

    def fault(self) -> str | None:
        """Why it teaches nothing; None: it varies, as far as one can tell."""
        if self._uniform and self._first is not None:
            return f"is {self._first[0]} everywhere in {_all(self.count)}"
        if self.count > 1 and len(self._different) == 1:
            return f"is the same in {_all(self.count)}"
        if self.feeds > 1 and len(self._batches) == 1:
            return f"is the same in {_all(self.feeds, 'feed')}"
        if self.count > 1 and self._near:
            return f"is nearly the same in {_all(self.count)}, to {NEAR:.0%}"
        if self.count >= MANY and len(self._different) < ENOUGH and self.size >= SMALL:
            return f"has only {len(self._different)} different samples of {self.count}"
        return None


def _all(count: int, what: str = "sample") -> str:
    return f"the one {what}" if count == 1 else f"all {count} {what}s"


def _digest(array: Array) -> bytes:
    data = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()
    return hashlib.blake2b(repr(array.shape).encode() + data, digest_size=16).digest()


def _alike(first: Array, other: Array) -> bool:
    """Whether two samples that are not equal differ by noise alone. Integers are noisy where they are pictures."""
    if first.shape != other.shape or not (first.dtype.kind == "f" or first.dtype == np.uint8):
        return False
    known = np.isfinite(first) & np.isfinite(other)
    if not np.array_equal(first[~known], other[~known]) or not known.any():
        return False  # infinities are masks
    a, b = first[known].astype(np.float64), other[known].astype(np.float64)
    change = np.abs(a - b)
    changed = change > 0
    if not changed.any():  # the difference is between the numbers that are compared
        return False
    largest = np.maximum(np.abs(a), np.abs(b))
    small = float(np.median(change[changed] / largest[changed])) <= 2 * NEAR  # else one large number would hide others
    return small and float(np.sqrt(np.square(change).mean())) <= NEAR * (float(a.std()) or float(np.abs(a).max()))
