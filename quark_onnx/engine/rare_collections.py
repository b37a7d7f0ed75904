"""Python's search for reference cycles, made rare while a graph is worked on.

It looks at all objects there are, again and again while they become more: at a graph of 5,000 nodes for 40 % of the
time. What it would free are copies of graphs, and those are freed a little later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 100_000
"""New objects between two searches among the new ones; Python's own is 700 to 2,000."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Inside, searches are rare; afterwards they are as they were."""
    before = gc.get_threshold()
    if 0 < before[0] < OBJECTS:  # somebody else may have switched them off, or made them rarer
        gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
