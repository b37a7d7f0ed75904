"""While a run goes on, each warning is logged once: bodies of control flow and trials of a search may repeat it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("quark_onnx")


@contextmanager
def warnings_once() -> Iterator[None]:
    """From now on, until the run is over."""
    seen: set[str] = set()

    def unseen(record: logging.LogRecord) -> bool:
        text, known = record.getMessage(), len(seen)
        if record.levelno >= logging.WARNING:
            seen.add(text)
        return record.levelno < logging.WARNING or len(seen) > known

    logger.addFilter(unseen)
    try:
        yield
    finally:
        logger.removeFilter(unseen)
