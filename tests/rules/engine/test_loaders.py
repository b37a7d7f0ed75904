"""Loaders and tensors of other libraries, by classes that look like them; their own twins where torch is installed."""

from __future__ import annotations

import itertools
from collections import UserDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from quark_onnx.core.errors import DataError
from quark_onnx.engine.calibration_data import InputSpec, open_data
from quark_onnx.engine.data_sources import source_of

X = InputSpec("x", np.dtype(np.float32), (None, 2))
IDS = InputSpec("ids", np.dtype(np.int64), (None, None))
MASK = InputSpec("mask", np.dtype(np.int64), (None, None))
PICTURE = InputSpec("picture", np.dtype(np.float32), (None, 3, None, None))
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)
TOKENS = np.arange(6).reshape(2, 3)
IMAGES = np.zeros((2, 3, 4, 4), np.float32)
LABELS = np.array([1, 0])


class Torch:
    """A tensor of torch: numpy can read it only on the processor, without history, and in a type that it knows."""

    def __init__(self, values: Any, dtype: str = "", *, away: bool = False, history: bool = False) -> None:
        self.values = np.asarray(values)
        self.dtype = f"torch.{dtype or self.values.dtype}"
        self.away, self.history = away, history

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def detach(self) -> Torch:
        return Torch(self.values, self.dtype[6:], away=self.away)

    def cpu(self) -> Torch:
        return Torch(self.values, self.dtype[6:], history=self.history)

    def float(self) -> Torch:
        return Torch(self.values.astype(np.float32), away=self.away, history=self.history)

    def numpy(self) -> np.ndarray:
        if self.away or self.history or self.dtype == "torch.bfloat16":
            raise TypeError("can't convert this tensor to numpy")
        return self.values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.numpy()


class Eager:
    """A tensor that has `numpy()` and a shape."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = np.shape(values)

    def numpy(self) -> np.ndarray:
        return np.asarray(self.values)


class Packed:
    """A tensor that has DLPack and nothing else."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Drawn:
    """An image of Pillow."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.values.__array_interface__


class MapStyle:
    """A data set of torch with its two methods; it would go on behind its end."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> np.ndarray:
        assert index < 20
        return ROWS[index % 4]


class Endless:
    """A loader of a stream: it has a length by its class, and none when it is asked."""

    def __len__(self) -> int:
        raise TypeError("object of type 'IterableDataset' has no len()")

    def __iter__(self) -> Iterator[np.ndarray]:
        return itertools.repeat(ROWS, 100)


def read(source: Any, *inputs: InputSpec) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    data = open_data(source, inputs)
    feeds = list(data)
    return feeds, [text for text in data.warnings if "not read" in text or "cast" in text or "given one" in text]


def refused(source: Any, *inputs: InputSpec) -> str:
    with pytest.raises(DataError) as caught:
        read(source, *inputs)
    return str(caught.value)


TENSORS: dict[str, Callable[[np.ndarray], Any]] = {
    "torch": Torch,
    "with history": lambda array: Torch(array, history=True),
    "on a device": lambda array: Torch(array, away=True, history=True),
    "bfloat16": lambda array: Torch(array, "bfloat16", history=True),
    "numpy()": Eager,
    "DLPack": Packed,
    "array interface": Drawn,
    "other strides": lambda array: np.asfortranarray(array),
}


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("place", ["sample", "dict", "tuple", "list", "stacked", "stacked dict"])
def test_tensors_are_arrays_wherever_they_stand(kind: str, place: str) -> None:
    make = TENSORS[kind]
    batches = [make(ROWS[:2]), make(ROWS[2:])]
    sources: dict[str, Any] = {
        "sample": batches,
        "dict": [{"x": batch} for batch in batches],
        "tuple": [(batch,) for batch in batches],
        "list": [[batch] for batch in batches],
        "stacked": make(ROWS),
        "stacked dict": {"x": make(ROWS)},
    }
    feeds, warnings = read(sources[place], X)
    assert all(type(feed["x"]) is np.ndarray for feed in feeds) and warnings == []
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), ROWS)


def test_bfloat16_of_other_packages_becomes_float32_and_this_is_noted() -> None:
    narrow = pytest.importorskip("ml_dtypes").bfloat16
    feeds, warnings = read([ROWS.astype(narrow)], X)
    np.testing.assert_array_equal(feeds[0]["x"], ROWS)
    assert warnings == ["input 'x': bfloat16 were cast to float32"]
    assert "the values are bfloat16" in refused([TOKENS.astype(narrow)], IDS)


def test_what_its_own_library_refuses_is_told_with_the_sample() -> None:
    class Symbolic:
        def numpy(self) -> np.ndarray:
            raise NotImplementedError("numpy() is only available when eager execution is enabled")

    message = refused([{"x": Symbolic()}], X)
    assert message.startswith("input 'x', sample 0: this is not an array (numpy() is only available")
    for stacked in (Symbolic(), {"x": Symbolic()}):
        assert refused(stacked, X).startswith("input 'x': not one stacked array (numpy() is only available")
    assert refused(Symbolic(), X, IDS).startswith("sample 0 gives 1 array(s), the model has 2")


@pytest.mark.parametrize("make", [Torch, Eager])
def test_rows_that_may_be_columns_are_refused(make: Callable[[Any], Any]) -> None:
    """A loader that puts together rows of lists makes a list of columns; arrays of numpy in a list are rows."""
    columns = [make(column) for column in TOKENS.T]
    message = refused([{"ids": columns}], IDS)
    assert "sample 0" in message and "rows, or columns" in message and "with_format('torch')" in message
    np.testing.assert_array_equal(read([{"ids": list(TOKENS)}], IDS)[0][0]["ids"], TOKENS)
    np.testing.assert_array_equal(read([[make(np.float32(i)) for i in range(2)]], X)[0][0]["x"], [[0, 1]])
    np.testing.assert_array_equal(read([{"ids": [make(np.int64(i)) for i in range(3)]}], IDS)[0][0]["ids"], [[0, 1, 2]])


# --- what stands beside the inputs ----------------------------------------------------------------------------------

Tokens = namedtuple("Tokens", ["label", "mask", "ids"])

BESIDE: dict[str, tuple[Any, tuple[InputSpec, ...]]] = {
    "labels of a list": ([Torch(IMAGES), Torch(LABELS)], (PICTURE,)),
    "labels of a tuple": ((IMAGES, LABELS), (PICTURE,)),
    "a number": ((IMAGES, 7), (PICTURE,)),
    "numbers of one image": ((IMAGES[0], 7), (PICTURE,)),
    "words": ((IMAGES, ("cat", "dog")), (PICTURE,)),
    "a dict": ((IMAGES, {"boxes": LABELS}), (PICTURE,)),
    "a map of classes": ((IMAGES, np.zeros((2, 4, 4), int)), (PICTURE,)),
    "of the input's shape, of another type": ((IMAGES, IMAGES.astype(int)), (PICTURE,)),
    "behind two inputs": ((TOKENS, TOKENS, LABELS), (IDS, MASK)),
    "keys": ({"label": LABELS, "ids": TOKENS, "mask": TOKENS, "text": ["a", "b"]}, (IDS, MASK)),
    "a dict of another class": (UserDict(ids=TOKENS, mask=TOKENS, types=TOKENS), (IDS, MASK)),
    "beside a dict": (({"ids": TOKENS, "mask": TOKENS}, LABELS), (IDS, MASK)),
    "beside a tuple": (((TOKENS, TOKENS), LABELS), (IDS, MASK)),
    "beside a tuple of one": (((IMAGES,), LABELS), (PICTURE,)),
    "lists beside a tuple": (((TOKENS, TOKENS), [0, 1]), (IDS, MASK)),
    "beside a list of tensors": ([[Torch(TOKENS), Torch(TOKENS)], Torch(LABELS)], (IDS, MASK)),
    "of a named tuple": (Tokens(LABELS, TOKENS, TOKENS), (IDS, MASK)),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_labels_are_passed_over_and_this_is_noted_once(kind: str) -> None:
    sample, inputs = BESIDE[kind]
    feeds, warnings = read([sample, sample], *inputs)
    assert len(feeds) == 2 and len(warnings) == 1 + (kind == "numbers of one image")
    assert "not read" in warnings[0]
    for feed in feeds:
        for spec in inputs:
            np.testing.assert_array_equal(
                feed[spec.name], IMAGES[: len(feed[spec.name])] if spec is PICTURE else TOKENS
            )


def test_names_of_a_named_tuple_count_more_than_positions() -> None:
    feeds, _ = read([Tokens(LABELS, TOKENS + 1, TOKENS)], IDS, MASK)
    np.testing.assert_array_equal(feeds[0]["mask"], TOKENS + 1)
    pair = namedtuple("Pair", ["first", "second"])
    np.testing.assert_array_equal(read([pair(TOKENS, TOKENS + 1)], IDS, MASK)[0][0]["mask"], TOKENS + 1)


UNSURE: dict[str, tuple[Any, tuple[InputSpec, ...], tuple[str, ...]]] = {
    "an image to an image": ((IMAGES, IMAGES), (PICTURE,), ("[1] could be 'picture', too", "{'picture': sample[0]}")),
    "of a smaller one": ((IMAGES, IMAGES[:, :, :2]), (PICTURE,), ("[1] could be 'picture'",)),
    "doubles": ((IMAGES, IMAGES.astype(float)), (PICTURE,), ("[1] could be 'picture'",)),
    "three of tokens": ((TOKENS, TOKENS, TOKENS), (IDS, MASK), ("[2] could be 'ids'", "'mask': sample[1]")),
    "tokens of one text": ((TOKENS[0], TOKENS[0], TOKENS[1]), (IDS, MASK), ("[2] could be 'ids'",)),
    "labels first": ((LABELS, IMAGES), (PICTURE,), ("input 'picture', sample 0", "int64", "float32")),
    "tuples like inputs": (((TOKENS, TOKENS), TOKENS), (IDS, MASK), ("input 'ids', sample 0", "rank is 3")),
    "rows as one input": (([TOKENS[0], TOKENS[1]], TOKENS), (IDS, MASK), ()),
    "no value of its name": ({"image": IMAGES, "label": LABELS}, (PICTURE,), ("{'picture': sample['image']}",)),
    "columns as inputs": (
        ([Torch(c) for c in TOKENS.T[:2]], Torch(LABELS)),
        (IDS, MASK),
        ("'ids'", "rows, or columns"),
    ),
    "lists of columns": (([Torch(c) for c in TOKENS.T],) * 2, (IDS, MASK), ("'ids'", "rows, or columns")),
    "rows not put together": ([{"ids": TOKENS[0]}, {"ids": TOKENS[1]}], (IDS,), ("list of 2 dicts", "one by one")),
    "an image as it is": ((Drawn(np.zeros((4, 4, 3), np.uint8)), 7), (PICTURE,), ("'picture', sample 0", "uint8")),
}


@pytest.mark.parametrize("kind", UNSURE)
def test_what_is_not_sure_is_not_guessed(kind: str) -> None:
    sample, inputs, parts = UNSURE[kind]
    if not parts:  # a list of rows stays one input
        np.testing.assert_array_equal(read([sample], *inputs)[0][0]["ids"], TOKENS)
        return
    message = refused([sample], *inputs)
    for part in parts:
        assert part in message, message


# --- loaders --------------------------------------------------------------------------------------------------------


def test_a_map_style_data_set_ends_where_its_length_does() -> None:
    for _ in range(2):
        assert len(read(MapStyle(), X)[0]) == 4


def test_a_loader_without_a_length_may_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quark_onnx.engine.calibration_data.ENDLESS", 5)
    assert "gave 5 samples and do not end" in refused(Endless(), X)
    assert len(read(MapStyle(), X)[0]) == 4 and not source_of([ROWS] * 9, (X,)).open_end


class Pulled:
    """An iterator of tf: its own method raises where it ends."""

    def __init__(self) -> None:
        self.left = iter(ROWS)

    def __next__(self) -> np.ndarray:
        return next(self.left)

    def get_next(self) -> np.ndarray:
        if (row := next(self.left, None)) is None:
            raise RuntimeError("End of sequence")
        return row


def test_an_iterator_that_could_be_a_reader_is_read_once() -> None:
    data = open_data(Pulled(), (X,))
    assert len(list(data)) == 4
    with pytest.raises(DataError, match="cannot start again"):
        list(data)


def test_encoded_texts_are_a_stacked_dict() -> None:
    encoded = UserDict(ids=TOKENS.tolist(), mask=Torch(TOKENS), words=[["a"], ["b", "c"]])
    feeds, warnings = read(encoded, IDS, MASK)
    assert [feed["ids"].tolist() for feed in feeds] == [[[0, 1, 2]], [[3, 4, 5]]]
    assert any("'words'" in text for text in warnings)


# --- torch itself ---------------------------------------------------------------------------------------------------


def test_a_loader_of_torch_with_labels() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    images = torch.arange(240.0).reshape(5, 3, 4, 4).to(memory_format=torch.channels_last)
    for source in (
        data.DataLoader(data.TensorDataset(images, torch.arange(5)), batch_size=2),
        data.TensorDataset(images, torch.arange(5)),
        data.Subset(data.TensorDataset(images, torch.arange(5)), range(5)),
        data.DataLoader(list(images.bfloat16()), batch_size=2),
        data.DataLoader(list(images.double()), batch_size=2),
        [images.clone().requires_grad_()],
        images,
    ):
        for _ in range(2):
            feeds, _warnings = read(source, PICTURE)
            np.testing.assert_array_equal(np.concatenate([feed["picture"] for feed in feeds]), images.numpy())


def test_a_loader_of_torch_with_rows() -> None:
    torch = pytest.importorskip("torch")
    rows = [{"ids": [1, 2, 3], "label": i} for i in range(4)]
    loader = torch.utils.data.DataLoader
    assert "rows, or columns" in refused(loader(rows, batch_size=2), IDS)
    tensors = [{"ids": torch.tensor(row["ids"], dtype=torch.int32), "label": row["label"]} for row in rows]
    feeds, warnings = read(loader(tensors, batch_size=2), IDS)
    assert [feed["ids"].shape for feed in feeds] == [(2, 3)] * 2
    assert warnings == [
        "what samples hold besides the model's inputs is not read: 'label'",
        "input 'ids': int32 were cast to int64",
    ]


def test_a_stream_of_torch_may_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc,name-defined]
        def __iter__(self) -> Iterator[Any]:
            return itertools.repeat(torch.ones(2), 100)

    monkeypatch.setattr("quark_onnx.engine.calibration_data.ENDLESS", 5)
    assert "do not end" in refused(torch.utils.data.DataLoader(Stream(), batch_size=2), X)
