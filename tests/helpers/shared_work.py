"""A crew without processes that still sends everything as bytes, and jobs for the processes of real ones."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any


def through_bytes(value: Any) -> Any:
    """The value as another process gets it."""
    return pickle.loads(pickle.dumps(value))


class PicklingCrew:
    """Does its jobs here; `jobs` counts them."""

    jobs, slots = 0, 3

    @contextlib.contextmanager
    def ready(self, make: Callable[[], Callable[..., Any]]) -> Iterator[Callable[..., Iterator[Any]]]:
        yield partial(self._each, through_bytes(make)())

    def _each(self, work: Callable[..., Any], jobs: Iterable[Any], *common: Any) -> Iterator[Any]:
        held = through_bytes(common)
        for job in jobs:
            self.jobs += 1
            yield through_bytes(work(through_bytes(job), *held))


def working(numbers: Path) -> Callable[..., Any]:
    """What a process does: it says that it is ready in a file of its own."""
    (numbers / str(os.getpid())).touch()
    return _done


def _done(job: tuple[str, int], *common: int) -> tuple[int, int]:
    """(number + what is common, process); the job may also fail, or end its process unless it was there before."""
    what, number = job
    if what == "fail":
        raise ValueError(f"job {number}")
    if what == "slow":
        time.sleep(0.2)
    if what != "quick" and what != "slow":
        flag = Path(what)
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return number + sum(common), os.getpid()
