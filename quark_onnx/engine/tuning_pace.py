"""How long tuning will take: what its layers are expected to take, set right by what those that are done have taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

TRUSTED = 1.0
"""Seconds after which what was measured counts as much as what was expected."""

TOLD = 2.0
"""Seconds from which on it is told how many are left."""

LONG = 10.0
"""Seconds of a layer that are told beside its name."""

MINUTES = 120.0
"""Seconds from which on minutes are told."""


class OutOfTime(Exception):
    """The next layer does not fit into the time that is left; the message says which, and how long it would take."""


@dataclass
class Pace:
    """A watch that runs while layers are tuned.

    expected  seconds of each layer on an ordinary processor, with what is computed from it to the next
    limit     seconds for all of them; None: any
    done      seconds expected of the layers that have begun, left: of the others
    """

    expected: Mapping[str, float]
    limit: float | None = None
    done: float = field(init=False, default=0.0)
    left: float = field(init=False)
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.start = sum(self.expected.values()), perf_counter()

    def begin(self, name: str) -> str:
        """The name of a layer, with what is worth telling of the time that it and those after it will take.

        Raises:
            OutOfTime: it does not fit.
        """
        spent, own = perf_counter() - self.start, self.expected.get(name, 0.0)
        rate = (TRUSTED + spent) / (TRUSTED + self.done)
        if self.limit is not None and spent + rate * own > self.limit:
            raise OutOfTime(f"{name!r} would take {about(rate * own)}")
        text = f"{name} ({about(rate * own)})" if rate * own >= LONG else name
        text += f", {about(rate * self.left)} left" if rate * self.left >= TOLD else ""
        self.done, self.left = self.done + own, self.left - own
        return text

    def __str__(self) -> str:
        """What is expected before anything is measured."""
        long = [f"{name!r} {about(own)}" for name, own in self.expected.items() if own >= LONG]
        return "; ".join((f"{len(self.expected)} layers, {about(self.left)}", *long))


def about(seconds: float) -> str:
    """`about 70 s`, `about 3 min`."""
    return f"about {seconds:.0f} s" if seconds < MINUTES else f"about {seconds / 60:.0f} min"
