"""The calibration feeds, kept for as many passes as the stages need, in memory that does not grow with their number."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed

FALLBACK = 4 << 30  # bytes assumed where the system does not tell its memory

HELD = 32 << 20
"""Bytes of feeds that stay in memory; the rest is read again for every pass, which costs little next to inference."""

Place = tuple[int, str, tuple[int, ...]]  # where an array lies in the file, its type and shape


class _File:
    """Arrays in a file without a name, which goes with the last that may read it.

    What is read is gone when nobody holds it; a mapped file would count as memory of the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="quark_onnx-")  # noqa: SIM115  closed by `finalize`
        weakref.finalize(self, self._file.close)

    def write(self, array: Any) -> Any:
        """Where the array lies in the file now; the array itself where it cannot be written."""
        if not isinstance(array, np.ndarray) or array.dtype.hasobject or not array.size:
            return array
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return start, array.dtype.str, array.shape

    def read(self, place: Place) -> NDArray[Any]:
        """An array of its own."""
        start, dtype, shape = place
        array = np.empty(math.prod(shape), dtype)
        self._file.seek(start)
        self._file.readinto(array.view(np.uint8).data)
        return array.reshape(shape)


class Kept(Sequence[Feed]):
    """Feeds, some in memory, some in a file."""

    def __init__(self, feeds: Sequence[Mapping[str, Any]], file: _File | None) -> None:
        self._feeds, self._file = feeds, file

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """The feeds, with places in the file in place of arrays that are not empty."""
        return self._feeds

    def __len__(self) -> int:
        return len(self._feeds)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Kept: ...

    def __getitem__(self, index: int | slice) -> Feed | Kept:
        if isinstance(index, slice):
            return Kept(self._feeds[index], self._file)
        return {name: self._read(entry) for name, entry in self._feeds[index].items()}

    def at(self, indices: Iterable[int]) -> Kept:
        """Some of them."""
        return Kept([self._feeds[index] for index in indices], self._file)

    def beside(self, name: str, arrays: Sequence[Any]) -> Kept:
        """The feeds, each with one array more, which stays in memory."""
        pairs = zip(self._feeds, arrays, strict=True)
        return Kept([{**feed, name: array} for feed, array in pairs], self._file)

    def only(self, names: Collection[str]) -> Kept:
        """The feeds with these arrays alone, as far as they have them: the others are not read."""
        return Kept([{n: entry for n, entry in feed.items() if n in names} for feed in self._feeds], self._file)

    def _read(self, entry: Any) -> Any:
        if not isinstance(entry, tuple):
            return entry
        assert self._file is not None
        return self._file.read(entry)


class Keeper:
    """Takes feeds one by one; those beyond `limit` bytes go to a temporary file. What is no array of numbers stays."""

    def __init__(self, limit: int = HELD) -> None:
        self._limit, self._held = limit, 0
        self._feeds: list[Mapping[str, Any]] = []
        self._file: _File | None = None

    def add(self, feed: Feed) -> None:
        """Keep one more."""
        self._held += sum(array.nbytes for array in feed.values() if isinstance(array, np.ndarray))
        if self._held <= self._limit:
            self._feeds.append(feed)
            return
        file = self._file = self._file or _File()
        self._feeds.append({name: file.write(array) for name, array in feed.items()})

    @property
    def kept(self) -> Kept:
        """All that were added, in order."""
        return Kept(self._feeds, self._file)


def keep(data: Iterable[Feed], limit: int = HELD) -> Kept:
    """All feeds, in order; see `Keeper`."""
    keeper = Keeper(limit)
    for feed in data:
        keeper.add(feed)
    return keeper.kept


def quarter_of_memory() -> int:
    """A quarter of the physical memory, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (ValueError, AttributeError):  # Windows has no sysconf
        return FALLBACK // 4


def samples_in(feed: Feed) -> int:
    """Samples in a feed: the first axis of its first array that holds values; 1 where none does."""
    return next((len(array) for array in feed.values() if array.ndim and array.size), 1)


def telling(feeds: Sequence[Feed]) -> list[int]:
    """Indices of the feeds that say something of every input, as none of their arrays is empty; all, if none does."""
    held = feeds.entries if isinstance(feeds, Kept) else feeds
    found = [i for i, feed in enumerate(held) if not any(map(_is_empty, feed.values()))]
    return found or list(range(len(held)))


def holding(feeds: Kept) -> Kept:
    """The feeds that hold any value; all, if none does."""
    found = [i for i, feed in enumerate(feeds.entries) if not all(map(_is_empty, feed.values()))]
    return feeds.at(found) if found else feeds


def _is_empty(entry: Any) -> bool:
    return isinstance(entry, np.ndarray) and not entry.size


def first(feeds: Iterable[Feed], samples: int) -> Iterator[Feed]:
    """The first feeds, until they hold so many samples; batches stay whole."""
    seen = 0
    for feed in feeds:
        yield feed
        seen += samples_in(feed)
        if seen >= samples:
            return
