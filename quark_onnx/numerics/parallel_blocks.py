"""Work in blocks whose size never depends on the number of workers: any number gives the same bits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Job = TypeVar("Job")
Done = TypeVar("Done")

BLOCK = 2**15
"""Weights in a block of rows: a dozen float32 arrays of it fit into the cache of one core."""

ROWS = 32
"""Fewest rows in a block: below, reading the K×K matrix costs more than multiplying with it (16 rows: half as fast)."""

AHEAD = 16
"""Jobs handed out before the oldest is collected: enough for the workers."""


def in_order(
    run: Callable[[Job], Done], jobs: Iterable[Job], pool: Executor | None, ahead: int = AHEAD
) -> Iterator[Done]:
    """`map(run, jobs)` with the results in the order of the jobs; on the pool when there is one.

    At most `ahead` + 1 jobs are handed out and not collected: a bound on the memory of their results. The pool must
    not be the one that the caller itself runs on: a full pool that waits for itself never ends.
    """
    if pool is None:
        yield from map(run, jobs)
        return
    waiting: deque[Future[Done]] = deque()
    for job in jobs:
        waiting.append(pool.submit(run, job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def row_blocks(shape: tuple[int, ...], weights: int | None = None) -> list[slice]:
    """Rows of a (G, R, K) weight in blocks of about so many weights, `BLOCK` by default, at least `ROWS` rows each."""
    groups, rows, inputs = shape
    step = max(ROWS, (weights or BLOCK) // max(1, groups * inputs))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
