"""Counting octave by octave is counting: what numpy's bincount finds in all that was added, in any pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.ranges.octave_counts import BINS, CHUNK, OCTAVE, OctaveCounts

edge_bins = (0, OCTAVE - 1, OCTAVE, 0x7F7F, 0x7F80, 0x8000, BINS - OCTAVE, BINS - 1)
bins = st.lists(st.one_of(st.sampled_from(edge_bins), st.integers(0, BINS - 1)), max_size=20)


def plain(parts: list[np.ndarray]) -> np.ndarray:
    return np.bincount(np.concatenate([*parts, np.zeros(0, np.uint16)]), minlength=BINS)


@settings(deadline=None, max_examples=60)
@given(st.lists(bins, max_size=5))
def test_the_counts_are_those_of_bincount(lists: list[list[int]]) -> None:
    """Octaves appear below, between and above those that are known, and alone."""
    counts, parts = OctaveCounts(), [np.array(part, np.uint16) for part in lists]
    for part in parts:
        counts.add(part)
    np.testing.assert_array_equal(counts.dense(), plain(parts))
    assert counts.total == sum(part.size for part in parts)


def test_several_chunks_of_a_view_with_strides() -> None:
    values = np.random.default_rng(0).standard_normal(2 * CHUNK + 3, np.float32)
    upper = values.view(np.uint16)[1::2]
    counts = OctaveCounts()
    counts.add(upper)
    counts.add(upper[:5])
    np.testing.assert_array_equal(counts.dense(), plain([upper, upper[:5]]))


def test_counts_beyond_32_bits() -> None:
    """As after 2³² − 2 values in one bin: the next three do not begin again at 0."""
    counts = OctaveCounts()
    counts.add(np.full(1, 7, np.uint16))
    counts._counts[0, 7] = counts.total = 2**32 - 2
    counts.add(np.full(3, 7, np.uint16))
    assert counts.dense()[7] == counts.total == 2**32 + 1
    counts.add(np.full(1, BINS - 1, np.uint16))
    assert counts.dense()[[7, BINS - 1]].tolist() == [2**32 + 1, 1]
