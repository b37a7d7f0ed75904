"""Activations of many samples, by tensor, under a memory budget: what does not fit is kept in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = list[NDArray[Any]]


class Store:
    """tensor → one array per sample. Arrays handed in belong to the store from then on; nobody changes them.

    Args:
        limit: bytes kept in memory. Tensors put beyond it are written to an unnamed temporary file and mapped.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._tensors: dict[str, Samples] = {}
        self._in_memory: dict[str, int] = {}

    def put(self, name: str, samples: Sequence[NDArray[Any]]) -> None:
        """Keep all samples of a tensor, in place of those it had."""
        self.drop(name)
        size = sum(map(_bytes, samples))
        if self.held + size > self.limit and size:
            self._tensors[name] = spilled(samples)
            return
        self._tensors[name] = list(samples)
        self._in_memory[name] = size
        self.held += size

    def __getitem__(self, name: str) -> Samples:
        return self._tensors[name]

    def drop(self, name: str) -> None:
        """Forget a tensor; its memory or file space is free again."""
        self._tensors.pop(name, None)
        self.held -= self._in_memory.pop(name, 0)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._tensors):
            self.drop(name)


def spilled(samples: Sequence[NDArray[Any]]) -> Samples:
    """The samples in a file without a name: the system removes it with the last array that looks into it.

    Strings and sequences, which onnxruntime has as lists, stay in memory.
    """
    size = sum(map(_bytes, samples))
    if not size or any(not isinstance(array, np.ndarray) or array.dtype.hasobject for array in samples):
        return list(samples)
    with tempfile.TemporaryFile(prefix="quark_onnx-") as file:
        for array in samples:  # through the file: where a mapped page finds no room on the disk, the process is killed
            file.write(np.ascontiguousarray(array).tobytes())
        file.flush()
        block = np.memmap(file, np.uint8, "r+", shape=(size,))
    views, start = [], 0
    for array in samples:
        views.append(block[start : start + array.nbytes].view(array.dtype).reshape(array.shape))
        start += array.nbytes
    return views


def _bytes(sample: Any) -> int:
    """Size of an array, or of all arrays of a sequence."""
    return sum(map(_bytes, sample)) if isinstance(sample, list) else int(getattr(sample, "nbytes", 0))
