"""What is told of a run while it goes on: the stage that it is in, and how long each took."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from quark_onnx.core.visible_text import shown
from quark_onnx.engine.rare_collections import rare_collections
from quark_onnx.engine.returned_memory import give_back

logger = logging.getLogger("quark_onnx")
logger.addFilter(shown)


class Progress(Protocol):
    """Told what happens; `total` is None where it is unknown."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


def unseen(stage: str, done: int, total: int | None) -> None:
    """The default progress: nothing."""


@dataclass
class Clock:
    """Seconds by stage; every stage is logged and announced."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, stage: str, total: int | None, done: int) -> None:
        """So many steps of a stage are done."""
        self.progress(stage, done, total)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.progress(name, 0, None)
        with rare_collections():
            yield
        give_back()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        logger.info("%s: %.2f s", name, self.seconds[name])
