"""Bisection finds the end of a row that holds, in so many questions as it must ask."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.numerics.search.prefix_search import last_that_holds


@given(st.data(), st.integers(0, 1000), st.integers(1, 1000))
def test_the_last_that_holds_is_found_in_few_questions(data: st.DataObject, yes: int, length: int) -> None:
    last = data.draw(st.integers(yes, yes + length - 1))
    asked: list[int] = []

    def holds(n: int) -> bool:
        asked.append(n)
        return n <= last

    assert last_that_holds(holds, yes, yes + length) == last
    assert len(asked) == len(set(asked)) <= math.ceil(math.log2(length))
    assert all(yes < n < yes + length for n in asked)


@given(st.lists(st.booleans(), max_size=40))
def test_of_any_row_it_holds_and_the_next_does_not(row: list[bool]) -> None:
    whole = [True, *row, False]
    found = last_that_holds(whole.__getitem__, 0, len(whole) - 1)
    assert whole[found] and not whole[found + 1]
