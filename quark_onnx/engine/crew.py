"""Processes that share the work on one model, on this machine or on others, and the passes over samples they share.

    model ─ packed, sent once ─▶ each process: make(model) = work      shard ─▶ work(shard)      in order of the shards

What is made of shards adds up in their order, and how samples are cut into shards does not depend on the crew: any
number of processes gives the same bits, and so does none at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.packed_model import PackedModel, packed, unpacked

T = TypeVar("T")

TOGETHER, ROOM = 16, 1 << 23
"""Feeds of a shard, and bytes of those of one that holds several: of more shards than processes, all have enough."""

Shard = Sequence[tuple[int, Feed]]
"""Feeds with their numbers."""


class Each(Protocol):
    """Work that all processes of a crew are ready for."""

    def __call__(self, jobs: Iterable[Any], *common: Any) -> Iterator[Any]:
        """What `work(job, *common)` makes of each job, in their order; what is common goes once to each process."""
        ...


class Crew(Protocol):
    """Processes, each of which works on a job at a time. What one was at when it was lost, another does."""

    @property
    def slots(self) -> int:
        """Jobs at a time."""
        ...

    def ready(self, make: Callable[[], Callable[..., Any]]) -> AbstractContextManager[Each]:
        """Have every process make its work, once, when it gets the first job. All of it has to be picklable."""
        ...


def over(crew: Crew, model: Model, make: Callable[[Model], Callable[[Any], T]], jobs: Iterable[Any]) -> Iterator[T]:
    """What the crew makes of jobs with a model, in their order."""
    with crew.ready(partial(_made, make, packed(model))) as each:
        yield from each(jobs)


def _made(make: Callable[[Model], Callable[[Any], T]], parts: PackedModel) -> Callable[[Any], T]:
    return make(unpacked(parts))


def shards(feeds: Iterable[Feed]) -> Iterator[Shard]:
    """The feeds, a few at a time."""
    shard: list[tuple[int, Feed]] = []
    size = 0
    for number, feed in enumerate(feeds):
        held = sum(array.nbytes for array in feed.values() if isinstance(array, np.ndarray))
        if shard and (len(shard) == TOGETHER or size + held > ROOM):
            yield shard
            shard, size = [], 0
        shard.append((number, feed))
        size += held
    if shard:
        yield shard


Look = Callable[[int, Mapping[str, Any]], T]
"""What is found in the feed of a number: in its arrays, and the tensors that were asked for, by name."""


def passed(
    model: Model,
    tensors: Sequence[str],
    feeds: Iterable[Feed],
    look: Look[T],
    crew: Crew | None = None,
) -> Iterator[T]:
    """What `look(number, values)` finds in each feed, in their order.

    Args:
        tensors: of the model, inputs among them.
        look: picklable where there is a crew, whose processes call it.

    Raises:
        DataError: the model fails on a feed.
    """
    if crew is None:
        yield from _look(look, tapped(model, tensors), enumerate(feeds))
        return
    for found in over(crew, model, partial(_looker, tensors, look), shards(feeds)):
        yield from found


def tapped(model: Model, tensors: Sequence[str], threads: int = 0) -> Runner:
    """What returns these tensors of a model, but for its inputs."""
    inputs = {value.name for value in model.graph.inputs}
    fetched = [name for name in tensors if name not in inputs]
    return Runner(io.with_outputs(model, fetched), fetched or None, threads=threads)


def _looker(tensors: Sequence[str], look: Look[T], model: Model) -> Callable[[Shard], list[T]]:
    runner = tapped(model, tensors, threads=1)
    return lambda shard: list(_look(look, runner, shard))


def _look(look: Look[T], runner: Runner, feeds: Iterable[tuple[int, Feed]]) -> Iterator[T]:
    numbers: deque[int] = deque()

    def given() -> Iterator[Feed]:
        for number, feed in feeds:
            numbers.append(number)
            yield feed

    for feed, arrays in runner.stream(given()):
        yield look(numbers.popleft(), feed | dict(zip(runner.outputs, arrays, strict=True)))
