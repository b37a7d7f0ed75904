"""Random models of fixed seeds, quantized in a process of their own: nothing that must hold of any model is broken.

`scripts/fuzz` goes on from other seeds, and makes what fails smaller.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from random_settings import random_settings
from workers import Worker

SEEDS, GROUP = 400, 20


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """The process that all seeds share, as long as it lives."""
    with Worker() as one:
        yield one


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_random_models(worker: Worker, first: int) -> None:
    wrong = {}
    for seed in range(first, first + GROUP):
        if (found := worker(seed)) is not None:
            wrong[seed] = (found.kind, found.text, random_settings(seed).plain)
    assert wrong == {}
