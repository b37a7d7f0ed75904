"""Searches for reference cycles are rare inside, and afterwards as they were, whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from quark_onnx.clock import Clock
from quark_onnx.engine.rare_collections import OBJECTS, rare_collections


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("before", "inside"), [(700, OBJECTS), (0, 0), (10 * OBJECTS, 10 * OBJECTS)])
def test_searches_are_rare_inside_only(before: int, inside: int) -> None:
    """Those that are off stay off, and those that are rarer stay so."""
    gc.set_threshold(before, 11, 12)
    with rare_collections():
        assert gc.get_threshold() == (inside, 11, 12)
        with rare_collections():
            assert gc.get_threshold() == (inside, 11, 12)
    assert gc.get_threshold() == (before, 11, 12)


def test_a_stage_that_fails_leaves_them_as_they_were() -> None:
    gc.set_threshold(700, 10, 10)
    seen = []
    with pytest.raises(MemoryError), Clock(lambda *_: seen.append(gc.get_threshold()[0])).stage("prepare"):
        seen.append(gc.get_threshold()[0])
        raise MemoryError
    assert seen == [700, OBJECTS]
    assert gc.get_threshold() == (700, 10, 10)


def test_cycles_are_still_found() -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self

    alive = 0
    with rare_collections():
        for _ in range(4 * OBJECTS):
            Node()
        alive = sum(isinstance(found, Node) for found in gc.get_objects())
    assert alive <= 2 * OBJECTS
