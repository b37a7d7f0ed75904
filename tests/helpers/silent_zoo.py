"""Who is told of the conversion of a zoo's model, and says nothing."""

from __future__ import annotations

from typing import Any


class Silent:
    """Told of progress, and keeps it to itself."""

    stage = ""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self.stage = stage

    def write(self, **values: Any) -> None:
        """Nothing."""
