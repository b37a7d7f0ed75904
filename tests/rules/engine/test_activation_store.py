"""Activations under a memory budget: equal whether in memory or in a file, and gone when they are no longer needed."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mapped_memory import PROC, resident

from quark_onnx.engine.activation_store import Store, let_go
from quark_onnx.engine.kept_feeds import keep, quarter_of_memory

DTYPES = st.sampled_from(["float32", "float64", "float16", "int8", "uint8", "int64", "bool", "uint16"])
SAMPLES = st.lists(
    DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))),
    max_size=5,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def mapped() -> int:
    """Temporary files of ours that this process has mapped."""
    gc.collect()
    return sum(
        "quark_onnx-" in line or "(deleted)" in line for line in Path("/proc/self/maps").read_text().splitlines()
    )


def assert_equal(got: list[Any], want: list[Any]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def in_file(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


@given(st.lists(SAMPLES, max_size=5), st.integers(0, 300))
def test_what_is_kept_is_what_was_put_and_never_above_the_limit(tensors: list[list[Any]], limit: int) -> None:
    with Store(limit) as store:
        held = 0
        for i, samples in enumerate(tensors):
            store.put(f"t{i}", samples)
            for array, kept in zip(samples, store[f"t{i}"], strict=True):
                fits = held + array.nbytes <= limit
                held += array.nbytes if fits else 0
                assert in_file(kept) is not fits
            assert store.held == held <= limit
        for i, samples in enumerate(tensors):
            assert_equal(store[f"t{i}"], samples)
        for i in range(len(tensors)):
            store.drop(f"t{i}")
        assert store.held == 0


def test_dropping_makes_room() -> None:
    a = [np.zeros(10, np.uint8)]
    with Store(15) as store:
        store.put("a", a)
        store.put("b", a)
        assert (store.held, in_file(store["a"][0]), in_file(store["b"][0])) == (10, False, True)
        store.drop("b")
        assert store.held == 10
        store.drop("a")
        store.drop("a")
        store.drop("never put")
        assert store.held == 0
        store.put("c", a)
        assert not in_file(store["c"][0])
        with pytest.raises(KeyError):
            store["a"]


def test_a_tensor_that_is_put_again_counts_once() -> None:
    with Store(100) as store:
        for _ in range(3):
            store.put("a", [np.zeros(40, np.uint8)])
            assert store.held == 40
        store.put("a", [np.zeros(101, np.uint8)])
        assert store.held == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_nothing_stays_on_disk(folder: Path) -> None:
    before = mapped()
    with Store(0) as store:
        store.put("a", [np.arange(5000, dtype=np.float32)])
        store.put("b", [np.arange(5000, dtype=np.float32)] * 3)
        assert list(folder.iterdir()) == []  # the file has no name from the start
        assert mapped() == before + 2
        store.drop("a")
        assert mapped() == before + 1
        kept = store["b"][1]
    assert mapped() == before + 1  # what somebody still holds stays readable
    assert kept[4999] == 4999
    del kept
    assert mapped() == before


@pytest.mark.skipif(not PROC, reason="needs /proc")
def test_who_lets_go_of_what_was_read_frees_its_memory() -> None:
    samples = [np.full((2, 8, 4096), i, np.float32) for i in range(4)]
    with Store(0) as store:
        store.put("a", samples)
        assert resident() == 0
        found = store["a"]
        assert [array.sum() for array in found] == [i * 2 * 8 * 4096 for i in range(4)]
        assert resident() == 4 * samples[0].nbytes
        let_go(found[0])
        assert resident() == 3 * samples[0].nbytes
        for view in (found[1][0], found[1][1], found[2][:1], np.swapaxes(found[2], 1, 2)[1], found[3].reshape(-1)):
            let_go(view)
        assert resident() == 0
        assert_equal(found, samples)


def test_arrays_in_memory_stay_when_they_are_let_go_of() -> None:
    samples = [np.arange(8), np.arange(8).reshape(2, 4)[1], np.zeros((0, 3))]
    for array, want in zip(samples, [array.copy() for array in samples], strict=True):
        let_go(array)
        assert_equal([array], [want])


def test_an_error_inside_frees_everything(folder: Path) -> None:
    store = Store(0)
    with pytest.raises(ZeroDivisionError), store:
        store.put("a", [np.arange(9)])
        raise ZeroDivisionError
    with pytest.raises(KeyError):
        store["a"]


def test_strings_and_empty_arrays_stay_in_memory(folder: Path) -> None:
    text = [np.array(["a", "bc"], object), np.array([], object)]
    empty = [np.zeros((0, 3), np.int8), np.zeros((2, 0), np.float32)]
    for samples in (text, empty, []):
        with Store(0) as store:
            store.put("a", samples)
            assert_equal(store["a"], samples)
    sequences = [[np.arange(3), np.zeros((0, 2))], []]
    for limit, held in ((0, 0), (100, sequences[0][0].nbytes)):
        with Store(limit) as store:
            store.put("a", sequences)
            assert store["a"][0][0] is sequences[0][0]
            assert store.held == held
    mixed = [np.zeros(0, np.float32), np.arange(3), np.zeros((0, 2), np.int8), np.float32(4)[None], np.array(True)]
    turned = [np.arange(12).reshape(3, 4).T, np.arange(12)[::-2]]
    for samples in (mixed, turned):
        with Store(0) as store:
            store.put("a", samples)
            assert_equal(store["a"], samples)


@given(st.permutations(range(4)), st.integers(0, 100), st.sets(st.integers(0, 3)))
def test_several_tensors_come_in_any_order_and_go_one_sample_at_a_time(
    order: list[int], limit: int, gone: set[int]
) -> None:
    rows = [[np.full(5, i, np.uint8), np.full((2, 3), i, np.int16)] for i in range(4)]
    with Store(limit) as store:
        store.fill(["a", "b"], ((i, rows[i]) for i in order), 4)
        assert store.held <= limit
        for k, name in enumerate("ab"):
            assert_equal(store[name], [row[k] for row in rows])
            for i in gone:
                store.forget(name, i)
            assert_equal(
                [a for i, a in enumerate(store[name]) if i not in gone], [r[k] for r in rows if r[0][0] not in gone]
            )
        if len(gone) == 4:
            assert store.held == 0
        store.drop("a")
        store.drop("b")
        assert store.held == 0


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), arrays.arrays("float32", 3), max_size=3), max_size=6))
def test_feeds_are_kept_in_order_in_memory_up_to_the_limit(feeds: list[dict[str, Any]]) -> None:
    for limit in (0, 25, 1 << 20):
        kept = keep(iter(feeds), limit)
        held = 0
        for feed, want in zip(kept, feeds, strict=True):
            assert list(feed) == list(want)
            assert_equal(list(feed.values()), list(want.values()))
            held += sum(array.nbytes for array in want.values())
            assert all(
                (array is of_want) == (held <= limit)
                for array, of_want in zip(feed.values(), want.values(), strict=True)
            )
        assert [list(feed) for feed in kept[1:3]] == [list(feed) for feed in feeds[1:3]]


def test_feeds_of_any_type_and_layout_come_back_from_the_file() -> None:
    feed = {
        "turned": np.arange(12.0).reshape(3, 4).T,
        "halves": np.arange(6, dtype=np.float16)[::-2],
        "switch": np.array(True),
        "nothing": np.zeros((0, 3), np.int64),
    }
    for name, array in keep([feed], 0)[0].items():
        assert array.dtype == feed[name].dtype
        assert_equal([array], [feed[name]])


def test_feeds_from_the_file_are_arrays_of_their_own() -> None:
    kept = keep([{"x": np.arange(4.0)}], 0)
    kept[0]["x"][0] = 9
    assert kept[0]["x"].tolist() == [0, 1, 2, 3]


def test_a_quarter_of_the_memory_is_a_sensible_number() -> None:
    assert 1 << 24 < quarter_of_memory() < 1 << 50
