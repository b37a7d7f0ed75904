"""What an output is worth: every type of value, slices of channels, classes; and nothing is never exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quark_onnx.core.json_writing import plain
from quark_onnx.core.records import Measured, Slice, least_alike
from quark_onnx.numerics.channel_slices import LEAST, channel_axis
from quark_onnx.numerics.metrics import divergences
from quark_onnx.numerics.output_measures import OutputMeasure


def measured(*pairs: tuple[Any, Any], declared: tuple[int | None, ...] | None = None) -> Measured:
    found = OutputMeasure(declared)
    for x, y in pairs:
        found.add(x, y)
    return found.measured


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# values that are no floats


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.arange(8), np.arange(8) + 100 * (np.arange(8) == 3)),
        (np.arange(8, dtype=np.uint8), np.arange(8, dtype=np.int64) + (np.arange(8) == 3)),
        (np.zeros(8, bool), np.arange(8) == 3),
        (np.array(list("abcdefgh"), object), np.array(list("abcxefgh"), object)),
        ([np.arange(4), np.arange(4)], [np.arange(4), np.array([0, 1, 2, 7])]),
        ({"a": np.arange(7), "b": 3}, {"a": np.arange(7), "b": 4}),
    ],
    ids=["integers", "two types", "bool", "text", "sequence", "map"],
)
def test_a_share_of_equal_values_counts_as_decibels(x: Any, y: Any) -> None:
    """One of eight differs, by however much: noise of an eighth of the signal."""
    one = measured((x, y))
    assert (one.values, one.equal, one.sqnr, one.worst) == (8, 7 / 8, None, None)
    assert one.db == pytest.approx(10 * math.log10(8))
    assert (same := measured((x, x))).equal == 1 and same.db == math.inf


@given(st.lists(st.tuples(arrays(np.int8, 6), arrays(np.int8, 6)), min_size=1, max_size=4))
def test_shares_add(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    whole = tuple(np.concatenate(side) for side in zip(*pairs, strict=True))
    assert measured(*pairs) == measured(whole)


@pytest.mark.parametrize(
    "nothing", [np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], {}, None, np.full(3, np.nan, np.float32)]
)
def test_nothing_is_never_exact(nothing: Any) -> None:
    one = measured((nothing, nothing))
    assert (one.values, one.db, one.sqnr, one.equal) == (0, None, None, None)
    assert measured().db is None


@pytest.mark.parametrize(
    ("x", "y", "share"),
    [
        (np.ones((5, 3), np.int64), np.ones((4, 3), np.int64), 12 / 15),
        (np.ones((4, 3), np.int64), np.ones((5, 3), np.int64), 12 / 15),
        (np.ones((5, 3), np.int64), np.ones(15, np.int64), 0),
        ([np.ones(3, bool)] * 2, [np.ones(3, bool)], 1 / 2),
        (np.ones(3, np.int64), np.zeros(0, np.int64), 0),
    ],
)
def test_what_is_missing_is_not_equal(x: Any, y: Any, share: float) -> None:
    one = measured((x, y))
    assert one.equal == pytest.approx(share) and one.shapes is not None


@given(arrays(np.float32, (3, 4), elements=st.floats(1, 100, width=32)), st.integers(0, 2))
def test_what_is_missing_of_floats_is_noise(x: np.ndarray, kept: int) -> None:
    """The values that one of the two lacks are zeros there: what they hold is lost."""
    powers = np.square(x.astype(np.float64))
    whole, some = float(powers.sum()), float(powers[:kept].sum())
    assert measured((x, x[:kept])).sqnr == pytest.approx(10 * math.log10(whole / (whole - some)))
    longer = measured((x[:kept], x)).sqnr
    assert longer == (pytest.approx(10 * math.log10(some / (whole - some))) if kept else -math.inf)
    assert measured((x, x.ravel())).sqnr == pytest.approx(10 * math.log10(1 / 2))  # all of both


def test_values_that_are_not_finite_are_counted() -> None:
    x, y = normal(4), normal(4)
    y[1] = np.nan
    one = measured((x, y))
    assert (one.lost, one.infinite, one.sqnr) == (1, 0, -math.inf)
    x[1] = np.nan
    one = measured((x, y))
    assert (one.lost, one.infinite, one.sqnr, one.values) == (0, 1, math.inf, 3)


# slices


def detector(step: float, order: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Boxes up to 640 and scores up to 1, all on one grid."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 640, (1, 4, 700)), rng.uniform(0, 1, (1, 6, 700))], 1).astype(np.float32)
    return x.transpose(order), (np.round(x / step) * step).transpose(order)


@pytest.mark.parametrize(("order", "axis"), [((0, 1, 2), 1), ((0, 2, 1), 2)])
def test_scores_that_are_lost_are_seen_behind_boxes(order: tuple[int, ...], axis: int) -> None:
    one = measured(detector(2.5, order))
    assert one.sqnr is not None and one.sqnr > 50
    assert one.worst is not None and one.worst.axis == axis and one.worst.index >= 4
    assert one.worst.sqnr == pytest.approx(0, abs=0.1)
    assert one.db == one.worst.sqnr


def test_slices_add() -> None:
    x, y = detector(0.1)
    parts = [(x[..., start : start + 100], y[..., start : start + 100]) for start in range(0, 700, 100)]
    whole, cut = measured((x, y)).worst, measured(*parts).worst
    assert whole is not None and cut is not None
    assert (cut.axis, cut.index) == (whole.axis, whole.index)
    assert cut.sqnr == pytest.approx(whole.sqnr, rel=1e-9)  # sums of 700 float64 in another order


@given(st.integers(2, 6), st.integers(0, 5), st.floats(0.02, 0.5))
def test_the_worst_slice_is_the_one_with_the_noise(channels: int, at: int, noise: float) -> None:
    x = normal(1, channels, LEAST)
    y = x + 0.01 * normal(1, channels, LEAST, seed=1)
    y[0, at % channels] = x[0, at % channels] + 2 * noise * normal(LEAST, seed=2)
    one = measured((x, y))
    assert one.worst is not None and one.worst.index == at % channels
    signal, error = (np.square(v.astype(np.float64)[0, at % channels]).sum() for v in (x, x - y))
    assert one.worst.sqnr == pytest.approx(10 * math.log10(signal / error), rel=1e-4)


@pytest.mark.parametrize(
    ("slices", "counted"),
    [
        (np.zeros(LEAST), False),  # dead
        (np.full(LEAST, 1e-4) * normal(LEAST), False),  # of the same unit, and too faint for its format
        (np.full(LEAST, 0.5) * normal(LEAST), True),
        (np.abs(normal(LEAST)).clip(0, 0.001), False),  # a class that no sample shows, beside one that they do
        (np.abs(normal(LEAST)).clip(0, 0.6), True),
    ],
    ids=["zeros", "faint", "loud", "absent class", "class"],
)
def test_slices_that_hold_nothing_do_not_count(slices: np.ndarray, counted: bool) -> None:
    x = normal(1, 4, LEAST)
    x[0, 0] = np.abs(x[0, 0]).clip(0, 1)
    x[0, 3] = slices
    y = x + 0.003 * normal(1, 4, LEAST, seed=3)
    y[0, 3] = 0.01
    one = measured((x, y)).worst
    assert one is not None and (one.index == 3) == counted
    assert one.sqnr > -40


def test_a_dead_channel_among_loud_ones_does_not_count() -> None:
    x = normal(1, 3, LEAST)
    x[0, 1] = 0
    one = measured((x, x + np.float32(0.01))).worst
    assert one is not None and one.index != 1 and one.sqnr > 30


def test_classes_on_a_few_samples_are_no_slices() -> None:
    """16 numbers of each of 1,000 classes: the worst is 7.5 dB below the whole by chance alone."""
    x = normal(16, 1000)
    noise = 0.1 * normal(16, 1000, seed=1)
    assert measured(*zip(x[:, None], (x + noise)[:, None], strict=True)).worst is None
    y = np.tile(x, (LEAST // 16, 1))
    assert measured((y, y)).worst is not None


def test_chance_costs_the_worst_of_many_slices_two_decibels() -> None:
    """What `LEAST` is derived from: 3.5 standard deviations of .54 dB."""
    x = normal(1, 4096, LEAST)
    one = measured((x, x + 0.1 * normal(1, 4096, LEAST, seed=1)), declared=(1, 4096, None))
    assert one.worst is not None and one.sqnr is not None
    assert 1.0 < one.sqnr - one.worst.sqnr < 2.6


@pytest.mark.parametrize(
    ("shape", "declared", "axis"),
    [
        ((16, 10), None, 1),
        ((1, 84, 8400), None, 1),
        ((1, 8400, 85), None, 2),
        ((1, 128, 384), (None, None, 384), 2),
        ((1, 21, 64, 64), None, 1),
        ((1, 64, 64, 21), None, 3),
        ((1, 17, 64, 48), None, 1),
        ((1, 512, 7, 7), None, 1),
        ((1, 1, 48, 64), None, 1),
        ((1, 21, 30, 400), (1, 21, None, None), 1),
        ((1, 4, 8, 32, 32), None, 1),
        ((7,), None, None),
        ((), None, None),
        ((2, 0, 3), None, 1),
    ],
)
def test_the_axis_of_channels(shape: tuple[int, ...], declared: tuple[int | None, ...] | None, axis: int) -> None:
    assert channel_axis(shape, declared) == axis


def test_an_axis_whose_length_changes_holds_no_channels() -> None:
    pairs = [(normal(1, 9, 300), normal(1, 9, 300)), (normal(1, 8, 300), normal(1, 8, 300))]
    assert measured(*pairs).worst is None
    assert measured(pairs[0]).worst is not None


# classes


def test_classes_of_logits() -> None:
    x = np.array([[3.0, 1, 0], [0, 2, 1]], np.float32)
    y = np.array([[3.0, 1, 0], [0, 1, 2]], np.float32)
    one = measured((x, y))
    assert one.agreement == 0.5
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x.astype(np.float64), y.astype(np.float64)))
    assert one.kl == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert measured((x[:, None], y[:, None])).agreement is None  # of three axes it is not known


@pytest.mark.parametrize("axis", [1, 2])
def test_classes_of_distributions_of_three_axes(axis: int) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), (3, 7))
    q = np.random.default_rng(1).dirichlet(np.ones(5), (3, 7))
    one = measured(tuple(np.moveaxis(v, 2, axis).astype(np.float32) for v in (p, q)))
    assert one.agreement == pytest.approx((p.argmax(2) == q.argmax(2)).mean())
    assert one.kl == pytest.approx((p * np.log(p / q)).sum(2).mean(), rel=1e-4)


def test_classes_of_a_segmentation_are_its_channels() -> None:
    x, y = normal(2, 5, 40, 40), normal(2, 5, 40, 40, seed=1)
    one = measured((x, y))
    assert one.agreement == (x.argmax(1) == y.argmax(1)).mean()
    rows = [np.moveaxis(v, 1, 3).reshape(-1, 5).astype(np.float64) for v in (x, y)]
    assert one.kl == pytest.approx(divergences(*rows).mean())


def test_masked_logits_are_no_classes_and_nothing_else() -> None:
    x = np.array([[1.0, -np.inf, 0.0]], np.float32)
    one = measured((x, x + np.float32(1)))
    assert one.agreement == 1 and one.kl == pytest.approx(0, abs=1e-6)
    assert measured((x, np.full_like(x, np.nan))).kl == math.inf


# the record


@pytest.mark.parametrize(
    "one",
    [
        Measured(),
        Measured(7, math.inf, worst=Slice(1, 4, -math.inf), agreement=1.0, kl=math.inf),
        Measured(7, equal=0.5, shapes=("[1, 2]", "[2]"), lost=3, infinite=2),
    ],
)
def test_a_record_reads_back(one: Measured) -> None:
    assert Measured.from_dict(plain(one)) == one


def test_of_several_outputs_the_one_whose_classes_diverge_most_is_told() -> None:
    near, far, none = Measured(4, agreement=0.5, kl=0.1), Measured(4, agreement=1.0, kl=0.2), Measured(4, 3.0)
    assert least_alike({"a": near, "b": none, "c": far}) is far
    assert least_alike({"b": none}) == least_alike({}) == Measured()
    assert least_alike({"a": near, "b": Measured(4, agreement=0.0, kl=math.inf)}).kl == math.inf
    assert least_alike({"a": Measured(4, agreement=1.0, kl=0.0), "b": none}).agreement == 1
