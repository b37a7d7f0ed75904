"""Passes over samples that a crew shares: to the bit what one process finds alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from quantized_models import feeds, graph
from shared_work import PicklingCrew, through_bytes
from text_models import run

from quark_onnx.core.errors import DataError
from quark_onnx.core.plan import Skip
from quark_onnx.engine import crew as crew_module
from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.channel_moments import channel_moments
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import ROOM, TOGETHER, Crew, shards
from quark_onnx.engine.observe import observe
from quark_onnx.engine.position_rows import position_rows
from quark_onnx.graph import Model, weights_apart
from quark_onnx.graph.mask_inputs import MaskInput
from quark_onnx.graph.packed_model import packed, unpacked

TEXT = """(float[N,3,6] x) => (float[N,5] y) <float[4,3,3] w, float[4] b, float[16,5] m> {
    [conv] h = Conv (x, w, b) [relu] a = Relu (h) [flat] f = Flatten (a) [gemm] y = Gemm (f, m) }"""
MASK = Counted(MaskInput("mask", "zero"), 0.5, Skip("it is not cut"), {"x": (1,), "y": (1,)})


def unseen(done: int) -> None:
    """Nobody looks."""


def arrays(found: Any) -> list[Any]:
    """All numbers in results, in a row."""
    if isinstance(found, dict):
        return [array for name, value in found.items() for array in (name, *arrays(value))]
    if isinstance(found, list | tuple):
        return [array for value in found for array in arrays(value)]
    if hasattr(found, "bins"):
        return [found.lo, found.hi, *found.bins]
    return [found]


def assert_shared(look: Callable[[Crew | None], Any]) -> None:
    crew = PicklingCrew()
    alone, shared = arrays(look(None)), arrays(look(crew))
    assert crew.jobs > 1
    assert len(alone) == len(shared)
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("moving", [None, 0.1])
def test_statistics(moving: float | None) -> None:
    model = graph(TEXT)
    data = [{"x": feed["x"] * np.float32(i + 1)} for i, feed in enumerate(feeds(model, count=2 * TOGETHER + 3))]
    data[4] = {"x": data[4]["x"][:0]}
    assert_shared(lambda crew: observe(model, data, ["x", "h", "a", "y"], unseen, moving, crew=crew))


def test_ranges_that_the_largest_values_decide() -> None:
    """Of small values each shard keeps as many as it likes: what decides is the same."""
    model = graph("(float[N,20000] x) => (float[N,20000] y) { y = Abs (x) }")
    rng = np.random.default_rng(1)
    data = [{"x": rng.standard_normal((1, 20000)).astype(np.float32) ** 3} for _ in range(TOGETHER + 4)]

    def decided(crew: Crew | None) -> list[Any]:
        found = observe(model, data, ["x"], unseen, percent={"x": 99.9}, crew=crew)["x"]
        loud = found.bins.filled % (1 << 15) >= np.float32(found.told).view(np.uint32) >> 16
        return [found.lo, found.hi, found.count, *(part[loud][-50:] for part in found.bins)]

    assert_shared(decided)


@pytest.mark.parametrize("count", [TOGETHER + 1, 3 * TOGETHER])
def test_extremes_and_moments_of_channels(count: int) -> None:
    model = graph(TEXT)
    data = feeds(model, count=count)
    assert_shared(lambda crew: channel_extremes(model, data, ["h", "a"], unseen, crew))
    assert_shared(lambda crew: channel_moments(model, data, [("x", 1), ("h", 1)], unseen, None, crew))


def test_positions_that_count() -> None:
    model = graph("(float[B,T,3] x, int64[B,T] mask) => (float[B,T,3] y) { c = Cast <to = 1> (mask) y = Abs (x) }")
    rng = np.random.default_rng(0)
    data: list[dict[str, np.ndarray]] = []
    for i in range(TOGETHER + 5):
        x = rng.standard_normal((2, 6, 3)).astype(np.float32)
        data.append({"x": x, "mask": np.array([[1] * (1 + i % 6) + [0] * (5 - i % 6)] * 2, np.int64)})
    assert_shared(lambda crew: channel_moments(model, data, [("x", 2), ("y", 2)], unseen, MASK, crew))
    assert_shared(lambda crew: position_rows(model, data, {"x": 3, "y": 3}, unseen, MASK, crew))
    assert_shared(lambda crew: observe(model, data, ["x", "y"], unseen, counted=MASK, crew=crew))


def test_progress_counts_feeds() -> None:
    model, seen = graph(TEXT), list[int]()
    observe(model, feeds(model, count=TOGETHER + 2), ["x"], seen.append, crew=PicklingCrew())
    assert seen == list(range(1, TOGETHER + 3))


def test_without_a_feed_there_is_nothing_to_share() -> None:
    model = graph(TEXT)
    for crew in (None, PicklingCrew()):
        with pytest.raises(DataError, match="there is no sample to take ranges of activations from"):
            observe(model, [], ["x"], unseen, crew=crew)


def test_shards_hold_few_feeds_and_few_bytes() -> None:
    small = [{"x": np.zeros(4, np.float32)} for _ in range(2 * TOGETHER + 1)]
    assert [[number for number, _ in shard] for shard in shards(small)] == [
        [*range(TOGETHER)],
        [*range(TOGETHER, 2 * TOGETHER)],
        [2 * TOGETHER],
    ]
    half, huge = np.zeros(ROOM // 2, np.uint8), np.zeros(ROOM + 1, np.uint8)
    assert [len(shard) for shard in shards([{"x": x} for x in (half, half, half, huge, huge, half)])] == [2, 1, 1, 1, 1]
    assert list(shards([])) == []


@pytest.mark.parametrize("large", [False, True])
def test_a_model_goes_through_bytes(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(weights_apart, "ABOVE", 1)
        monkeypatch.setattr(weights_apart, "LARGE", 1)
    model: Model = graph(TEXT)
    parts = packed(model)
    assert len(parts.weights) == (3 if large else 0)
    (feed,) = feeds(model, count=1)
    np.testing.assert_array_equal(run(unpacked(through_bytes(parts)), feed)[0], run(model, feed)[0])


def test_how_samples_are_cut_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = graph(TEXT), []
    data = feeds(model, count=9)
    for together in (1, 2, 5):
        monkeypatch.setattr(crew_module, "TOGETHER", together)
        found.append(arrays(observe(model, data, ["h", "y"], unseen, 0.3, crew=PicklingCrew())))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
