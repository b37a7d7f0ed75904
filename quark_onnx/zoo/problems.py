"""What is wrong with a manifest: all of it is collected, then told at once."""

from __future__ import annotations

import re
from typing import NamedTuple

from quark_onnx.core.errors import ConfigError


class Problem(NamedTuple):
    """One thing that is wrong. `place` is `file:line`; `text` says what, and the way out."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class ManifestError(ConfigError):
    """A manifest that nothing was started from; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"the zoo has {count}, nothing was started:{lines}")


class Problems:
    """Collects problems; one that several entries inherit from the defaults counts once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, place: str, text: str) -> None:
        """Note a problem."""
        problem = Problem(place, text)
        if problem not in self.found:
            self.found.append(problem)

    def done(self) -> None:
        """The end of the search.

        Raises:
            ManifestError: there is something wrong.
        """
        if self.found:
            raise ManifestError(sorted(self.found, key=_line))


def _line(problem: Problem) -> int:
    """Problems are told in the order of the file; what comes from elsewhere is told first."""
    found = re.search(r":(\d+)$", problem.place)
    return int(found[1]) if found else 0
