"""Ladders: the first that is good enough, else the best; failures are passed over, and nothing is tried in vain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.ladder import Ladder

Scored = tuple[int, int]
SCORES = st.lists(st.none() | st.integers(0, 9), max_size=12)


def ladder(scores: list[int | None], enough: int, left: list[Scored]) -> Ladder[int, Scored]:
    """Of rungs that are indices of scores; None: it fails."""

    def attempt(index: int) -> Scored | None:
        score = scores[index]
        return None if score is None else (index, score)

    return Ladder(attempt, lambda new, old: new[1] > old[1], lambda best: best[1] >= enough, left.append)


@given(SCORES, st.integers(0, 12))
def test_the_first_that_is_enough_else_the_first_of_the_best(scores: list[int | None], enough: int) -> None:
    left: list[Scored] = []
    rungs = iter(range(len(scores)))
    best = ladder(scores, enough, left).climb(rungs)
    done = [(i, s) for i, s in enumerate(scores) if s is not None]
    good = [pair for pair in done if pair[1] >= enough]
    assert best == (good[0] if good else max(done, key=lambda pair: pair[1], default=None))
    tried = done[: done.index(good[0]) + 1] if good else done
    assert sorted([*left, *([best] if best else [])]) == tried
    assert list(rungs) == (list(range(good[0][0] + 1, len(scores))) if good else [])


def test_rungs_may_depend_on_what_is_best_so_far() -> None:
    """Each rung goes one up from the best, and one of them fails."""
    climbed = ladder([0, 1, None, 3, 4, 5], 4, [])
    seen: list[Scored | None] = []

    def following() -> Iterator[int]:
        for index in (1, 2, 0, 4, 5):
            seen.append(climbed.best)
            yield index

    assert climbed.climb(following()) == (4, 4)
    assert seen == [None, (1, 1), (1, 1), (1, 1)]


def test_without_a_limit_all_are_tried_and_more_may_follow() -> None:
    tried: list[int] = []
    every: Ladder[int, int] = Ladder(lambda rung: tried.append(rung) or rung, lambda new, old: new > old)
    assert [every.climb([1, 3, 2]), every.climb([2]), every.climb([4])] == [3, 3, 4]
    assert tried == [1, 3, 2, 2, 4]


def test_an_interruption_leaves_the_best() -> None:
    def attempt(rung: int) -> int:
        if rung == 3:
            raise KeyboardInterrupt
        return rung

    stopped: Ladder[int, int] = Ladder(attempt, lambda new, old: new > old)
    with pytest.raises(KeyboardInterrupt):
        stopped.climb([2, 1, 3, 4])
    assert stopped.best == 2
