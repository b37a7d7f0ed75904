"""Data that never change are told, by input; masks, thresholds and lengths beside data that do change are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from text_models import normal

from quark_onnx.engine.calibration_data import CalibrationData, Feed, InputSpec
from quark_onnx.engine.data_variety import Variety

Draw = Callable[[int], Any]

PICTURE = normal(1, 3, 8, 8)
NOISE = 1e-3 * normal(64, 1, 3, 8, 8)
COUNT = 30


def told(count: int = COUNT, **inputs: Draw) -> list[str]:
    """The warnings of samples that are drawn by their index; without what is to be done."""
    variety = Variety()
    for index in range(count):
        variety.add({name: np.asarray(draw(index)) for name, draw in inputs.items()})
    found = list(variety.warnings())
    assert all("such as the model will meet" in line for line in found)
    return [line.partition(":")[0] for line in found]


def fresh(*shape: int, dtype: Any = np.float32, scale: float = 1.0) -> Draw:
    return lambda i: (scale * normal(*shape, seed=i)).astype(dtype)


def same(array: Any) -> Draw:
    return lambda i: array


def tokens(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 1000, (1, 16))


def one_hot(i: int) -> np.ndarray:
    """A large number, as a year, and features that are 0 or 1."""
    row = np.zeros((1, 100), np.float32)
    row[0, 0], row[0, 1 + i] = 2020, 1
    return row


USELESS: dict[str, tuple[dict[str, Draw], str]] = {
    "all zero": ({"x": same(0 * PICTURE)}, "input 'x' is 0.0 everywhere in all 30 samples"),
    "constant": ({"x": same(0 * PICTURE + 1)}, "input 'x' is 1.0 everywhere in all 30 samples"),
    "constant integers": ({"x": same(np.full((1, 16), 7))}, "input 'x' is 7 everywhere in all 30 samples"),
    "one picture": ({"x": same(PICTURE)}, "input 'x' is the same in all 30 samples"),
    "one sentence": ({"x": same(tokens(0))}, "input 'x' is the same in all 30 samples"),
    "one text": ({"x": same(np.array(["a", "b"] * 5, object))}, "input 'x' is the same in all 30 samples"),
    "noise": ({"x": lambda i: PICTURE + NOISE[i]}, "input 'x' is nearly the same in all 30 samples, to 1%"),
    "noise of bytes": (
        {"x": lambda i: (128 + 40 * PICTURE + (NOISE[i] > 0.002)).astype(np.uint8)},
        "input 'x' is nearly the same in all 30 samples, to 1%",
    ),
    "two pictures": ({"x": lambda i: PICTURE * (1 + i % 2)}, "input 'x' has only 2 different samples of 30"),
    "a batch of one picture": ({"x": same(PICTURE.repeat(4, 0))}, "input 'x' is the same in all 120 samples"),
    "one batch again and again": ({"x": same(normal(4, 3, 8, 8))}, "input 'x' is the same in all 30 feeds"),
    "only a length varies": (
        {"x": same(0 * PICTURE), "length": lambda i: np.array([i])},
        "input 'x' is 0.0 everywhere in all 30 samples",
    ),
    "only a size varies": (
        {"x": same(PICTURE), "size": lambda i: np.float32([[640, i]])},
        "input 'x' is the same in all 30 samples",
    ),
    "pictures beside tokens": (
        {"x": same(0 * PICTURE), "ids": tokens},
        "input 'x' is 0.0 everywhere in all 30 samples",
    ),
    "small altogether": ({"x": same(np.float32([[1, 2]]))}, "input 'x' is the same in all 30 samples"),
}
USEFUL: dict[str, dict[str, Draw]] = {
    "pictures": {"x": fresh(1, 3, 8, 8)},
    "batches": {"x": fresh(4, 3, 8, 8)},
    "tokens and a mask": {"ids": tokens, "mask": same(np.ones((1, 16), np.int64)), "types": same(np.zeros((1, 16)))},
    "tokens and a float mask": {"ids": tokens, "mask": same(np.zeros((1, 1, 16, 16), np.float32))},
    "a threshold": {"x": fresh(1, 3, 8, 8), "iou": same(np.float32(0.5)), "k": same(np.int64([100]))},
    "a state that begins with zeros": {"x": fresh(1, 160), "h": same(np.zeros((2, 1, 64), np.float32))},
    "positions": {"x": fresh(1, 16, 4), "positions": same(np.arange(16)[None])},
    "a large number and flags": {"x": one_hot},
    "quiet": {"x": fresh(1, 64, scale=1e-6)},
    "loud offset": {"x": lambda i: 1000 + normal(1, 64, seed=i) * np.float32(30)},
    "near numbers that are codes": {"x": lambda i: 1000 + tokens(i) // 100},
    "two values": {"x": lambda i: np.float32([[i % 2]])},
    "lengths differ": {"x": lambda i: normal(1, 8 + i)},
}


@pytest.mark.parametrize("name", USELESS)
def test_useless_data_are_told(name: str) -> None:
    inputs, says = USELESS[name]
    assert told(**inputs) == [says]


@pytest.mark.parametrize("name", USEFUL)
def test_useful_data_are_not(name: str) -> None:
    assert told(**USEFUL[name]) == []


def test_empty_arrays_do_not_count() -> None:
    assert told(x=lambda i: normal(i % 2, 64, seed=i), past=same(np.zeros((1, 0, 16), np.float32))) == []


def test_every_input_is_told() -> None:
    found = told(left=same(0 * PICTURE), right=same(PICTURE))
    assert [line.split()[1] for line in found] == ["'left'", "'right'"]


def test_one_sample_is_useless_only_if_it_is_one_number() -> None:
    assert told(1, x=same(PICTURE)) == []
    assert told(1, x=same(0 * PICTURE)) == ["input 'x' is 0.0 everywhere in the one sample"]


@pytest.mark.parametrize("last", [PICTURE, 0 * PICTURE, PICTURE + NOISE[0]])
def test_one_other_sample_of_few_is_enough(last: np.ndarray) -> None:
    """The last of the data differs in one number from what was seen all along, and by much."""
    last = last.copy()
    last[0, 0, 0, 0] += 5
    assert told(5, x=lambda i: last if i == 4 else PICTURE) == []


def test_what_settled_is_not_looked_at_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing all of a large data set would take as long as reading it."""
    hashed: list[int] = []

    class Counted:
        def __init__(self, data: bytes, digest_size: int) -> None:
            hashed.append(len(data))
            self.data = data

        def digest(self) -> bytes:
            return self.data

    monkeypatch.setattr("quark_onnx.engine.data_variety.hashlib.blake2b", Counted)
    assert told(1000, x=fresh(1, 16)) == []
    assert len(hashed) <= 8


def test_the_data_warn_at_the_end_of_a_pass_once() -> None:
    data = CalibrationData([{"x": PICTURE}] * 3, (InputSpec("x", np.dtype("f4"), (None, 3, 8, 8)),))
    next(iter(data))
    assert data.warnings == []
    assert len(list(data)) == len(list(data)) == 3
    assert [line.partition(":")[0] for line in data.warnings] == ["input 'x' is the same in all 3 samples"]


def reused() -> Iterator[Feed]:
    """Samples that are written into one buffer, as some readers do."""
    buffer = np.empty((1, 4), np.float32)
    for i in range(5):
        buffer[...] = i, 1, 2, 3
        yield {"x": buffer}


class Rewound:
    """A reader that does so."""

    def __init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        self.items = reused()

    def get_next(self) -> Feed | None:
        return next(self.items, None)


class Again:
    """An iterable that does so."""

    def __iter__(self) -> Iterator[Feed]:
        return reused()


@pytest.mark.parametrize("source", [reused, Rewound, Rewound(), Again(), reused()], ids=range(5))
def test_a_reader_may_write_all_samples_into_one_buffer(source: object) -> None:
    data = CalibrationData(source, (InputSpec("x", np.dtype("f4"), (None, 4)),))
    assert [feed["x"][0, 0] for feed in list(data)] == [0, 1, 2, 3, 4]
