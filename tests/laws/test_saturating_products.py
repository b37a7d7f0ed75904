"""Sums of 8-bit products as x64 without VNNI adds them, against the instruction written out pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quark_onnx.numerics import saturating_products
from quark_onnx.numerics.saturating_products import exact_product, saturating_product
from quark_onnx.numerics.weight_pairs import UNSIGNED_LIMIT, unsafe_pairs

LARGE = np.array([-128, -127, -65, -64, -1, 0, 1, 63, 64, 65, 126, 127], np.int8)
BYTES = np.array([0, 1, 2, 127, 128, 129, 254, 255], np.uint8)


def by_pairs(x: NDArray[np.uint8], w: NDArray[np.int8], run: int | None = None) -> NDArray[np.int64]:
    """vpmaddubsw, then vpmaddwd and vpaddd: two products of a run, clipped to 16 bits, and the sum of those."""
    sums = np.zeros((*x.shape[:2], w.shape[1]), np.int64)
    for start in range(0, x.shape[-1], run or x.shape[-1]):
        end = start + (run or x.shape[-1])
        for i in range(start, end, 2):
            some = slice(i, min(i + 2, end))
            pair = np.einsum("gnk,grk->gnr", x[:, :, some].astype(np.int64), w[:, :, some].astype(np.int64))
            sums += np.clip(pair, -(2**15), 2**15 - 1)
    return sums


@st.composite
def sides(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    groups, n, rows, k = (draw(st.integers(1, most)) for most in (3, 4, 5, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.choice(BYTES, (groups, n, k)), rng.choice(LARGE, (groups, rows, k))


@given(sides())
def test_pairs_are_clipped_and_nothing_else(case: tuple[NDArray[np.uint8], NDArray[np.int8]]) -> None:
    x, w = case
    np.testing.assert_array_equal(saturating_product(x, w), by_pairs(x, w))
    np.testing.assert_array_equal(exact_product(x, w), x.astype(int) @ w.astype(int).swapaxes(1, 2))


@given(sides(), st.sampled_from([1, 2, 3, 5]))
def test_pairs_of_runs_are_clipped_and_nothing_else(case: tuple[NDArray[np.uint8], NDArray[np.int8]], run: int) -> None:
    x, w = (np.tile(side, run) for side in case)
    np.testing.assert_array_equal(saturating_product(x, w, run), by_pairs(x, w, run))


def test_long_sums_and_blocks_are_exact() -> None:
    """Sums beyond 2²⁴ need float64, and x that is looked at in several blocks gives the same."""
    x = np.full((1, 3, 4001), 255, np.uint8)
    w = np.where(np.arange(4001) % 3 == 2, -1, 127).astype(np.int8)[None, None]
    assert exact_product(x, w)[0, 0, 0] == 255 * int(w.sum(dtype=int)) > 2**24
    np.testing.assert_array_equal(saturating_product(x, w), by_pairs(x, w))
    held = saturating_products.BLOCK
    try:
        saturating_products.BLOCK = 4001
        np.testing.assert_array_equal(saturating_product(x, w), by_pairs(x, w))
    finally:
        saturating_products.BLOCK = held


def test_a_pair_is_unsafe_just_where_some_input_clips_it() -> None:
    """All pairs of signed weights, against the inputs that make the largest and the lowest sum."""
    w = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), -1)
    highest, lowest = 255 * np.maximum(w, 0).sum(-1), 255 * np.minimum(w, 0).sum(-1)
    np.testing.assert_array_equal(unsafe_pairs(w, 2)[..., 0], (highest > 2**15 - 1) | (lowest < -(2**15)))


def test_the_same_of_unsigned_weights() -> None:
    """They meet inputs of −128 to 127."""
    w = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1)
    clipped = (127 * w.sum(-1) > 2**15 - 1) | (-128 * w.sum(-1) < -(2**15))
    np.testing.assert_array_equal(unsafe_pairs(w, 2, UNSIGNED_LIMIT)[..., 0], clipped)
