"""How often the upper halves of float32 numbers occur, kept octave by octave: 128 bins that share sign and exponent.

A tensor fills some twenty of the 512 octaves, and nearly always the same ones again: counts of new values are added to
those alone, and whether that was all of them, their sum tells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 16
OCTAVE = 128  # bins per power of two
CHUNK = 1 << 17  # values counted at a time: their indices take a MB


class OctaveCounts:
    """Counts of 65,536 bins, in memory for those octaves that hold values."""

    def __init__(self) -> None:
        self.total = 0
        self._octaves = np.zeros(0, np.intp)  # ascending
        self._counts: NDArray[np.uint32] | NDArray[np.int64] = np.zeros((0, OCTAVE), np.uint32)

    def add(self, bins: NDArray[np.uint16]) -> None:
        """Count these as well."""
        self.total += bins.size
        if self.total > np.iinfo(self._counts.dtype).max:
            self._counts = self._counts.astype(np.int64)
        for start in range(0, bins.size, CHUNK):
            self._add_chunk(bins[start : start + CHUNK])

    def dense(self) -> NDArray[np.int64]:
        """(BINS,) how often each bin occurs."""
        found = np.zeros(BINS, np.int64)
        found.reshape(-1, OCTAVE)[self._octaves] = self._counts
        return found

    def _add_chunk(self, bins: NDArray[np.uint16]) -> None:
        known = OCTAVE * (int(self._octaves[-1]) + 1) if self._octaves.size else 0
        found = np.bincount(bins, minlength=known)
        if found.size % OCTAVE:
            found = np.pad(found, (0, -found.size % OCTAVE))
        rows = found.reshape(-1, OCTAVE)
        if (new := rows[self._octaves]).sum() < bins.size:
            self._include(np.flatnonzero(rows.any(axis=1)))
            new = rows[self._octaves]
        np.add(self._counts, new, out=self._counts, casting="unsafe")  # `add` sees to it that the sums fit

    def _include(self, octaves: NDArray[np.intp]) -> None:
        together = np.union1d(self._octaves, octaves)
        counts = np.zeros((together.size, OCTAVE), self._counts.dtype)
        counts[np.searchsorted(together, self._octaves)] = self._counts
        self._octaves, self._counts = together, counts
