"""Calibration data: anything a user has, validated against the model's inputs and streamed as feeds.

    source ─ items one by one ─▶ name them ─▶ array, shape, dtype, finite ─▶ split to the fixed batch ─▶ feeds

An array may be empty where the model leaves a dimension open: it is a sample without values. −∞ may be a mask, see
`infinite_masks`.

Every refusal names the input, the sample (counted from 0, before splitting) and the file it came from, and says
the way out. What was quietly put right (a cast, a missing batch axis), and what was not read (labels), is noted once in
`CalibrationData.warnings`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError, DataError, nearest
from quark_onnx.core.resource_faults import let_out
from quark_onnx.engine.data_sources import WHAT_TO_PASS, InputSpec, Item, open_path, source_of
from quark_onnx.engine.data_variety import Variety
from quark_onnx.engine.fitted_values import conform, refuse_infinite
from quark_onnx.engine.images import ImageOptions
from quark_onnx.engine.named_values import named

__all__ = ["CalibrationData", "Feed", "ImageOptions", "InputSpec", "open_data", "random_data", "told"]

Array = np.ndarray[Any, np.dtype[Any]]
Feed = dict[str, Array]
Draw = Callable[[np.random.Generator], Array]
Judge = Callable[[Feed], "str | None"]
"""The first output that is not finite for a feed; None: all are."""

RANDOM_WARNING = "calibrated on RANDOM data: accuracy cannot be trusted; use real samples for all but a trial run"
logger = logging.getLogger("quark_onnx")

ENDLESS = 200_000
"""Samples after which a reader of unknown length is taken for one that never ends, where no limit is set."""


class CalibrationData:
    """Validated feeds, streamed: one item in memory at a time, a new pass for every `for` loop over it.

    `limit` counts source items, before batches are split. `masks` makes a judge of feeds that hold −∞; without one they
    are refused. `warnings` grows during the first pass; at its end by inputs that never change. Raises DataError here
    for a source of unknown kind; in a pass, for a sample that does not fit, no samples, or no way to read again.
    """

    def __init__(
        self,
        source: object,
        inputs: Sequence[InputSpec],
        *,
        limit: int | None = None,
        masks: Callable[[], Judge] | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"the limit of calibration samples is {limit}; give at least 1, or None for all")
        self._source = source_of(source, inputs)
        self.inputs, self._limit, self._used, self._masks = tuple(inputs), limit, False, masks
        # A wrapped CalibrationData goes on noting in its own list, and its random-data warning must not get lost.
        self.warnings: list[str] = source.warnings if isinstance(source, CalibrationData) else list(self._source.notes)

    @property
    def limited(self) -> bool:
        """Whether there may be more items than are read."""
        return self._limit is not None

    def __iter__(self) -> Iterator[Feed]:
        return (feed for feed, _ in self.with_spare(0))

    def with_spare(self, count: int) -> Iterator[tuple[Feed, bool]]:
        """The feeds, and whether they lie beyond the limit: those of the next items, up to `count`, come last.

        A source that can be read only once is left as it is behind the limit: its owner may go on with it. What cannot
        be read there was not asked for, and is no error.
        """
        if self._used and self._source.once:
            raise DataError(self._source.once)
        self._used, index, seen, variety = True, -1, False, Variety()
        judge = None if self._masks is None else self._masks()
        items = self._source.start()
        try:
            for index, item in enumerate(islice(items, self._limit)):
                self._refuse_endless(index)
                where = f"sample {index} ({item.file})" if item.file else f"sample {index}"
                feed = self._feed(item.value, where)
                variety.add(feed)
                seen |= any(array.size for array in feed.values())
                yield from ((part, False) for part in self._parts(feed, where, judge))
        finally:  # also where the caller has enough
            for warning in variety.warnings():
                self._note(warning)
        if index < 0:
            raise DataError(f"the calibration data has no samples (left for this pass); {WHAT_TO_PASS}")
        if not seen and self.inputs:
            raise DataError(f"all arrays of all {index + 1} samples are empty: {WHAT_TO_PASS}")
        if count and self._limit is not None and not self._source.once:
            yield from ((feed, True) for feed in self._beyond(islice(items, count), judge))

    def _refuse_endless(self, index: int) -> None:
        if index == ENDLESS and self._limit is None and self._source.open_end:
            raise DataError(
                f"the calibration data gave {ENDLESS} samples and do not end, like a reader that begins again; "
                "set CalibDataSize (--samples) to as many as shall be used, or let the reader end"
            )

    def _beyond(self, items: Iterator[Item], judge: Judge | None) -> Iterator[Feed]:
        try:
            for item in items:
                where = f"a sample beyond the limit of {self._limit}"
                yield from self._parts(self._feed(item.value, where), where, judge)
        except Exception as error:  # a reader of the user's may fail with anything
            let_out(error)
            logger.info("nothing is read beyond the limit of %s samples: %s", self._limit, error)

    def _parts(self, feed: Feed, where: str, judge: Judge | None) -> Iterator[Feed]:
        """The feed in fixed batches; DataError where it holds −∞ that the model does not take for a mask."""
        for part in _split(feed, self.inputs, where):
            floats = {name: array for name, array in part.items() if array.dtype.kind == "f" and array.size}
            masked = [name for name, array in floats.items() if array.min() == -np.inf]
            if masked and judge is not None and (output := judge(part)) is not None:
                raise DataError(
                    f"input {masked[0]!r}, {where}: it holds -inf, which is fine as a mask in front of a Softmax, but "
                    f"the model's output {output!r} is not finite with it; repair the preprocessing, use a large "
                    "negative number, or leave this sample out"
                )
            yield part

    def _feed(self, value: object, where: str) -> Feed:
        """The item as a feed that stays what it is when the next one is read."""
        by_name = named(value, self.inputs, where, self._note)
        feed = {spec.name: conform(by_name[spec.name], spec, where, self._note) for spec in self.inputs}
        for spec in self.inputs:
            refuse_infinite(feed[spec.name], spec, where, masks=self._masks is not None)
        return {name: array.copy() for name, array in feed.items()} if self._source.fleeting else feed

    def _note(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def open_data(
    source: object,
    inputs: Sequence[InputSpec],
    *,
    path: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    image_options: ImageOptions | None = None,
    masks: Callable[[], Judge] | None = None,
) -> CalibrationData:
    """The data in `source` (any kind, also a path) or in the files at `path`: exactly one of the two.

    Raises ConfigError when both are given, DataError when none is or it cannot be read.
    """
    if source is not None and path is not None:
        raise ConfigError("both a calibration source and a calibration data path are given; pass only one")
    place = path if path is not None else source
    if isinstance(place, (str, os.PathLike)):
        return CalibrationData(open_path(place, inputs, image_options), inputs, limit=limit, masks=masks)
    data = CalibrationData(source, inputs, limit=limit, masks=masks)
    if image_options is not None:
        data.warnings.append("the image options are not used: the calibration data is not a folder of images")
    return data


def told(data: CalibrationData) -> Iterator[Feed]:
    """The feeds; what the data warn of is logged behind the last one, for callers that have no report."""
    try:
        yield from data
    finally:
        for warning in data.warnings:
            logger.warning(warning)


def random_data(
    inputs: Sequence[InputSpec],
    *,
    samples: int = 8,
    seed: int = 42,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> CalibrationData:
    """`samples` feeds of uniform noise, the same in every pass; says loudly that it is noise, in log and warnings.

    Values lie in [low, high) of `ranges`: by default [0, 1), for integers [0, 2). Dimensions the model leaves open are
    1 for axis 0, else 16, unless `shapes` has the input. Raises ConfigError for a name, shape or range that cannot be.
    """
    shapes, ranges, names = shapes or {}, ranges or {}, [spec.name for spec in inputs]
    for name in (*shapes, *ranges):
        if name not in names:
            raise ConfigError(f"random data: the model has no input {name!r}{nearest(name, names)}")
    noise = {spec.name: _noise(spec, _noise_shape(spec, shapes), ranges.get(spec.name)) for spec in inputs}

    def feeds() -> Iterator[Feed]:
        rng = np.random.default_rng(seed)
        while True:  # until the limit
            yield {name: draw(rng) for name, draw in noise.items()}

    data = CalibrationData(feeds, inputs, limit=samples)
    data.warnings.append(RANDOM_WARNING)
    logger.warning(RANDOM_WARNING)
    return data


def _noise_shape(spec: InputSpec, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    wanted = shapes.get(spec.name, spec.shape)
    if wanted is None:
        raise ConfigError(f"input {spec.name!r} has no known rank; give the random data a shape for it")
    shape = tuple((16 if axis else 1) if dim is None else dim for axis, dim in enumerate(wanted))
    if any(dim < 1 for dim in shape):
        raise ConfigError(f"random data shape of input {spec.name!r} is {list(shape)}; give positive numbers")
    return shape


def _noise(spec: InputSpec, shape: tuple[int, ...], span: tuple[float, float] | None) -> Draw:
    dtype, whole = spec.dtype, spec.dtype.kind in "iub"
    if dtype.kind in "OUST":
        raise DataError(f"input {spec.name!r} holds strings, which cannot be random; pass real samples")
    low, high = span or (0, 2 if whole else 1)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    if not low < high or (limits and not limits.min <= low < high <= limits.max + 1):
        raise ConfigError(f"random data range of {spec.name!r} is [{low}, {high}); low < high must fit {dtype}")
    if whole:
        return lambda rng: rng.integers(int(np.floor(low)), int(np.ceil(high)), shape).astype(dtype)
    return lambda rng: np.asarray(rng.uniform(low, high, shape)).astype(dtype)


def _split(feed: Feed, inputs: Sequence[InputSpec], where: str) -> Iterator[Feed]:
    """Cut a feed of k fixed batches into k feeds; DataError when the inputs disagree on k.

    Inputs of just one batch, and scalars, go into every part. An input that leaves axis 0 open is cut along when it
    has as many rows as an input that must be: both are then the same batch."""
    parts = {spec.name: len(feed[spec.name]) // spec.batch for spec in inputs if spec.batch}
    count = max(parts.values(), default=1)
    if any(part not in (1, count) for part in parts.values()):
        raise DataError(f"{where}: inputs split into different numbers of fixed batches {parts}; make them equal")
    rows = {len(feed[name]) for name, part in parts.items() if part == count > 1}
    along = [name for name, array in feed.items() if parts.get(name, count) == count and array.ndim]
    pieces = {name: np.split(feed[name], count) for name in along if len(feed[name]) in rows}
    for index in range(count):
        yield {name: pieces[name][index] if name in pieces else array for name, array in feed.items()}
