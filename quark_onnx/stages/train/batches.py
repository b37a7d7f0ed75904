"""Mini-batches of samples, in an order and with an augmentation that depend on (seed, epoch, sample) alone.

    feeds ─ rows apart ─▶ samples ─▶ held out: as they are     ─▶ shards
                                  ─▶ the others: shuffled, augmented ─▶ batches of shards

A shard is what runs together: samples of the same shapes. Whoever goes on in the middle of an epoch meets the same
batches, and no number of threads or workers has a say in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import DataError
from quark_onnx.core.resource_faults import let_out
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.labels import LABELS
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.stacked_feeds import joined, run
from quark_onnx.graph import Model
from quark_onnx.graph.bodies import bodies
from quark_onnx.graph.view import shape
from quark_onnx.numerics.layer.held_out_split import held_out

Augment = Callable[[Feed, np.random.Generator], Mapping[str, Any]]
"""What makes another sample of one: its arrays by input (and under `LABELS`, where there are labels), which it leaves
as they are, and a source of chance; arrays of the same shapes and types come out."""

ORDER = 0
"""Stream of chance for the order of an epoch; that of sample n is n + 1."""


class Batches:
    """What is trained on, and what judges.

    Args:
        feeds: what the user gave, with labels under `LABELS` where there are any.
        batch_size: samples between two changes of the parameters.
        shard: samples that run together, at most.
        holdout: share of the samples that judges, at least one of two or more; 0: those judge that are trained on.
        augment: what is done to a sample before it is trained on.
        batched: samples may be put together, and feeds of several taken apart; else each feed is a sample.

    Raises:
        DataError: nothing would be left to train on.
    """

    def __init__(
        self,
        feeds: Kept,
        *,
        batch_size: int,
        shard: int,
        seed: int,
        holdout: float = 0.1,
        augment: Augment | None = None,
        batched: bool = True,
    ) -> None:
        self._samples = _apart(feeds) if batched else feeds
        if not self._samples:
            raise DataError("there is no sample to train on; give some hundreds, with labels or without")
        held = held_out(len(self._samples), holdout, seed)
        self._taught = np.flatnonzero(~held)
        self._judging = np.flatnonzero(held) if holdout else self._taught
        self._batch_size, self._seed, self._augment = batch_size, seed, augment
        self._shard = shard if batched else 1
        self.held_out: Sequence[Feed] = _Shards(self._samples, self._shards(self._judging))
        """Shards that judge: never augmented, always in this order."""

    def __len__(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return -(-len(self._taught) // self._batch_size)

    @property
    def samples(self) -> int:
        """How many are trained on."""
        return len(self._taught)

    @property
    def judges(self) -> int:
        """How many judge."""
        return len(self._judging)

    def digest(self) -> str:
        """Of all samples and their labels, in their order."""
        found = hashlib.sha256()
        for sample in self._samples:
            for name, array in sorted(sample.items()):
                found.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    @property
    def labelled(self) -> bool:
        """Whether samples have labels."""
        return LABELS in self._samples[0]

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Of what all shards hold, by name; None along axis 0, of which shards take as much as they like, and where
        samples differ. What has another number of axes from sample to sample is missing."""
        found: dict[str, tuple[int | None, ...]] = {}
        for name, first in self._samples.entries[0].items():
            seen = {_shape(entry[name]) for entry in self._samples.entries}
            if len({len(dims) for dims in seen}) == 1 and _shape(first):
                sizes = (set(along) for along in zip(*(dims[1:] for dims in seen), strict=True))
                found[name] = (None, *(sole.pop() if len(sole) == 1 else None for sole in sizes))
        return found

    def epoch(self, number: int, first: int = 0) -> Iterator[list[Feed]]:
        """The batches of an epoch from `first` on, each a list of shards."""
        order = self._taught[self._chance(number, ORDER).permutation(len(self._taught))]
        for start in range(first * self._batch_size, len(order), self._batch_size):
            yield [
                _stacked([self._augmented(i, number) for i in members])
                for members in self._shards(order[start : start + self._batch_size])
            ]

    def _chance(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, epoch, stream]))

    def _augmented(self, sample: int, epoch: int) -> Feed:
        feed = self._samples[sample]
        if self._augment is None:
            return feed
        try:
            found = self._augment(dict(feed), self._chance(epoch, sample + 1))
        except Exception as error:  # a function of the user's may fail with anything
            let_out(error)
            raise DataError(f"the augmentation fails on sample {sample}: {type(error).__name__}: {error}") from error
        return conformed(found, feed)

    def _shards(self, members: Iterable[int]) -> list[list[int]]:
        """Samples of the same shapes, as many as run together, in the order of the first ones."""
        alike: dict[Any, list[int]] = {}
        for i in map(int, members):
            shapes = {name: _shape(entry) for name, entry in self._samples.entries[i].items()}
            alike.setdefault(tuple(shapes.items()), []).append(i)
        step = self._shard
        return [group[k : k + step] for group in alike.values() for k in range(0, len(group), step)]


class _Shards(Sequence[Feed]):
    """Samples put together when they are asked for."""

    def __init__(self, samples: Kept, members: Sequence[Sequence[int]]) -> None:
        self._samples, self._members = samples, members

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> _Shards: ...

    def __getitem__(self, index: int | slice) -> Feed | _Shards:
        if isinstance(index, slice):
            return _Shards(self._samples, self._members[index])
        return _stacked([self._samples[i] for i in self._members[index]])


def conformed(found: Mapping[str, Any], feed: Feed) -> Feed:
    """What an augmentation of the user's made of a sample.

    Raises:
        DataError: it is not what the model takes.
    """
    if not isinstance(found, Mapping) or found.keys() != feed.keys():
        told = sorted(found) if isinstance(found, Mapping) else type(found).__name__
        raise DataError(f"the augmentation made {told} of a sample of {sorted(feed)}; return a dictionary of the same")
    arrays = {name: np.ascontiguousarray(found[name]) for name in feed}
    for name, array in arrays.items():
        was = feed[name]
        if (array.shape, array.dtype) != (was.shape, was.dtype):
            raise DataError(
                f"the augmentation made {array.dtype} {array.shape} of {name!r}, which is {was.dtype} {was.shape}; "
                "return arrays of the same types and shapes"
            )
        # kernels may run without end on what is no number
        if array.dtype.kind == "f" and not np.isfinite(array).all() and np.isfinite(was).all():
            raise DataError(f"the augmentation made nan or inf of {name!r}, which has none; return finite numbers")
    return arrays


def without_judges(model: Model, feeds: Kept, settings: QAT) -> Kept:
    """What is not held out of training. Whoever chooses the start of it is to see no more: on samples that ranges and
    roundings were fitted to, the start looks better than it is, and nothing that training brings."""
    samples, held = _split(feeds, settings.holdout, settings.seed, batched=run_together(model, feeds))
    return samples.at(np.flatnonzero(~held).tolist())


def _split(feeds: Kept, holdout: float, seed: int, *, batched: bool) -> tuple[Kept, NDArray[np.bool_]]:
    """The samples, and which of them judge."""
    samples = _apart(feeds) if batched else feeds
    return samples, held_out(len(samples), holdout, seed)


def run_together(model: Model, feeds: Kept) -> bool:
    """Whether a model makes the same of samples put together as of each alone: all inputs leave axis 0 open, and the
    first samples that differ show it."""
    shapes = [shape(value) for value in model.graph.inputs if not value.is_initializer()]
    if not all(dims and dims[0] is None for dims in shapes) or any(bodies(model.graph)):
        return False
    pair = [sample for feed in islice(feeds, 2) for sample in islice(_rows(feed), 2)][-2:]
    return len(pair) < 2 or run(Runner(model), pair, None)[1]


def _apart(feeds: Kept) -> Kept:
    """The samples of feeds; the same where each holds one."""
    counts = [_count(entry) for entry in feeds.entries]
    return feeds if set(counts) <= {1} else keep(sample for feed in feeds for sample in _rows(feed))


def _rows(feed: Feed) -> Iterator[Feed]:
    for i in range(count := _count(feed)):
        yield feed if count == 1 else {name: array[i : i + 1] for name, array in feed.items()}


def _count(entry: Mapping[str, Any]) -> int:
    """Samples in a feed; 1 where its arrays do not agree."""
    rows = {(*_shape(each), 1)[0] for each in entry.values()}
    return rows.pop() if len(rows) == 1 else 1


def _shape(entry: Any) -> tuple[int, ...]:
    """Of an array, or of one that lies in a file."""
    found: tuple[int, ...] = entry.shape if isinstance(entry, np.ndarray) else entry[2]
    return found


def _stacked(samples: Sequence[Feed]) -> Feed:
    """Samples of the same shapes, one behind the other along axis 0."""
    if len(samples) == 1:
        return samples[0]
    return {name: joined([sample[name] for sample in samples]) for name in samples[0]}
