"""A crew whose processes are workers of dask.distributed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker

from quark_onnx.cluster.held_work import Sealed, Work, done, handed
from quark_onnx.core.errors import ResourceError
from quark_onnx.engine.crew import Each

PATIENCE = 60
"""Seconds after which it is asked whether there is still a worker."""

LARGE = {"distributed.admin.large-graph-warning-threshold": "1TB"}
"""A model and its samples are large, and that is meant."""


@dataclass(frozen=True)
class DaskCrew:
    """Workers that a client of dask.distributed has. A job is never the fault of those lost with it, but of thrice."""

    client: Client

    @property
    def slots(self) -> int:
        """See `Crew`."""
        threads: dict[str, int] = self.client.nthreads()
        return max(1, sum(threads.values()))

    @contextlib.contextmanager
    def ready(self, make: Callable[[], Callable[..., Any]]) -> Iterator[Each]:
        """See `Crew`."""
        held = self._sent(Work(make))
        yield partial(self._each, held)
        held.release()

    def _each(self, held: Future[Work], jobs: Iterable[Any], *common: Any) -> Iterator[Any]:
        """Jobs are handed out a little ahead of what is collected: no worker waits, and few samples are under way."""
        shared = [self._sent(value) for value in common]
        ahead = 2 * self.slots
        waiting: deque[Future[Any]] = deque()
        try:
            for job in jobs:
                waiting.append(self._submitted(done, held, Sealed(job), *shared))
                if len(waiting) > ahead:
                    yield self._found(waiting.popleft())
            while waiting:
                yield self._found(waiting.popleft())
        finally:
            self.client.cancel(list(waiting))

    def _sent(self, value: Any) -> Future[Any]:
        return self._submitted(handed, Sealed(value))

    def _submitted(self, task: Callable[..., Any], *given: Any) -> Future[Any]:
        with dask.config.set(LARGE):
            return self.client.submit(task, *given, key=f"quark-onnx-{task.__name__}-{uuid4().hex}", pure=False)

    def _found(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=PATIENCE)
            except TimeoutError as error:
                if future.done():  # it is what the job ended with
                    raise
                if not self.client.nthreads():
                    raise ResourceError("all workers are lost; start others, and try again") from error
            except KilledWorker as error:
                raise ResourceError(
                    "several workers were lost at the same piece of work, as they are where memory runs out: give each "
                    "more of it, or use fewer workers"
                ) from error
            except CancelledError as error:
                raise ResourceError("the scheduler of the workers is lost; start it, and try again") from error
