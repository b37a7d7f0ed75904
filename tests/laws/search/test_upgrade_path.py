"""The path of upgrades: every prefix is the best choice for some price of damage, and steps come in a fixed order."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.numerics.search.upgrade_path import upgrade_path

options = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4)
layers = st.lists(options, min_size=1, max_size=4)


def total(found: list[tuple[int, int]], chosen: list[int] | tuple[int, ...], part: int) -> int:
    return sum(layer[option][part] for layer, option in zip(found, chosen, strict=True))  # type: ignore[index, misc]


@given(layers)
def test_no_choice_beats_a_prefix_at_the_price_of_its_last_step(found) -> None:  # type: ignore[no-untyped-def]
    path = upgrade_path(found)
    for count, step in enumerate(path.steps, start=1):
        price = step.cost / step.gain
        own = [total(found, path.chosen(count), part) for part in (0, 1)]
        for other in product(*(range(len(layer)) for layer in found)):
            assert own[0] + price * own[1] <= total(found, other, 0) + price * total(found, other, 1) + 1e-9


@given(layers)
def test_steps_cost_more_and_gain_and_end_where_damage_is_least(found) -> None:  # type: ignore[no-untyped-def]
    path = upgrade_path(found)
    assert all(step.cost > 0 and step.gain > 0 for step in path.steps)
    ratios = [step.gain / step.cost for step in path.steps]
    assert ratios == sorted(ratios, reverse=True)
    assert total(found, path.start, 0) == sum(min(cost for cost, _ in layer) for layer in found)
    assert total(found, path.chosen(len(path.steps)), 1) == sum(min(d for _, d in layer) for layer in found)


def test_an_option_above_the_line_between_its_neighbours_is_never_taken() -> None:
    path = upgrade_path([[(0, 10), (5, 9), (10, 0)]])
    assert path.start == (0,) and [step.option for step in path.steps] == [2]
    assert [step.option for step in upgrade_path([[(0, 10), (5, 4), (10, 0)]]).steps] == [1, 2]
