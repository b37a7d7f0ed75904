"""Activations of many samples, by tensor, under a memory budget: what does not fit is kept in a temporary file.

A file is mapped, so that readers need not know of it; whoever has read an array lets go of it, else the pages that were
touched would count as memory of the process.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = list[NDArray[Any]]

ROOM = 256 << 20
"""Bytes of activations in memory where nobody says how many: those of small nets, of which a file would cost a
twentieth of the time. What lies in a file is mostly in the system's cache, which is free memory to others."""


def let_go(array: NDArray[Any]) -> None:
    """Have what was read of an array leave the process's memory, if it lies in a file: it is read again when needed."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # Windows has no madvise
        begin = _address(array) - _address(np.frombuffer(base, np.uint8))
        start = begin - begin % mmap.PAGESIZE
        base.madvise(mmap.MADV_DONTNEED, start, begin + array.nbytes - start)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


class Store:
    """tensor → one array per sample. Arrays handed in belong to the store from then on; nobody changes them.

    Args:
        limit: bytes kept in memory. What comes beyond it is written to an unnamed temporary file and mapped; but for
            strings and sequences, which onnxruntime has as lists.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._tensors: dict[str, Samples] = {}
        self._in_memory: dict[str, dict[int, int]] = {}

    def put(self, name: str, samples: Sequence[Any]) -> None:
        """Keep all samples of a tensor, in place of those it had."""
        self.fill([name], ((i, [sample]) for i, sample in enumerate(samples)), len(samples))

    def fill(self, names: Sequence[str], rows: Iterable[tuple[int, Sequence[Any]]], count: int) -> None:
        """Keep samples of several tensors while they come, in any order: (number of the sample, its arrays)."""
        for name in names:
            self.drop(name)
        found: list[list[Any]] = [[None] * count for _ in names]
        with ExitStack() as open_files:
            files = [_File(open_files) for _ in names]
            for i, row in rows:
                for name, samples, file, array in zip(names, found, files, row, strict=True):
                    size = _bytes(array)
                    if self.held + size <= self.limit:
                        self._in_memory.setdefault(name, {})[i] = size
                        self.held += size
                    elif isinstance(array, np.ndarray) and not array.dtype.hasobject:
                        file.write(i, array)
                        continue
                    samples[i] = array
            for samples, file in zip(found, files, strict=True):
                for i, view in file.views():
                    samples[i] = view
        self._tensors.update(zip(names, found, strict=True))

    def __getitem__(self, name: str) -> Samples:
        return self._tensors[name]

    def forget(self, name: str, i: int) -> None:
        """Let go of one sample of a tensor."""
        self._tensors[name][i] = np.empty(0)
        self.held -= self._in_memory.get(name, {}).pop(i, 0)

    def drop(self, name: str) -> None:
        """Forget a tensor; its memory or file space is free again."""
        self._tensors.pop(name, None)
        self.held -= sum(self._in_memory.pop(name, {}).values())

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._tensors):
            self.drop(name)


class _File:
    """Arrays of one tensor in a file without a name: the system removes it with the last array that looks into it."""

    def __init__(self, open_files: ExitStack) -> None:
        self._open_files = open_files
        self._file: Any = None
        self._places: list[tuple[int, np.dtype[Any], tuple[int, ...], int]] = []
        self._size = 0

    def write(self, i: int, array: NDArray[Any]) -> None:
        """Through the file: where a mapped page finds no room on the disk, the process is killed."""
        if self._file is None:
            file = tempfile.TemporaryFile(prefix="quark_onnx-")  # noqa: SIM115  closed with the others
            self._file = self._open_files.enter_context(file)
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._places.append((i, array.dtype, array.shape, self._size))
        self._size += array.nbytes

    def views(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """What was written, mapped."""
        if self._file is None:
            return
        self._file.flush()
        block = np.memmap(self._file, np.uint8, "r+", shape=(self._size,))
        for i, dtype, shape, start in self._places:
            size = int(np.prod(shape)) * dtype.itemsize
            yield i, block[start : start + size].view(dtype).reshape(shape)


def _bytes(sample: Any) -> int:
    """Size of an array, or of all arrays of a sequence."""
    return sum(map(_bytes, sample)) if isinstance(sample, list) else int(getattr(sample, "nbytes", 0))
