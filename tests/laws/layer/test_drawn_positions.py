"""Positions are drawn fairly, and what is read at them is what each sample alone has there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.layer.drawn_positions import Samples, counts_of, drawn, read
from quark_onnx.numerics.layer.im2col import ConvShape, every_position, patches

law = settings(deadline=None, max_examples=50)
SHAPE = ConvShape((3, 2), (2, 1), (1, 0, 1, 1), (1, 2), group=2)


@law
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 70), st.integers(0, 99))
def test_positions_are_distinct_in_order_and_as_many_as_there_are(counts: list[int], per: int, seed: int) -> None:
    at, again = (drawn(counts, per, np.random.default_rng(seed)) for _ in range(2))
    for count, some, same in zip(counts, at, again, strict=True):
        assert len(some) == min(per, count)
        assert np.all(np.diff(some) > 0) and some[0] >= 0 and some[-1] < count
        np.testing.assert_array_equal(some, same)


@pytest.mark.parametrize("per", [1, 2, 3, 4])
def test_every_set_is_as_likely_as_any_other(per: int) -> None:
    """Of 5: a set's count is binomial; six standard deviations are passed once in 10⁸ tries."""
    tries = 20000
    found = Counter(tuple(row) for row in drawn([5] * tries, per, np.random.default_rng(0)))
    sets = [5, 10, 10, 5][per - 1]
    assert len(found) == sets
    expected = tries / sets
    assert all(abs(count - expected) < 6 * expected**0.5 for count in found.values())


def test_other_seeds_draw_others_and_samples_differ() -> None:
    one, other = (drawn([100, 100], 10, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one[0], other[0])


@law
@given(st.lists(st.sampled_from([(6, 5), (5, 7), (9, 4)]), min_size=1, max_size=6), st.data())
def test_a_sample_reads_among_others_what_it_reads_alone(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Of several sizes, in any order, padded; codes are dequantized, and padding is 0 on both sides."""
    rng = np.random.default_rng(len(sizes))
    x = [rng.standard_normal((4, *size)).astype(np.float32) for size in sizes]
    codes = [np.clip(np.rint(one / 0.05) - 7, -128, 127).astype(np.int8) for one in x]
    gone: list[Any] = []
    samples = Samples(x, codes, 0.05, -7, gone.append)
    counts = counts_of(samples, SHAPE, 0)
    assert counts == [int(np.prod(SHAPE.output_size(size))) for size in sizes]
    at = drawn(counts, data.draw(st.integers(1, 20)), rng)
    which = data.draw(st.permutations(range(len(sizes))))[: data.draw(st.integers(1, len(sizes)))]
    found_x, found_z = read(samples, which, at, SHAPE, 12)
    assert found_x.dtype == found_z.dtype == np.float32
    start = 0
    for i in which:
        positions = every_position(SHAPE.output_size(sizes[i]))[at[i]]
        part = slice(start, start + len(at[i]))
        np.testing.assert_array_equal(found_x[:, part], patches(x[i], positions, SHAPE))
        want = (patches(codes[i], positions, SHAPE, fill=-7).astype(np.float32) + 7) * np.float32(0.05)
        np.testing.assert_array_equal(found_z[:, part], want)
        start = part.stop
    assert found_x.shape == (2, start, 12)
    assert sorted(map(id, gone)) == sorted(id(side[i]) for side in (x, codes) for i in which)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.uint8, np.int16])
def test_rows_of_a_matrix(kind: type[np.generic]) -> None:
    x = [np.arange(24).reshape(2, 3, 4).astype(np.float16), 100 + np.arange(8).reshape(2, 4).astype(np.float16)]
    gone: list[Any] = []
    samples = Samples(x, [one.astype(kind) for one in x], 2.0, 1, gone.append)
    assert counts_of(samples, None, 4) == [6, 2]
    at = [np.array([1, 5]), np.array([0])]
    found_x, found_z = read(samples, [1, 0], at, None, 4)
    want = np.concatenate([x[1][[0]], x[0].reshape(6, 4)[[1, 5]]])[None].astype(np.float32)
    np.testing.assert_array_equal(found_x, want)
    np.testing.assert_array_equal(found_z, (want - 1) * 2)
    assert sorted(map(id, gone)) == sorted(id(side[i]) for side in (samples.x, samples.codes) for i in (0, 1))
