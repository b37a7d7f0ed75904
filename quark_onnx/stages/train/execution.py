"""Who computes the shards of a mini-batch: threads here, or others elsewhere. Sums are the business of the caller.

values, shards ─▶ gradients or losses of each shard, in the order of the shards
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from numpy.typing import NDArray

from quark_onnx.core.threads import cores
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.stages.train.step import Evaluated, Gradients, Step

Array = NDArray[Any]
Values = Mapping[str, Array]


class Execution(Protocol):
    """Computes shards. Any number of threads or processes gives the same."""

    def gradients(self, values: Values, shards: Sequence[Feed]) -> Iterator[Gradients]:
        """Of each shard, in their order. values: of all inputs that stand for parameters."""

    def evaluate(self, values: Values, shards: Sequence[Feed]) -> Iterator[Evaluated]:
        """Losses and outputs of each shard, in their order."""


class Threads:
    """A thread for each core, each with a step of its own."""

    def __init__(self, make: Callable[[], Step], pool: ThreadPoolExecutor) -> None:
        self._make, self._pool, self._own = make, pool, threading.local()

    def gradients(self, values: Values, shards: Sequence[Feed]) -> Iterator[Gradients]:
        """See `Execution`."""
        return self._pool.map(lambda shard: self._step.gradients(values, shard), shards)

    def evaluate(self, values: Values, shards: Sequence[Feed]) -> Iterator[Evaluated]:
        """See `Execution`. A shard is read when its turn comes near: there may be many."""
        ahead = 2 * cores()
        for start in range(0, len(shards), ahead):
            part = shards[start : start + ahead]
            yield from self._pool.map(lambda shard: self._step.evaluate(values, shard), part)

    @property
    def _step(self) -> Step:
        """Of this thread."""
        if not hasattr(self._own, "step"):
            self._own.step = self._make()
        found: Step = self._own.step
        return found


@contextlib.contextmanager
def threads(make: Callable[[], Step]) -> Iterator[Threads]:
    """As many threads as there are cores to use."""
    with ThreadPoolExecutor(cores()) as pool:
        yield Threads(make, pool)
