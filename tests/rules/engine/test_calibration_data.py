"""Calibration data: every kind of source gives the same feeds; every misfit names the input and the sample."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.engine.calibration_data import CalibrationData, Feed, InputSpec, open_data, random_data
from quark_onnx.engine.images import ImageOptions

Shape = tuple[int | None, ...]


def spec(name: str = "x", shape: Shape | None = (None, 2), dtype: Any = np.float32) -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


X = spec()
IDS = spec("ids", (None, 3), np.int64)
MASK = spec("mask", (None, 3), np.int64)
PICTURE = spec("picture", (None, 3, 4, 6))
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)


class Reader:
    """onnxruntime's protocol, nothing more; like onnxruntime's base class it has a __len__ that is not implemented."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.at = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def get_next(self) -> Any:
        self.at += 1
        return self.items[self.at - 1] if self.at <= len(self.items) else None


class Rewindable(Reader):
    def rewind(self) -> None:
        self.at = 0


class Resettable(Reader):
    def reset_iter(self) -> None:
        self.at = 0


class Fresh(Reader):
    """A reader class that can be made without arguments."""

    def __init__(self) -> None:
        super().__init__([{"x": row[None]} for row in ROWS])


class Tensor:
    """What a torch tensor looks like to numpy."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


class Dataset:
    """The old sequence protocol, as torch data sets have it."""

    def __getitem__(self, index: int) -> np.ndarray:
        return ROWS[index]  # raises IndexError behind the end


def rows() -> list[np.ndarray]:
    return [row[None] for row in ROWS]


def feeds() -> list[Feed]:
    return [{"x": row} for row in rows()]


def joined(data: CalibrationData, name: str = "x") -> np.ndarray:
    return np.concatenate([feed[name] for feed in data])


def fails(source: Any, *inputs: InputSpec, kind: type[Exception] = DataError, **options: Any) -> str:
    """The message of the error that reading all of `source` raises."""
    with pytest.raises(kind) as caught:
        list(open_data(source, inputs or (X,), **options))
    return str(caught.value)


def says(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, message


# --- kinds of sources -------------------------------------------------------------------------------------------------

SOURCES: dict[str, Callable[[], Any]] = {
    "reader": lambda: Rewindable(feeds()),
    "quark reader": lambda: Resettable(feeds()),
    "reader of arrays": lambda: Rewindable(rows()),
    "reader class": lambda: Fresh,
    "list of dicts": feeds,
    "list of arrays": rows,
    "list of tuples": lambda: [(row,) for row in rows()],
    "list of lists of arrays": lambda: [[row] for row in rows()],
    "list without batch axis": lambda: list(ROWS),
    "tuple": lambda: tuple(feeds()),
    "ragged batches": lambda: [ROWS[:1], ROWS[1:4]],
    "list of numbers": lambda: ROWS.tolist(),
    "tensors": lambda: [Tensor(row) for row in rows()],
    "stacked": lambda: ROWS,
    "stacked tensor": lambda: Tensor(ROWS),
    "stacked batches": lambda: ROWS.reshape(2, 2, 2),
    "stacked dict": lambda: {"x": ROWS},
    "stacked dict of lists": lambda: {"x": ROWS.tolist()},
    "factory of a generator": lambda: lambda: (row for row in rows()),
    "factory of a reader": lambda: lambda: Reader(feeds()),
    "sequence": Dataset,
    "data again": lambda: CalibrationData(feeds(), (X,)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_all_rows_in_order_in_every_pass(kind: str) -> None:
    data = open_data(SOURCES[kind](), (X,))
    for _ in range(3):
        np.testing.assert_array_equal(joined(data), ROWS)
    assert all(feed["x"].dtype == np.float32 and type(feed["x"]) is np.ndarray for feed in data)


@pytest.mark.parametrize("source", [lambda: Reader(feeds()), lambda: (row for row in rows()), lambda: iter(rows())])
def test_one_shot_sources_give_one_pass_and_then_say_so(source: Callable[[], Any]) -> None:
    data = open_data(source(), (X,))
    np.testing.assert_array_equal(joined(data), ROWS)
    with pytest.raises(DataError, match="list"):
        list(data)


def test_a_second_pass_over_a_plain_reader_asks_for_rewind_even_after_a_peek() -> None:
    data = open_data(Reader(feeds()), (X,))
    next(iter(data))
    with pytest.raises(DataError, match=r"'Reader'.*rewind\(\)"):
        next(iter(data))


def test_a_reader_that_was_used_before_is_rewound_first() -> None:
    reader = Rewindable(feeds())
    reader.get_next()
    np.testing.assert_array_equal(joined(open_data(reader, (X,))), ROWS)


def test_a_reader_may_end_with_stop_iteration() -> None:
    class Bare:
        def __init__(self) -> None:
            self.get_next = iter(feeds()).__next__

    np.testing.assert_array_equal(joined(open_data(Bare(), (X,))), ROWS)


def test_an_error_inside_the_users_reader_is_not_hidden() -> None:
    def broken() -> Iterator[Feed]:
        yield feeds()[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(open_data(broken, (X,)))


def test_two_inputs_by_name_by_position_and_stacked() -> None:
    ids, mask = np.arange(12).reshape(4, 3), np.ones((4, 3), np.int64)
    by_name = [{"mask": m[None], "ids": i[None]} for i, m in zip(ids, mask, strict=True)]
    by_position = [(i[None], m[None]) for i, m in zip(ids, mask, strict=True)]
    plain_lists = [[i[None].tolist(), m[None].tolist()] for i, m in zip(ids, mask, strict=True)]
    for source in (by_name, by_position, plain_lists, {"ids": ids, "mask": mask}, {"ids": ids, "mask": mask[:1]}):
        data = open_data(source, (IDS, MASK))
        np.testing.assert_array_equal(joined(data, "ids"), ids)
        np.testing.assert_array_equal(joined(data, "mask"), mask)
        assert all(list(feed) == ["ids", "mask"] for feed in data)


def test_a_stacked_array_is_cut_into_the_fixed_batch() -> None:
    assert [feed["x"].shape for feed in open_data(ROWS, (spec(shape=(2, 2)),))] == [(2, 2), (2, 2)]
    says(fails(ROWS[:3], spec(shape=(2, 2))), "'x'", "sample 1", "a batch of 1", "2")


def test_a_stacked_dict_shares_scalars() -> None:
    data = open_data({"x": ROWS, "gain": np.float32(2)}, (X, spec("gain", ())))
    assert [(feed["x"].shape, feed["gain"].shape) for feed in data] == [((1, 2), ())] * 4


def test_a_stacked_array_of_unknown_rank_is_cut_along_its_first_axis() -> None:
    assert [feed["x"].shape for feed in open_data(ROWS, (spec(shape=None),))] == [(1, 2)] * 4


def test_stacked_arrays_of_different_length_are_refused() -> None:
    message = fails({"ids": np.ones((4, 3), int), "mask": np.ones((5, 3), int)}, IDS, MASK)
    says(message, "'ids' has 4", "'mask' has 5")


def test_one_stacked_array_cannot_feed_two_inputs() -> None:
    says(fails(np.ones((4, 3), int), IDS, MASK), "sample 0", "ids, mask", "tuple")


def test_ragged_lists_are_not_stacked() -> None:
    says(fails({"x": [[1.0, 2.0], [3.0]]}), "'x'", "list of feeds")


def test_strings() -> None:
    words = spec("words", (None,), object)
    assert [feed["words"].tolist() for feed in open_data(["a", "b"], (words,))] == [["a"], ["b"]]
    assert next(iter(open_data([np.array(["a", "b"])], (words,))))["words"].dtype == object
    says(fails([np.array([1.0])], words), "'words'", "sample 0", "float64")
    says(fails([np.array([1, "a"], object)], words), "'words'", "sample 0", "object")


@given(st.integers(1, 6), st.sampled_from(["list", "stacked", "reader"]))
def test_limit_counts_items(limit: int, kind: str) -> None:
    reader = Reader(feeds())
    source = {"list": feeds(), "stacked": ROWS, "reader": reader}[kind]
    np.testing.assert_array_equal(joined(open_data(source, (X,), limit=limit)), ROWS[:limit])
    if kind == "reader":
        assert reader.at <= max(limit, 0) + (limit > 4)  # nothing is pulled in vain


def test_limit_counts_before_splitting() -> None:
    data = open_data([ROWS, ROWS], (spec(shape=(1, 2)),), limit=1)
    assert len(list(data)) == 4


def test_iteration_is_lazy() -> None:
    pulled: list[int] = []

    def source() -> Iterator[Feed]:
        for index, feed in enumerate(feeds()):
            pulled.append(index)
            yield feed

    stream = iter(open_data(source, (X,)))
    assert pulled == []
    next(stream)
    assert pulled == [0]


# --- refusals of whole sources ----------------------------------------------------------------------------------------


def test_neither_source_nor_path_says_what_to_pass() -> None:
    says(fails(None), "no calibration data", "get_next()", "folder", "UseRandomData")


def test_source_and_path_together_are_refused(tmp_path: Path) -> None:
    says(fails(feeds(), path=tmp_path, kind=ConfigError), "only one")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    says(fails(feeds(), limit=limit, kind=ConfigError), str(limit), "at least 1")


def test_an_unknown_kind_of_source_is_refused() -> None:
    says(fails(3), "from 3", "get_next()")


@pytest.mark.parametrize("empty", [[], iter(()), Reader([]), np.empty((0, 2), np.float32), {"x": ROWS[:0]}, list])
def test_no_samples_are_refused(empty: Any) -> None:
    says(fails(empty), "no samples", "pass a reader")


@pytest.mark.parametrize("given", [{"x": ROWS, "picture": ROWS[:0]}, {"x": ROWS[:1], "picture": ROWS[:0]}])
def test_the_stacked_array_without_samples_is_named(given: dict[str, Any], tmp_path: Path) -> None:
    inputs = (X, spec("picture"))
    says(fails(given, *inputs), "input 'picture'", "no samples")
    np.savez(tmp_path / "data.npz", **given)
    says(fails(tmp_path / "data.npz", *inputs), "input 'picture'", "data.npz", "no samples")


def test_a_stacked_file_without_samples_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", ROWS[:0])
    says(fails(tmp_path / "data.npy"), "input 'x'", "data.npy", "no samples")


def test_a_source_that_runs_dry_is_not_silently_empty_the_second_time() -> None:
    class Dry:
        def __init__(self) -> None:
            self.left = iter(feeds())

        def __iter__(self) -> Iterator[Feed]:
            return self.left

    data = open_data(Dry(), (X,))
    assert len(list(data)) == 4
    with pytest.raises(DataError, match="no samples"):
        list(data)


# --- refusals of samples ----------------------------------------------------------------------------------------------


def third(value: Any) -> list[Any]:
    """A source whose sample 2 is `value`."""
    return [*feeds()[:2], value]


def test_names() -> None:
    says(fails(third({"y": ROWS})), "sample 2", "'y'", "known: x")
    says(fails([{"idz": ROWS, "mask": ROWS}], IDS, MASK), "sample 0", "'idz'", "did you mean 'ids'?")
    says(fails([{"ids": np.ones((1, 3), int)}], IDS, MASK), "sample 0", "'mask' is missing")
    says(fails(third({})), "sample 2", "'x' is missing")
    says(fails([{7: ROWS}]), "sample 0", "'x' is missing", "no input 7")


def test_number_of_arrays() -> None:
    says(fails(third((ROWS, np.ones((4, 2))))), "sample 2", "2 array(s)", "(x)", "lambda: ({'x': sample[0]} for")
    says(fails([(ROWS,)], IDS, MASK), "sample 0", "1 array(s)", "ids, mask")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.float32, np.ones((1, 2), np.uint8)),
        (np.float32, np.ones((1, 2), np.int64)),
        (np.float32, np.ones((1, 2), bool)),
        (np.int64, np.ones((1, 2), np.float32)),
        (np.int64, np.ones((1, 2), bool)),
        (np.int64, np.ones((1, 2), np.uint64)),
        (np.int32, np.ones((1, 2), np.int64)),
        (np.bool_, np.ones((1, 2), np.int64)),
        (np.int8, [[1, 300]]),
        (np.int64, [[0.5, 1.0]]),
        (np.float32, [["a", "b"]]),
        (np.float32, None),
    ],
)
def test_wrong_types(dtype: Any, value: Any) -> None:
    have = np.asarray(value).dtype
    message = fails([{"x": value}], spec(dtype=dtype))
    says(message, "input 'x', sample 0", f"the values are {have}", f"needs {np.dtype(dtype)}", "convert")


@pytest.mark.parametrize(
    ("dtype", "value", "was"),
    [
        (np.float32, np.ones((1, 2)), "float64"),
        (np.float32, np.ones((1, 2), np.float16), "float16"),
        (np.float16, np.ones((1, 2), np.float32), "float32"),
        (np.float32, np.ones((1, 2), ">f4"), ">f4"),
        (np.int64, np.ones((1, 2), np.int32), "int32"),
        (np.int64, np.ones((1, 2), np.uint8), "uint8"),
        (np.float32, [[1, 1]], "Python values"),
        (np.int8, [[1, 1]], "Python values"),
        (np.float32, [[1.0, 1.0]], "Python values"),
    ],
)
def test_safe_casts_are_made_and_noted_once(dtype: Any, value: Any, was: str) -> None:
    data = open_data([{"x": value}, {"x": value}], (spec(dtype=dtype),))
    for _ in range(2):
        for feed in data:
            assert feed["x"].dtype == dtype
            np.testing.assert_array_equal(feed["x"], [[1, 1]])
    casts = [warning for warning in data.warnings if "everywhere" not in warning]
    assert casts == [f"input 'x': {was} were cast to {np.dtype(dtype)}"]


def test_what_fits_is_not_noted_and_not_copied() -> None:
    data = open_data([ROWS], (X,))
    assert next(iter(data))["x"] is ROWS
    assert data.warnings == []


def test_not_an_array() -> None:
    says(fails(third({"x": [[1.0], [2.0, 3.0]]})), "input 'x', sample 2", "not an array")


@pytest.mark.parametrize("shape", [(2, 1, 2), (), (3,)])
def test_wrong_rank(shape: tuple[int, ...]) -> None:
    message = fails(third(np.ones(shape, np.float32)))
    says(message, "input 'x', sample 2", f"rank is {len(shape)}", str(shape), "[?, 2]")


def test_wrong_dimension() -> None:
    says(fails(third(np.ones((4, 3), np.float32))), "input 'x', sample 2", "dimension 1 is 3", "[?, 2]")


def test_transposed_images_are_recognised() -> None:
    says(fails([np.ones((1, 4, 6, 3), np.float32)], PICTURE), "'picture'", "NHWC", "transpose(0, 3, 1, 2)")
    nhwc = spec("picture", (None, 4, 6, 3))
    says(fails([np.ones((1, 3, 4, 6), np.float32)], nhwc), "'picture'", "NCHW", "transpose(0, 2, 3, 1)")
    says(fails([np.ones((4, 6, 3), np.float32)], PICTURE), "the rank is 3", "looks like HWC", "transpose(2, 0, 1)")
    says(fails([np.ones((3, 4, 6), np.float32)], nhwc), "the rank is 3", "looks like CHW", "transpose(1, 2, 0)")
    says(fails([np.ones((4, 6), np.float32)], PICTURE), "the rank is 2", "reshape it")


def test_a_missing_batch_axis_is_added_and_noted_once() -> None:
    data = open_data(list(ROWS), (spec(shape=(1, 2)),))
    assert [feed["x"].shape for feed in data] == [(1, 2)] * 4
    assert data.warnings == ["input 'x': samples without a batch axis were given one"]


def test_empty_arrays_are_samples_without_values() -> None:
    shapes = [feed["x"].shape for feed in open_data(third(np.ones((0, 2), np.float32)), (X,))]
    assert shapes == [(1, 2), (1, 2), (0, 2)]


def test_empty_arrays_have_to_fit() -> None:
    says(fails(third(np.ones((0, 3), np.float32))), "input 'x', sample 2", "dimension 1 is 3", "[?, 2]")
    says(fails(third(np.ones((1, 0), np.float32))), "input 'x', sample 2", "dimension 1 is 0", "[?, 2]")
    says(fails(third(np.ones(0, np.float32))), "input 'x', sample 2", "rank is 1")


def test_samples_without_any_values_teach_nothing() -> None:
    says(fails([np.ones((0, 2), np.float32)] * 3), "all arrays of all 3 samples are empty", "pass a reader")


def judged(*values: float) -> list[np.ndarray]:
    """What is read of one sample of these values, by a model that takes −∞ in the first place only."""
    array = np.float32([values])

    def judge(feed: Feed) -> str | None:
        return "y" if np.isneginf(feed["x"][:, 1:]).any() else None

    return [feed["x"] for feed in open_data([array], (X,), masks=lambda: judge)]


def test_a_mask_that_the_model_takes() -> None:
    np.testing.assert_array_equal(judged(-np.inf, 1), [np.float32([[-np.inf, 1]])])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1, -np.inf), ("it holds -inf", "output 'y' is not finite with it", "Softmax")),
        ((np.inf, -np.inf), ("1 of 2 values are NaN or infinite", "first inf at (0, 0)")),
        ((-np.inf, np.nan), ("1 of 2 values are NaN or infinite", "first nan at (0, 1)")),
    ],
)
def test_what_it_does_not_take(values: tuple[float, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        judged(*values)
    says(str(caught.value), "input 'x', sample 0", *words)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    array = np.zeros((3, 2), np.float32)
    array[1, 1] = array[2, 0] = bad
    says(fails(third(array)), "input 'x', sample 2", "2 of 6 values", f"first {bad} at (1, 1)", "leave this sample out")


def test_values_that_overflow_in_the_models_type() -> None:
    says(fails([np.array([[1.0, 1e300]])]), "input 'x', sample 0", "as float32", "inf at (0, 1)")


def test_unknown_rank_takes_any_shape() -> None:
    ragged = [np.ones((1, 2, 3), np.float32), np.ones((7,), np.float32)]
    assert [feed["x"].shape for feed in open_data(ragged, (spec(shape=None),))] == [(1, 2, 3), (7,)]


# --- splitting to the fixed batch -------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_splitting_keeps_every_value_in_order(batch: int, parts: list[int]) -> None:
    total = batch * sum(parts)
    values = np.arange(total * 2, dtype=np.float32).reshape(total, 2)
    source = np.split(values, np.cumsum(np.multiply(parts, batch))[:-1])
    got = list(open_data(source, (spec(shape=(batch, 2)),)))
    assert all(feed["x"].shape == (batch, 2) for feed in got)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in got]), values)


@given(st.integers(2, 5), st.integers(1, 12))
def test_a_batch_that_does_not_divide_is_refused(batch: int, rows: int) -> None:
    source = [np.ones((rows, 2), np.float32)]
    if rows % batch:
        says(fails(source, spec(shape=(batch, 2))), "input 'x', sample 0", f"batch of {rows}", f"model's {batch}")
    else:
        assert len(list(open_data(source, (spec(shape=(batch, 2)),)))) == rows // batch


def test_inputs_split_together_and_share_what_is_one_batch_or_scalar() -> None:
    inputs = (
        spec("a", (1, 2)),
        spec("b", (2, 1)),
        spec("table", (8,)),  # a fixed vector of as many entries as "b" has rows: no batch
        spec("gain", ()),
        spec("loose", (None, 1)),  # a dynamic axis with as many rows as "a": the same batch
        spec("other", (None, 1)),
    )
    feed = {
        "a": ROWS,
        "b": np.arange(8, dtype=np.float32)[:, None],
        "table": np.arange(8, dtype=np.float32),
        "gain": np.float32(3),
        "loose": np.arange(4, dtype=np.float32)[:, None],
        "other": np.ones((5, 1), np.float32),
    }
    data = open_data([feed], inputs)
    assert len(list(data)) == 4
    for name in ("a", "b", "loose"):
        np.testing.assert_array_equal(joined(data, name), feed[name])
    for part in data:
        np.testing.assert_array_equal(part["table"], feed["table"])
        assert part["gain"] == 3
        assert part["other"].shape == (5, 1)


def test_inputs_that_split_differently_are_refused() -> None:
    inputs = (spec("a", (1, 2)), spec("b", (1, 2)))
    message = fails([{"a": ROWS, "b": ROWS[:2]}], *inputs)
    says(message, "sample 0", "'a': 4", "'b': 2", "equal")


# --- files ------------------------------------------------------------------------------------------------------------


def save(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_a_folder_of_npy_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    save(tmp_path, b=ROWS[1:], a=ROWS[:1])
    (tmp_path / ".DS_Store").touch()
    for data in (open_data(None, (X,), path=tmp_path), open_data(str(tmp_path), (X,)), CalibrationData(tmp_path, (X,))):
        for _ in range(2):
            np.testing.assert_array_equal(joined(data), ROWS)
        assert data.warnings == []


def test_errors_in_files_name_the_file(tmp_path: Path) -> None:
    save(tmp_path, a=ROWS, b=ROWS + np.float32(np.nan))
    says(fails(tmp_path), "'x'", f"sample 1 ({tmp_path / 'b.npy'})", "NaN")


def test_side_by_side_npy_files_feed_only_one_input(tmp_path: Path) -> None:
    says(fails(save(tmp_path, a=ROWS), IDS, MASK), "'ids', 'mask'", "sub-folder for each input")


def test_a_sub_folder_for_each_input(tmp_path: Path) -> None:
    ids = np.arange(6).reshape(2, 3)
    save(tmp_path / "ids", s0=ids[:1], s1=ids[1:])
    save(tmp_path / "mask", s1=ids[1:] + 10, s0=ids[:1] + 10)
    data = open_data(tmp_path, (IDS, MASK))
    np.testing.assert_array_equal(joined(data, "ids"), ids)
    np.testing.assert_array_equal(joined(data, "mask"), ids + 10)
    np.testing.assert_array_equal(joined(open_data(save(tmp_path / "one" / "x", a=ROWS).parent, (X,))), ROWS)


def test_sub_folders_must_pair_up(tmp_path: Path) -> None:
    ids = np.ones((1, 3), np.int64)
    save(tmp_path / "ids", s0=ids, s1=ids)
    says(fails(tmp_path, IDS, MASK), "'mask'", "s0.npy")
    save(tmp_path / "mask", s0=ids)
    says(fails(tmp_path, IDS, MASK), "'mask'", "s1.npy", str(tmp_path / "mask"))
    save(tmp_path / "mask", s1=ids.astype(np.float32))
    says(fails(tmp_path, IDS, MASK), "'mask'", "sample 1", "s1.npy", "float32")
    save(tmp_path / "maks", s1=ids)
    says(fails(tmp_path, IDS, MASK), "maks", "did you mean 'mask'?")


def test_a_folder_of_npz_files(tmp_path: Path) -> None:
    ids = np.arange(6).reshape(2, 3)
    for index in range(2):
        np.savez(tmp_path / f"{index}.npz", ids=ids[index : index + 1], mask=ids[index : index + 1])
    np.testing.assert_array_equal(joined(open_data(tmp_path, (IDS, MASK)), "mask"), ids)
    np.savez(tmp_path / "2.npz", ids=ids)
    says(fails(tmp_path, IDS, MASK), "'mask' is missing", "sample 2", "2.npz")


def test_one_npz_or_npy_file_is_stacked(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=ROWS)
    np.save(tmp_path / "all.npy", ROWS)
    for name in ("all.npz", "all.npy"):
        data = open_data(None, (X,), path=tmp_path / name, limit=3)
        assert [feed["x"].shape for feed in data] == [(1, 2)] * 3
        np.testing.assert_array_equal(joined(data), ROWS[:3])
    np.save(tmp_path / "bad.npy", ROWS + np.float32(np.inf))
    says(fails(tmp_path / "bad.npy"), "'x'", "sample 0", "bad.npy")


@pytest.mark.parametrize("name", ["broken.npy", "broken.npz"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    says(fails(tmp_path), name, "numpy.save")
    says(fails(tmp_path / name), name, "numpy.save")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    says(fails(tmp_path), "objects.npy", "plain arrays")


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    says(fails(tmp_path / "nowhere"), "nowhere", "does not exist")
    says(fails(tmp_path), "holds nothing", "one kind")
    (tmp_path / "notes.txt").touch()
    says(fails(tmp_path), "1 other files", "one kind")
    says(fails(tmp_path / "notes.txt"), "notes.txt", ".npy or .npz")
    save(tmp_path, a=ROWS)
    assert open_data(tmp_path, (X,)).warnings == [f"{tmp_path}: 1 other files are not read"]
    np.savez(tmp_path / "b.npz", x=ROWS)
    says(fails(tmp_path), "1 .npy files", "1 .npz files", "1 other files")


def test_image_options_without_images_are_noted(tmp_path: Path) -> None:
    options = ImageOptions(mean=0.5)
    for source in (feeds(), save(tmp_path, a=ROWS), tmp_path / "a.npy"):
        [note] = open_data(source, (X,), image_options=options).warnings
        assert "image options are not used" in note


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two images of one color each, (R, G, B) = (255, 51, 0) at 6 × 4 and (0, 102, 255) at 12 × 4 (width × height)."""
    Image.new("RGB", (6, 4), (255, 51, 0)).save(tmp_path / "a.PNG")
    Image.new("RGB", (12, 4), (0, 102, 255)).save(tmp_path / "b.bmp")
    return tmp_path


def colors(pictures: Path, options: ImageOptions | None = None, picture: InputSpec = PICTURE) -> list[list[float]]:
    """The channels of each image's first pixel, after a check that all pixels are alike."""
    found = []
    for feed in open_data(pictures, (picture,), image_options=options):
        array = feed["picture"]
        flat = array[0].reshape(array.shape[1], -1).T if array.shape[1] in (1, 3) else array[0].reshape(-1, 3)
        np.testing.assert_allclose(flat, np.broadcast_to(flat[0], flat.shape))
        found.append([round(float(value), 4) for value in flat[0]])
    return found


def test_images_become_rgb_in_zero_to_one_at_the_models_size(pictures: Path) -> None:
    data = open_data(pictures, (PICTURE,))
    assert [(feed["picture"].shape, feed["picture"].dtype) for feed in data] == [((1, 3, 4, 6), np.float32)] * 2
    assert data.warnings == []
    assert colors(pictures) == [[1.0, 0.2, 0.0], [0.0, 0.4, 1.0]]


def test_mean_std_scale_and_color(pictures: Path) -> None:
    assert colors(pictures, ImageOptions(mean=0.5, std=0.5))[0] == [1.0, -0.6, -1.0]
    assert colors(pictures, ImageOptions(mean=(1, 0, 0), std=(1, 2, 1)))[0] == [0.0, 0.1, 0.0]
    assert colors(pictures, ImageOptions(scale=1, mean=(103, 51, 0), color="BGR"))[0] == [-103.0, 0.0, 255.0]
    grey = spec("picture", (1, 1, 4, 6))
    assert colors(pictures, ImageOptions(scale=1, color="L"), grey)[0] == [106.0]


def test_layout_follows_the_model_or_the_option(pictures: Path) -> None:
    nhwc = spec("picture", (None, 4, 6, 3))
    assert colors(pictures, None, nhwc)[0] == [1.0, 0.2, 0.0]
    dynamic = spec("picture", (None, None, None, None))
    options = ImageOptions(layout="NHWC", size=(2, 5))
    assert next(iter(open_data(pictures, (dynamic,), image_options=options)))["picture"].shape == (1, 2, 5, 3)
    unknown = spec("picture", None)
    options = ImageOptions(layout="NCHW", size=(2, 5))
    assert next(iter(open_data(pictures, (unknown,), image_options=options)))["picture"].shape == (1, 3, 2, 5)
    unbatched = spec("picture", (3, 4, 6))
    assert next(iter(open_data(pictures, (unbatched,))))["picture"].shape == (3, 4, 6)


def test_crop_policies(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 3:9] = 255  # the center is white, the sides are black
    Image.fromarray(wide).save(tmp_path / "wide.png")
    square = spec("picture", (1, 3, 4, 4))
    [cropped] = open_data(tmp_path, (square,), image_options=ImageOptions(crop="center_crop"))
    [squeezed] = open_data(tmp_path, (square,), image_options=ImageOptions(crop="resize"))
    assert cropped["picture"].min() == 1.0
    assert squeezed["picture"].min() < 0.5


def test_integer_inputs_take_bare_pixels(pictures: Path) -> None:
    bytes_in = spec("picture", (1, 3, 4, 6), np.uint8)
    assert colors(pictures, None, bytes_in)[0] == [255.0, 51.0, 0.0]
    says(fails(pictures, bytes_in, image_options=ImageOptions(mean=0.5)), "'picture'", "bare pixels")
    says(fails(pictures, spec("picture", (1, 3, 4, 6), np.int8)), "'picture'", "int8")


def test_images_that_cannot_fit_the_model(pictures: Path) -> None:
    says(fails(pictures), "'x'", "2 dimensions")
    says(fails(pictures, PICTURE, X), "images feed one input", "'picture', 'x'")
    says(fails(pictures, spec("picture", (1, 1, 4, 6))), "'picture'", "color 'RGB'", "layout=")
    says(fails(pictures, spec("picture", (1, 3, 5, 3))), "'picture'", "layout=")
    says(fails(pictures, spec("picture", None)), "'picture'", "layout=")
    says(fails(pictures, spec("picture", (None, 3, None, None))), "'picture'", "size=(height, width)")
    message = fails(pictures, PICTURE, image_options=ImageOptions(size=(4, 4)))
    says(message, "'picture'", "sample 0", "a.PNG", "dimension 3 is 4")


def test_broken_images_are_named(pictures: Path) -> None:
    (pictures / "c.jpg").write_bytes(b"not an image")
    says(fails(pictures, PICTURE), "c.jpg", "remove it")


def test_without_pillow_the_error_says_how_to_install_it(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    says(fails(pictures, PICTURE), "pip install 'quark-onnx[images]'")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"color": "rgb"}, "did you mean 'RGB'?"),
        ({"crop": "centre_crop"}, "did you mean 'center_crop'?"),
        ({"layout": "NWHC"}, "did you mean"),
        ({"size": (0, 4)}, "(height, width)"),
        ({"size": (4,)}, "(height, width)"),
        ({"mean": (1, 2)}, "mean has 2 numbers"),
        ({"std": (1, 2, 3), "color": "L"}, "std has 3 numbers"),
        ({"std": 0}, "0"),
    ],
)
def test_image_options_are_checked(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        ImageOptions(**options)


# --- random data ------------------------------------------------------------------------------------------------------


def test_random_data_warns_loudly_in_log_and_report(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="quark_onnx"):
        data = random_data((X,))
    [record] = caplog.records
    assert (record.name, record.levelname) == ("quark_onnx", "WARNING")
    assert data.warnings == [record.getMessage()]
    assert data.warnings[0].startswith("calibrated on RANDOM data: ")
    assert open_data(data, (X,)).warnings == data.warnings


def test_random_data_is_the_same_in_every_pass_and_for_every_seed() -> None:
    data = random_data((X,), samples=3, seed=7)
    first = joined(data)
    assert first.shape == (3, 2)
    np.testing.assert_array_equal(joined(data), first)
    np.testing.assert_array_equal(joined(random_data((X,), samples=3, seed=7)), first)
    assert not np.array_equal(joined(random_data((X,), samples=3, seed=8)), first)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_])
def test_random_values_by_type(dtype: Any) -> None:
    values = joined(random_data((spec(shape=(None, 200), dtype=dtype),), samples=2))
    assert values.dtype == dtype
    assert 0 <= values.min() < values.max() <= 1
    if np.dtype(dtype).kind != "f":
        assert set(np.unique(values)) == {0, 1}


def test_random_shapes_and_ranges() -> None:
    inputs = (spec("a", (None, None, 3)), spec("b", None), spec("c", (), np.int64), spec("d", (4, 2), np.uint8))
    ranges = {"a": (-3.0, -2.0), "c": (5.0, 6.0), "d": (250, 256)}
    for feed in random_data(inputs, shapes={"b": [2, 5]}, ranges=ranges):
        assert [array.shape for array in feed.values()] == [(1, 16, 3), (2, 5), (), (4, 2)]
        assert -3 <= feed["a"].min() <= feed["a"].max() < -2
        assert feed["c"] == 5
        assert feed["d"].min() >= 250


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"shapes": {"y": (1, 2)}}, ("'y'", "known: x")),
        ({"ranges": {"y": (0, 1)}}, ("'y'", "known: x")),
        ({"shapes": {"x": (-1, 2)}}, ("'x'", "[-1, 2]", "positive")),
        ({"ranges": {"x": (1, 1)}}, ("'x'", "[1, 1)")),
        ({"samples": 0}, ("0", "at least 1")),
    ],
)
def test_random_options_are_checked(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        random_data((X,), **options)
    says(str(caught.value), *parts)


def test_random_data_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match=r"'x'.*uint8"):
        random_data((spec(dtype=np.uint8),), ranges={"x": (0, 257)})
    with pytest.raises(ConfigError, match=r"'x' has no known rank"):
        random_data((spec(shape=None),))
    with pytest.raises(DataError, match=r"'x' holds strings"):
        random_data((spec(dtype=object),))


def test_a_random_shape_must_fit_the_model() -> None:
    with pytest.raises(DataError, match=r"input 'x', sample 0: dimension 1 is 3"):
        list(random_data((X,), shapes={"x": (1, 3)}))
