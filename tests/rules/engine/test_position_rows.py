"""Rows of activations: feeds in parts, positions that count, and extremes of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import graph

from quark_onnx.core.plan import Skip
from quark_onnx.engine import position_rows as rows_module
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.position_rows import position_rows
from quark_onnx.graph import Model
from quark_onnx.graph.mask_inputs import MaskInput

MODEL = "(float[B,T,3] x) => (float[B,T,3] y) { h = Abs (x) y = Neg (h) }"


@pytest.fixture
def model() -> Model:
    return graph(MODEL)


def data(count: int = 5, tokens: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, tokens, 3)).astype(np.float32) * (i + 1)} for i in range(count)]


def test_parts_hold_every_so_many_feeds(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PARTS", 2)
    done: list[int] = []
    feeds = data()
    even, odd = position_rows(model, feeds, {"h": 3}, done.append)["h"]
    assert done == [1, 2, 3, 4, 5]
    for part, mine in ((even, feeds[::2]), (odd, feeds[1::2])):
        every = np.abs(np.concatenate([feed["x"].reshape(-1, 3) for feed in mine]))
        np.testing.assert_array_equal(part.rows, every)  # in order: there is room for all
        np.testing.assert_array_equal((part.low, part.high), (every.min(0), every.max(0)))


def test_an_input_of_the_model_needs_no_run(model: Model) -> None:
    feeds = data(2)
    first, _ = position_rows(model, feeds, {"x": 3}, lambda done: None)["x"]
    np.testing.assert_array_equal(first.rows, feeds[0]["x"].reshape(-1, 3))


def test_there_are_no_more_parts_than_feeds(model: Model) -> None:
    counts = [len(position_rows(model, data(n), {"h": 3}, lambda done: None)["h"]) for n in (1, 5, 9)]
    assert counts == [1, 5, 8]


COUNTED = Counted(MaskInput("mask", "zero"), 0.25, Skip("as it is"), {"h": (1,)})


def with_mask(marks: list[list[int]]) -> dict[str, np.ndarray]:
    return {**data(1)[0], "mask": np.array(marks)}


def test_positions_that_do_not_count_are_not_seen() -> None:
    model = graph(MODEL.replace("x)", "x, int64[B,T] mask)", 1))
    feed = with_mask([[1, 0, 1, 0], [0, 0, 0, 1]])
    (only,) = position_rows(model, [feed], {"h": 3}, lambda done: None, COUNTED)["h"]
    every = np.abs(feed["x"])[feed["mask"] > 0]
    np.testing.assert_array_equal(only.rows, every)
    np.testing.assert_array_equal(only.high, every.max(0))


def test_of_no_values_nothing_is_seen(model: Model) -> None:
    (only,) = position_rows(model, [{"x": np.zeros((2, 0, 3), np.float32)}], {"h": 3}, lambda done: None)["h"]
    assert only.rows.shape == (0, 3)
    np.testing.assert_array_equal((only.low, only.high), np.zeros((2, 3)))


def test_rows_are_few_and_the_same_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ROWS", 6)
    monkeypatch.setattr(rows_module, "LEAST", 2)
    feeds = data(3, tokens=50)
    found, again = (position_rows(model, feeds, {"h": 3}, lambda done: None)["h"] for _ in range(2))
    assert [len(part.rows) for part in found] == [2, 2, 2]
    for part, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(part.rows, other.rows)
    monkeypatch.setattr(rows_module, "ROOM", 4 * 3)
    assert sum(len(part.rows) for part in position_rows(model, feeds, {"h": 3}, lambda done: None)["h"]) == 3
