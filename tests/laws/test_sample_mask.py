"""What counts of samples, by any mask: each position that does once, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.sample_mask import counting, marks_of
from quark_onnx.engine.trimmed_feeds import Layout
from quark_onnx.graph.mask_inputs import MaskInput

MASK = MaskInput("mask", "zero")
SPECS = [InputSpec(name, np.dtype(np.int64), (None, None)) for name in ("ids", "mask")]
bits = st.tuples(st.integers(1, 4), st.integers(2, 7)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 1))
)


@given(bits)
def test_marks_are_those_of_a_mask_however_it_is_shaped(mask: np.ndarray) -> None:
    wanted = mask > 0 if mask.any() else np.ones_like(mask, bool)
    alike = (mask, mask[:, None, None], np.repeat(mask[:, None, None], 3, 2), mask.astype(np.float32), mask > 0)
    for array in alike:
        assert np.array_equal(marks_of(MASK, array), wanted)
    added = np.where(mask == 0, np.float32(-1e4), np.float32(0))
    assert np.array_equal(marks_of(MASK, added), wanted if (mask == 0).any() and mask.any() else np.ones_like(wanted))
    assert np.array_equal(marks_of(MaskInput("mask", "nonzero"), 1 - mask), wanted)


@given(bits)
def test_cut_feeds_hold_what_counts_once(mask: np.ndarray) -> None:
    ids = np.arange(1, mask.size + 1).reshape(mask.shape)
    feed, marks = {"ids": ids, "mask": mask}, marks_of(MASK, mask)
    layout = Layout.of(SPECS, [{name: array.shape for name, array in feed.items()}], [marks])
    made = [layout.cut(feed, part) for part in layout.parts(marks)]
    found = np.concatenate([part["ids"][marks_of(MASK, part["mask"])] for part in made])
    assert sorted(found) == sorted(ids[marks])
    holes = any(np.ptp(np.flatnonzero(row)) + 1 > row.sum() for row in marks if row.any())
    if layout.samples and not holes:
        assert all(marks_of(MASK, part["mask"]).all() for part in made)


@given(bits, st.integers(1, 3))
def test_parts_that_count_along_any_axis(mask: np.ndarray, axis: int) -> None:
    marks = marks_of(MASK, mask)
    x = np.arange(marks.size * 6).reshape(*marks.shape, 2, 3)
    turned = np.moveaxis(x, 1, axis)
    parts = counting(turned, (axis,), marks)
    found = np.concatenate([np.moveaxis(part, axis, 1).reshape(-1, 2, 3) for part in parts])
    assert np.array_equal(found, x[marks])
    assert counting(turned, (), marks)[0] is turned


def test_a_position_that_one_query_reads_counts() -> None:
    causal = np.tril(np.ones((1, 1, 3, 5), np.int64))
    assert marks_of(MASK, causal).tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_a_row_of_numbers_is_one_sample(dtype: type) -> None:
    assert marks_of(MASK, np.array([1, 1, 0], dtype)).tolist() == [[True, True, False]]
