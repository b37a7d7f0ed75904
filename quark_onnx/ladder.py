"""A ladder: candidates are tried in their order until one is good enough; else the best of all is kept.

What a candidate is, how it is tried and which of two is better is for the caller to say; so is what to do where one
fails: an attempt that gives None has put that on record itself, and the next one is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Rung = TypeVar("Rung")
Found = TypeVar("Found")


def _never(best: object) -> bool:
    return False


def _left_alone(other: object) -> None:
    """Nothing is done about what is not the best."""


@dataclass
class Ladder(Generic[Rung, Found]):
    """A climb and how far it is.

    attempt  makes something of a rung; None: that failed
    better   whether the first, which is new, is better than the second
    enough   whether the best makes further rungs unnecessary; by default all are tried
    left     told of each that is not the best, or is it no more
    best     of those so far: rungs that a generator yields may depend on it, and it is there after an interruption
    """

    attempt: Callable[[Rung], Found | None]
    better: Callable[[Found, Found], bool]
    enough: Callable[[Found], bool] = _never
    left: Callable[[Found], None] = _left_alone
    best: Found | None = None

    def climb(self, rungs: Iterable[Rung]) -> Found | None:
        """Try one rung after the other; the best in the end, None where all failed."""
        for rung in rungs:
            found = self.attempt(rung)
            if found is None:
                continue
            other, self.best = (self.best, found) if self._gains(found) else (found, self.best)
            if other is not None:
                self.left(other)
            if self.best is not None and self.enough(self.best):
                break
        return self.best

    def _gains(self, found: Found) -> bool:
        return self.best is None or self.better(found, self.best)
