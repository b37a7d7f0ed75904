"""Probes are samples of which nothing was learned, where there are enough; which ones depends on their number alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantized_models import graph

from quark_onnx.core.errors import DataError
from quark_onnx.engine.calibration_data import Feed, InputSpec, open_data
from quark_onnx.engine.held_out_probes import LEAST, PART, PROBES, held_out, read, samples_in
from quark_onnx.engine.runner import input_specs

MODEL = graph("(float[N,2] x) => (float[N,2] y) { y = Relu (x) }")
SPECS = input_specs(MODEL)


def numbered(count: int, batch: int = 1) -> list[Feed]:
    """Feeds that say which they are."""
    return [
        {"x": np.stack([np.full(batch, i, np.float32), np.arange(batch, dtype=np.float32)], 1)} for i in range(count)
    ]


def numbers(feeds: Any) -> list[int]:
    return [int(feed["x"][0, 0]) for feed in feeds]


def split(data: object, limit: int | None = None) -> tuple[list[int], list[int], bool]:
    """Numbers of the feeds that teach and that prove."""
    samples = read(open_data(data, SPECS, limit=limit), MODEL)
    return numbers(samples.taught), numbers(samples.probes), samples.held_out


@given(st.lists(st.integers(1, 40), min_size=1, max_size=120), st.integers(0, 20))
def test_what_is_held_out(rows: list[int], spare: int) -> None:
    first = max(1, len(rows) - spare)
    found = held_out(rows, first)
    assert found == sorted(set(found))
    assert set(found) <= set(range(len(rows)))
    inside = [i for i in found if i < first]
    assert len(inside) <= first // PART  # of what the user asked for most is left to learn from
    if sum(rows) < LEAST:
        assert found == []
    elif first == len(rows) and max(rows) == 1:
        assert len(found) == min(PROBES, len(rows) // PART)
        gaps = np.diff([-1, *found, len(rows)])
        assert gaps.max() <= 2 * (len(rows) // len(found) + 1)  # evenly over the data
    if sum(rows[first:]) >= PROBES:
        assert inside == []


@pytest.mark.parametrize("count", [1, 5, LEAST - 1])
def test_of_few_samples_all_teach_and_the_first_prove(count: int) -> None:
    assert split(numbered(count)) == (list(range(count)), list(range(min(count, PROBES))), False)


def test_of_enough_samples_a_part_is_held_out() -> None:
    taught, probes, held = split(numbered(20))
    assert (probes, held) == ([2, 7, 12, 17], True)
    assert sorted([*taught, *probes]) == list(range(20))
    taught, probes, held = split(numbered(500))
    assert (len(taught), len(probes), held) == (500 - PROBES, PROBES, True)


def test_it_does_not_depend_on_how_the_data_come() -> None:
    array = np.concatenate([feed["x"] for feed in numbered(40)])
    forms: list[Any] = [numbered(40), array, {"x": array}, iter(numbered(40)), lambda: iter(numbered(40))]
    assert len({str(split(form)) for form in forms}) == 1


@pytest.mark.parametrize(
    ("count", "batch", "expected"), [(10, 32, 1), (10, 2, 2), (40, 4, 4), (100, 64, 1), (4, 64, 0)]
)
def test_samples_in_batches_count(count: int, batch: int, expected: int) -> None:
    """Batches stay whole, and of fewer than five none is given away."""
    taught, probes, held = split(numbered(count, batch))
    assert (held, len(taught)) == (expected > 0, count - expected)
    assert len(probes) == (expected or count)


def test_what_lies_beyond_the_limit_is_held_out_first() -> None:
    assert split(numbered(100), limit=50) == (list(range(50)), list(range(50, 66)), True)
    assert split(numbered(100), limit=8) == (list(range(8)), list(range(8, 24)), True)
    assert split(numbered(19), limit=8) == (list(range(8)), list(range(8)), False)
    taught, probes, held = split(numbered(52), limit=50)  # 10 of 52
    assert (len(taught), probes[-2:], len(probes), held) == (42, [50, 51], 10, True)


def test_a_source_that_is_read_once_is_left_alone_beyond_the_limit() -> None:
    """Its owner may go on with it."""
    source = iter(numbered(100))
    taught, probes, _ = split(source, limit=40)
    assert sorted([*taught, *probes]) == list(range(40))
    assert int(next(source)["x"][0, 0]) == 40


@pytest.mark.parametrize("broken", [np.float32([[np.nan, 0]]), "no array", None])
def test_what_is_broken_beyond_the_limit_is_no_error(broken: Any) -> None:
    data: list[Any] = numbered(40)
    data[32] = {"x": broken}
    taught, probes, held = split(data, limit=30)
    assert (len(taught), probes[-2:], held) == (26, [30, 31], True)  # 6 of 32
    with pytest.raises(DataError, match="sample 32"):
        split(data)


def test_a_reader_that_fails_beyond_the_limit() -> None:
    def source() -> Iterator[Feed]:
        yield from numbered(25)
        raise OSError("the disk is gone")

    assert len(split(source, limit=25)[0]) == 20
    with pytest.raises(OSError, match="the disk is gone"):
        split(source)


def test_samples_in_a_feed() -> None:
    assert samples_in({"x": np.zeros((3, 2)), "k": np.zeros(5)}) == 3
    assert samples_in({"k": np.float32(1), "x": np.zeros((3, 2))}) == 3
    assert samples_in({"k": np.float32(1)}) == 1


def rows_of(*rows: int) -> tuple[list[int], list[int]]:
    """Indices of the feeds that teach and that prove, of feeds with so many rows each in their second input."""
    specs = (InputSpec("x", np.dtype(np.float32), (1, 1)), InputSpec("boxes", np.dtype(np.float32), (None, 4)))
    data = [{"x": np.float32([[i]]), "boxes": np.full((n, 4), i, np.float32)} for i, n in enumerate(rows)]
    samples = read(open_data(data, specs), MODEL)
    return numbers(samples.taught), numbers(samples.probes)


def test_feeds_with_an_empty_array_teach() -> None:
    _, probes = rows_of(*[0, 1, 2] * 8)
    assert len(probes) == 4
    assert not [i for i in probes if i % 3 == 0]


def test_they_prove_where_most_are_such() -> None:
    for rows in ([0] * 24, [0, 0, 1] * 8):
        assert rows_of(*rows)[1] == [3, 9, 15, 21]
