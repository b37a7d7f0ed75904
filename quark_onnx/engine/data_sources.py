"""Where calibration samples come from: readers, iterables, stacked arrays, files and folders.

`source_of` turns whatever the user has into a `Source`: something that starts anew for every pass and hands out
raw items one at a time. Nothing is checked against the model here beyond what is needed to cut data into items;
that is the task of `calibration_data`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from quark_onnx.core.errors import DataError, nearest, reading
from quark_onnx.core.resource_faults import let_out
from quark_onnx.engine.array_likes import array_of, holds_array
from quark_onnx.engine.images import IMAGE_SUFFIXES, ImageOptions, image_loader

WHAT_TO_PASS = (
    "pass a reader with get_next(), a list of feeds or arrays, a function that returns one, "
    "a stacked array, or the path of a folder of .npy, .npz or image files; only for a trial run, set UseRandomData"
)


@dataclass(frozen=True)
class InputSpec:
    """What a model input accepts. In `shape` a None dimension is dynamic; shape None: not even the rank is known.

    truth: numbers of any type are taken, for whether they are 0.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None
    truth: bool = False

    @property
    def batch(self) -> int | None:
        """The size of axis 0 if the model fixes it."""
        return self.shape[0] if self.shape else None


class Item(NamedTuple):
    """One raw item: a feed, an array, or a tuple of arrays; and the file it was read from, if any."""

    value: object
    file: str = ""


@dataclass(frozen=True)
class Source:
    """`start()` begins a pass; `once`, if not empty, says why there can be only one pass and what to do.

    `fleeting`: an array is good until the next one is asked for, as readers may write all of them into one buffer.
    `open_end`: how many items there are is not known, and may be more than anybody waits for.
    """

    start: Callable[[], Iterator[Item]]
    once: str = ""
    notes: Sequence[str] = ()
    fleeting: bool = False
    open_end: bool = False


def source_of(data: object, inputs: Sequence[InputSpec]) -> Source:
    """The source behind `data`; DataError if it is nothing we can read samples from.

    Tried in this order: path, class (called), reader, stacked dict, stacked array, iterable, function (called).
    """
    if data is None:
        raise DataError(f"there is no calibration data; {WHAT_TO_PASS}")
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, os.PathLike)):
        return open_path(data, inputs)
    if isinstance(data, type):
        return _factory(data, inputs)
    if hasattr(data, "get_next"):
        return _reader(data)
    if isinstance(data, Mapping):
        return Source(lambda: map(Item, stacked(data, inputs)))
    if holds_array(data):
        return Source(lambda: _stacked_array(data, inputs))
    if hasattr(data, "__iter__") or hasattr(data, "__getitem__"):
        return _iterable(cast("Iterable[object]", data))
    if callable(data):
        return _factory(data, inputs)
    raise DataError(f"cannot read calibration samples from {data!r:.80}; {WHAT_TO_PASS}")


def _factory(make: Callable[[], object], inputs: Sequence[InputSpec]) -> Source:
    return Source(lambda: source_of(make(), inputs).start(), fleeting=True, open_end=True)


def _reader(reader: Any) -> Source:
    """The protocol of onnxruntime and Quark: get_next() until None; rewind() or reset_iter() to begin again."""
    rewind = getattr(reader, "rewind", None) or getattr(reader, "reset_iter", None)
    once = (
        f"the calibration reader {type(reader).__name__!r} was read before and cannot start again; "
        "add a rewind() method to it, or pass a list of its feeds"
    )

    def start() -> Iterator[Item]:
        if rewind:
            rewind()
        while (item := _next_of(reader)) is not None:
            yield Item(item)

    return Source(start, once="" if rewind else once, fleeting=True, open_end=True)


def _next_of(reader: Any) -> object:
    """The next item or None. Readers that wrap a bare `next(...)` end with StopIteration: the same to us.

    What is an iterator as well is read as one: that of a data set of tf ends `get_next` with an error of its own.
    """
    try:
        return next(reader) if hasattr(reader, "__next__") else reader.get_next()
    except StopIteration:
        return None


def _iterable(data: Iterable[object]) -> Source:
    once = (
        f"the calibration data is a {type(data).__name__} that can be read only once, and it was read before; "
        "pass a list, or a function that returns a new generator each time"
    )
    # A DataLoader starts workers in iter(); looking for __next__ tells one-shot iterators without starting any.
    return Source(
        lambda: map(Item, _one_by_one(data)),
        once=once if hasattr(data, "__next__") else "",
        fleeting=not isinstance(data, (list, tuple)),
        open_end=_length(data) is None,
    )


def _one_by_one(data: Any) -> Iterator[object]:
    """A map-style data set of torch has no iterator, and need not end where its length does."""
    count = None if hasattr(data, "__iter__") else _length(data)
    return iter(data) if count is None else (data[index] for index in range(count))


def _length(data: Any) -> int | None:
    """None: not known. Loaders have a `__len__` also where what they load has none."""
    try:
        return len(data)
    except Exception as error:
        let_out(error)
        return None


def _stacked_array(array: object, inputs: Sequence[InputSpec], file: str = "") -> Iterator[Item]:
    """The samples of the one input's stacked array. With more inputs it stays whole, and is refused later."""
    if len(inputs) != 1:
        return iter([Item(array, file)])
    return (Item(feed, file) for feed in stacked({inputs[0].name: array}, inputs, file))


def stacked(arrays: Mapping[str, object], inputs: Sequence[InputSpec], file: str = "") -> Iterator[dict[str, object]]:
    """Cut name → (N, …) arrays into feeds of the model's fixed batch, or of 1.

    An array of one more dimension than its input is N whole samples. Arrays that hold a single sample (scalars
    too) and arrays of unknown name go into every feed. Raises DataError when the numbers of samples differ or one is 0.
    """
    specs = {spec.name: spec for spec in inputs}
    cuts = {name: _cut(name, value, specs.get(name)) for name, value in arrays.items()}
    if empty := [name for name, (count, _) in cuts.items() if not count]:
        raise DataError(f"input {empty[0]!r}{file and f', {file}'}: the array has no samples; {WHAT_TO_PASS}")
    counts = {name: count for name, (count, _) in cuts.items() if count != 1}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise DataError(f"the stacked inputs differ in their number of samples: {listed}; give all the same number")
    for index in range(next(iter(counts.values()), 1)):
        yield {name: take(0 if name not in counts else index) for name, (_, take) in cuts.items()}


def _cut(name: str, value: object, spec: InputSpec | None) -> tuple[int, Callable[[int], object]]:
    """The number of samples in the stacked array `value`, and the function that takes one out."""
    if spec is None:
        return 1, lambda _: value
    try:
        array = array_of(value)
    except Exception as error:  # another library's may be anything
        let_out(error)
        raise DataError(f"input {name!r}: not one stacked array ({error}); pass a list of feeds instead") from error
    rank = array.ndim if spec.shape is None else len(spec.shape)
    if array.ndim == rank > 0:
        step = spec.batch or 1
        return -(-len(array) // step), lambda i: array[i * step : (i + 1) * step]
    if array.ndim == rank + 1:
        return len(array), lambda i: array[i]
    return 1, lambda _: array


def open_path(path: str | os.PathLike[str], inputs: Sequence[InputSpec], options: ImageOptions | None = None) -> Source:
    """A .npy or .npz file of stacked arrays, or a folder of samples; DataError for anything else."""
    place = Path(path).expanduser()
    if place.is_dir():
        return _folder(place, inputs, options)
    if not place.exists():
        raise DataError(f"the calibration data {place} does not exist; {WHAT_TO_PASS}")
    if place.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"the calibration data {place} is neither a folder nor a .npy or .npz file; {WHAT_TO_PASS}")
    return Source(lambda: _stacked_file(place, inputs), notes=_unused(options, place))


def _stacked_file(file: Path, inputs: Sequence[InputSpec]) -> Iterator[Item]:
    value = _load(file, mapped=True)
    if isinstance(value, dict):
        return (Item(feed, str(file)) for feed in stacked(value, inputs, str(file)))
    return _stacked_array(value, inputs, str(file))


def _load(file: Path, *, mapped: bool = False) -> object:
    """An array (.npy), or a dict of arrays (.npz); DataError names the file.

    mapped: a .npy file stays open with its array, for one that holds all samples. A folder of as many files as there
        are samples has each of them open only while it is read.
    """
    with reading(file, DataError, "save plain arrays with numpy.save or numpy.savez"):
        if file.suffix.lower() == ".npy":
            array = np.lib.format.open_memmap(file, mode="r")
            return array if mapped else np.array(array)
        with file.open("rb") as handle, np.lib.npyio.NpzFile(handle) as arrays:
            return dict(arrays)


def _folder(folder: Path, inputs: Sequence[InputSpec], options: ImageOptions | None) -> Source:
    """The source of a folder that holds samples of exactly one kind; files of unknown kind are passed over."""
    kinds: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith("."):
            kinds.setdefault(_kind(entry), []).append(entry)
    found = ", ".join(f"{len(entries)} {kind}" for kind, entries in kinds.items()) or "nothing"
    others = len(kinds.pop("other files", ()))
    notes = [f"{folder}: {others} other files are not read"] if others else []
    if len(kinds) != 1:
        raise DataError(f"the folder {folder} holds {found}; it must hold samples of one kind: .npy, .npz or images")
    [(kind, files)] = kinds.items()
    if kind == "images":
        return Source(_images(files, inputs, options or ImageOptions()), notes=notes)
    notes += _unused(options, folder)
    if kind == "sub-folders":
        return Source(_paired(folder, files, inputs), notes=notes)
    if kind == ".npy files":
        _need_one(inputs, f"the .npy files in {folder}")
    return Source(lambda: (Item(_load(file), str(file)) for file in files), notes=notes)


def _kind(entry: Path) -> str:
    if entry.is_dir():
        return "sub-folders"
    suffix = entry.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "images"
    return f"{suffix} files" if suffix in (".npy", ".npz") else "other files"


def _unused(options: ImageOptions | None, place: Path) -> list[str]:
    return [f"the image options are not used: {place} holds arrays"] if options is not None else []


def _images(files: list[Path], inputs: Sequence[InputSpec], options: ImageOptions) -> Callable[[], Iterator[Item]]:
    _need_one(inputs, "images")
    load = image_loader(inputs[0].name, inputs[0].shape, inputs[0].dtype, options)
    return lambda: (Item(load(file), str(file)) for file in files)


def _need_one(inputs: Sequence[InputSpec], what: str) -> None:
    if len(inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in inputs)
        raise DataError(f"{what} feed one input, the model has {names}; use .npz files, or a sub-folder for each input")


def _paired(folder: Path, subs: list[Path], inputs: Sequence[InputSpec]) -> Callable[[], Iterator[Item]]:
    """Quark's layout: one sub-folder of .npy files for each input; files of equal name belong together."""
    names = {spec.name: {file.name for file in (folder / spec.name).glob("*.npy")} for spec in inputs}
    for sub in subs:
        if sub.name not in {Path(name).parts[0] for name in names}:
            raise DataError(f"the sub-folder {sub} is named after no input{nearest(sub.name, names)}")
    every = sorted(set().union(*names.values()))
    for name, present in names.items():
        if lacking := [file for file in every if file not in present]:
            raise DataError(f"input {name!r}: {folder / name} lacks {lacking[0]}, which other inputs have; add it")
    return lambda: (Item({name: _load(folder / name / file) for name in names}, f"{folder}/*/{file}") for file in every)
