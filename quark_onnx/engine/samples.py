"""The calibration feeds, kept for as many passes as the stages need."""

from __future__ import annotations

import os
from collections.abc import Iterable

from quark_onnx.engine.data import Feed
from quark_onnx.engine.store import spilled

FALLBACK = 4 << 30  # bytes assumed where the system does not tell its memory


def keep(data: Iterable[Feed], limit: int) -> list[Feed]:
    """All feeds, in order; those beyond `limit` bytes lie in temporary files that vanish with them."""
    feeds, held = [], 0
    for feed in data:
        held += sum(array.nbytes for array in feed.values())
        feeds.append(feed if held <= limit else dict(zip(feed, spilled(list(feed.values())), strict=True)))
    return feeds


def quarter_of_memory() -> int:
    """A quarter of the physical memory, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (ValueError, AttributeError):  # Windows has no sysconf
        return FALLBACK // 4
