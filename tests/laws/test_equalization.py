"""Equalization leaves the function as it is, evens out the ranges, and keeps away from the clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.numerics.channel_importance import energies, through
from quark_onnx.numerics.equalization import (
    LIMIT,
    MARGIN,
    Link,
    ceiling_of,
    channel_matrix,
    equalize,
    high_bias_absorption,
    magnitudes,
)

law = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**16)
C = 8
FREE = (np.full(C, LIMIT), np.zeros(C, bool))


def dense(rng: np.random.Generator, outputs: int, inputs: int) -> np.ndarray:
    """(1, R, K) with channels of very different size."""
    spread = 10 ** rng.uniform(-1.5, 1.5, (outputs, 1)) * 10 ** rng.uniform(-1.5, 1.5, inputs)
    return (rng.standard_normal((1, outputs, inputs)) * spread).astype(np.float32)


def affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(n, G·C) → (n, G·R) in float64."""
    groups, _, inputs = weight.shape
    z = x.reshape(len(x), groups, inputs).astype(np.float64)
    return (np.einsum("ngk,grk->ngr", z, weight.astype(np.float64)) + bias).reshape(len(x), -1)


def scale_outputs(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A producer's weight (G, R, K) or bias (G, R), times t (G·R,)."""
    return np.asarray(rows * t.reshape(rows.shape[0], rows.shape[1], *[1] * (rows.ndim - 2)), np.float32)


def scale_inputs(rows: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A consumer's weight (G, R, K) by input channel, divided by t (G·C,)."""
    groups, outputs, _ = rows.shape
    by_channel = rows.reshape(groups, outputs, t.size // groups, -1)
    return np.asarray(by_channel / t.reshape(groups, 1, -1, 1), np.float32).reshape(rows.shape)


def assert_same_function(got: np.ndarray, want: np.ndarray) -> None:
    """Each scaled weight is rounded to float32 (2⁻²⁴) twice at most; three layers of sums may cancel a digit or two."""
    np.testing.assert_allclose(got, want, rtol=0, atol=160 * 2.0**-24 * np.abs(want).max())


@law
@given(seeds, st.sampled_from([np.inf, 6.0]))
def test_three_layers_keep_their_function_and_the_clip(seed: int, upper: float) -> None:
    """dense → clip → depthwise → clip → dense; the data of the ceiling are the data of the test."""
    rng = np.random.default_rng(seed)
    w1, w2, w3 = dense(rng, C, 5), rng.standard_normal((C, 1, 1)).astype(np.float32), dense(rng, 3, C)
    b1, b2 = rng.standard_normal((1, C)).astype(np.float32), rng.standard_normal((C, 1)).astype(np.float32)
    x = rng.standard_normal((200, 5)).astype(np.float32)

    def network(w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray, w3: np.ndarray) -> list[np.ndarray]:
        first = affine(x, w1, b1)
        second = affine(np.clip(first, 0, upper), w2, b2)
        return [first, second, affine(np.clip(second, 0, upper), w3, np.zeros(3))]

    first, second, want = network(w1, b1, w2, b2, w3)
    limits = [ceiling_of(v.max(0), v.min(0), upper) for v in (first, second)]
    sizes = [magnitudes(w1, 5), magnitudes(w2, 1), magnitudes(w3, C)]
    t, u = equalize(sizes, [Link((0,), (1,), *limits[0]), Link((1,), (2,), *limits[1])])
    for total, (ceiling, fixed) in zip((t, u), limits, strict=True):
        assert np.all(total[fixed] == 1)
        assert np.all(total <= ceiling * (1 + 1e-12))
    scaled = (scale_outputs(w1, t), scale_outputs(b1, t), scale_outputs(scale_inputs(w2, t), u), scale_outputs(b2, u))
    assert_same_function(network(*scaled, scale_inputs(w3, u))[2], want)
    if np.isinf(upper):  # then nothing holds the ranges apart
        r2, r3 = np.abs(scaled[2]).max((1, 2)), np.abs(scale_inputs(w3, u)).max((0, 1))
        np.testing.assert_allclose(np.abs(scaled[0]).max((0, 2)), r2, rtol=0.01)
        np.testing.assert_allclose(r2, r3, rtol=0.01)


def test_a_residual_group_shares_one_t() -> None:
    """relu(a + b) with a, b from two layers, read by two: all four scale together."""
    rng = np.random.default_rng(1)
    a, b, c, d = dense(rng, C, 5), dense(rng, C, 5), dense(rng, 4, C), dense(rng, 6, C)
    x, zero = rng.standard_normal((50, 5)).astype(np.float32), np.zeros(1)

    def network(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        y = np.maximum(affine(x, a, zero) + affine(x, b, zero), 0)
        return np.concatenate([affine(y, c, zero), affine(y, d, zero)], 1)

    sizes = [magnitudes(w, w.shape[2]) for w in (a, b, c, d)]
    (t,) = equalize(sizes, [Link((0, 1), (2, 3), *FREE)])
    scaled = scale_outputs(a, t), scale_outputs(b, t), scale_inputs(c, t), scale_inputs(d, t)
    assert_same_function(network(*scaled), network(a, b, c, d))
    r1 = np.maximum(*(np.abs(w).max((0, 2)) for w in scaled[:2]))
    r2 = np.maximum(*(np.abs(w).max((0, 1)) for w in scaled[2:]))
    np.testing.assert_allclose(r1, r2, rtol=0.01)


def test_who_is_left_out_and_who_is_not() -> None:
    rng = np.random.default_rng(0)
    w1, w2 = np.abs(dense(rng, C, 5)) + 0.1, np.abs(dense(rng, 3, C)) + 0.1
    w1[0, 0], w1[0, 1] = 0, 1000  # channel 0 is constant; channel 1 has the largest weights
    w2[..., 1] = 0  # and nobody reads it
    fixed = np.zeros(C, bool)
    fixed[2] = True
    (t,) = equalize([magnitudes(w1, 5), magnitudes(w2, C)], [Link((0,), (1,), np.full(C, LIMIT), fixed)])
    assert t[0] == t[2] == 1
    assert t[1] < 1e-2
    after = magnitudes(scale_outputs(w1, t), 5).max(1)
    assert after[1] <= np.median(after)
    assert np.all((t >= 1 / LIMIT) & (t <= LIMIT))


def test_nothing_to_do_for_a_layer_of_zeros() -> None:
    for sizes in ([np.zeros((C, 3)), np.ones((2, C))], [np.ones((C, 3)), np.zeros((2, C))]):
        (t,) = equalize(sizes, [Link((0,), (1,), *FREE)])
        np.testing.assert_array_equal(t, 1)


@pytest.mark.parametrize(
    ("top", "bottom", "upper", "lower", "ceiling", "fixed"),
    [
        (3.0, -9.0, 6.0, 0.0, MARGIN * 2, False),  # up to the clip, less a margin
        (6.0, 0.0, 6.0, 0.0, 1.0, True),  # reaches it
        (5.99, 0.0, 6.0, 0.0, 1.0, False),  # near: may shrink only
        (-2.0, -9.0, 6.0, 0.0, LIMIT, False),  # never positive
        (3.0, -9.0, np.inf, 0.0, LIMIT, False),  # ReLU
        (3.0, -9.0, np.inf, -np.inf, LIMIT, False),  # no clip
        (0.5, -0.25, 1.0, -1.0, MARGIN * 2, False),  # hardtanh, on both sides
        (0.25, -0.5, 1.0, -1.0, MARGIN * 2, False),
        (0.25, -1.5, 1.0, -1.0, 1.0, True),
        (3.0, 1.0, 6.0, 0.5, 1.0, True),  # a lower bound above 0 is no scale-equivariant function
    ],
)
def test_ceiling(top: float, bottom: float, upper: float, lower: float, ceiling: float, fixed: bool) -> None:
    t, held = ceiling_of(np.array([top]), np.array([bottom]), upper, lower)
    np.testing.assert_allclose(t, ceiling, rtol=1e-12)
    assert held.tolist() == [fixed]


def test_channels_of_grouped_and_depthwise_layers() -> None:
    rows = np.arange(2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8) - 20  # 2 groups, 3 outputs, 4 channels · 2 taps
    full = np.zeros((6, 8))
    for g in range(2):
        full[3 * g : 3 * g + 3, 4 * g : 4 * g + 4] = np.abs(rows[g]).reshape(3, 4, 2).max(-1)
    np.testing.assert_array_equal(magnitudes(rows, 4), full)
    depthwise = np.array([[[1.0, -3]], [[2, 0]]], np.float32)
    np.testing.assert_array_equal(magnitudes(depthwise, 1), [3, 2])
    np.testing.assert_array_equal(energies(depthwise, 1), [10, 4])
    np.testing.assert_array_equal(magnitudes(depthwise[:1], 1), [[3]])  # a dense layer of one channel


@law
@given(seeds, st.booleans())
def test_absorbing_a_bias_keeps_the_function(seed: int, depthwise: bool) -> None:
    rng = np.random.default_rng(seed)
    w1, b1 = dense(rng, C, 5), (3 * rng.standard_normal((1, C))).astype(np.float32)
    w2 = rng.standard_normal((C, 1, 1) if depthwise else (1, 3, C)).astype(np.float32)
    x = rng.standard_normal((100, 5)).astype(np.float32)
    v = affine(x, w1, b1)
    want = affine(np.clip(v, 0, 6), w2, np.zeros(1))
    clipped = v.max(0) >= 6
    response = channel_matrix(w2)
    new, delta = high_bias_absorption(b1[0], v.min(0).astype(np.float32), response, clipped)
    assert np.all(new <= b1[0])
    np.testing.assert_array_equal(new[clipped], b1[0, clipped])
    got = affine(np.clip(affine(x, w1, new[None]), 0, 6), w2, np.zeros(1)) + delta
    np.testing.assert_allclose(got, want, atol=1e-5 * (np.abs(v).max() + 6))


def test_gain_is_what_noise_becomes() -> None:
    """Noise of variance 1 in one input channel, measured at the output with its gain."""
    rng = np.random.default_rng(0)
    for weight, inputs in ((rng.standard_normal((1, 6, 4)), 4), (rng.standard_normal((4, 1, 1)), 1)):
        gain = rng.uniform(0, 2, weight.shape[0] * weight.shape[1])
        got = through(energies(weight.astype(np.float32), inputs), gain)
        for c in range(4):
            x = np.zeros((20000, 4))
            x[:, c] = rng.standard_normal(20000)
            noise = (np.square(affine(x, weight, np.zeros(1))).mean(0) * gain).sum()
            np.testing.assert_allclose(noise, got[c], rtol=5 * np.sqrt(2 / 20000))  # five standard errors
