"""What workers hold between the jobs of one piece of work. It is the result of a task, so that dask makes it again, on
another worker, where the one that held it is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any


@dataclass(frozen=True)
class Sealed:
    """A value that dask carries without a look into it: it would search lists for tasks, and strings for their keys."""

    value: Any


class Work:
    """What does jobs; it is made when the first comes, once on every worker, and never leaves it.

    Args:
        make: of the function that does a job, which several threads may call at once.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]]) -> None:
        self._make, self._lock = make, Lock()
        self._run: Callable[..., Any] | None = None

    def __call__(self, job: Any, *common: Any) -> Any:
        with self._lock:
            run = self._run = self._run or self._make()
        return run(job, *common)

    def __reduce__(self) -> tuple[type[Work], tuple[Callable[[], Callable[..., Any]]]]:
        return Work, (self._make,)


def handed(sealed: Sealed) -> Any:
    """The task whose result is a value that workers are sent."""
    return sealed.value


def done(work: Work, job: Sealed, *common: Any) -> Any:
    """The task that is a job."""
    return work(job.value, *common)
