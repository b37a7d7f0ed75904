"""The table of layers: what its path costs, on how many samples it is measured, and what choices are called."""

from __future__ import annotations

import pytest

from quark_onnx.optimize.layer_table import LayerTable, estimated_time, samples_to_look_at, summary
from quark_onnx.optimize.records import LayerOption, LayerRow, Objective
from quark_onnx.stages.protect.integer_work import Work

ROWS = [
    LayerRow(
        (name,),
        "Conv",
        count,
        (
            LayerOption("w4", damage, count // 2, 2.0 * count),
            LayerOption("a8w8", damage / 10, count, 0.3 * count),
            LayerOption("float", 0.0, 4 * count, 1.0 * count),
        ),
    )
    for name, count, damage in (("one", 1000, 0.4), ("two", 4000, 0.1), ("three", 500, 0.02))
]


@pytest.mark.parametrize("objective", ["size", "balanced", "latency"])
def test_along_the_path_it_costs_more_and_does_less_damage(objective: Objective) -> None:
    table = LayerTable.of(ROWS, objective)
    costs = [table.cost(count) for count in range(table.steps + 1)]
    damages = [table.damage(count) for count in range(table.steps + 1)]
    assert costs == sorted(set(costs)) and damages == sorted(set(damages), reverse=True)
    assert damages[-1] == 0 and set(table.choices(table.steps).values()) == {"float"}
    for count in range(table.steps + 1):
        chosen = table.choices(count)
        picked = [next(o for o in row.options if o.choice == chosen[row.nodes[0]]) for row in ROWS]
        assert table.damage(count) == pytest.approx(sum(option.damage for option in picked))


def test_where_size_counts_it_begins_with_four_bits_and_where_time_does_with_integers() -> None:
    first = {objective: set(LayerTable.of(ROWS, objective).choices(0).values()) for objective in ("size", "latency")}
    assert first == {"size": {"w4"}, "latency": {"a8w8"}}


def test_what_is_chosen_is_told_in_the_rows() -> None:
    table = LayerTable.of(ROWS, "size")
    assert [row.chosen for row in table.with_chosen(table.choices(1))] == list(table.choices(1).values())
    assert [row.chosen for row in table.with_chosen({})] == ["", "", ""]


def test_large_and_deep_models_are_looked_at_on_fewer_samples() -> None:
    assert samples_to_look_at(100, 60, 10**7, 30) == 8
    assert samples_to_look_at(5, 60, 10**7, 30) == 5
    assert samples_to_look_at(100, 300, 10**9, 60) == 5  # many products
    assert samples_to_look_at(100, 900, 10**6, 300) == 6  # many layers
    assert samples_to_look_at(100, 3000, 10**6, 1000) == samples_to_look_at(100, 300, 10**11, 500) == 2


def test_estimates_of_time_are_in_that_of_the_float_model() -> None:
    work = Work({"one": 600, "two": 300}, {"add": 10})
    assert estimated_time(work, (), (), ()) == 1
    assert estimated_time(work, ("one",), (), ()) == pytest.approx((200 + 300 + 60) / 960)
    assert estimated_time(work, ("one",), (), ("one",)) == pytest.approx((400 + 300 + 60) / 960)
    assert estimated_time(work, ("one", "add"), ("two",), ()) == pytest.approx((200 + 600 + 30) / 960)


def test_choices_are_told_by_how_many_have_them() -> None:
    assert summary({"a": "w4", "b": "w4/32", "c": "float", "d": "w4/128"}) == "3 w4, 1 float"
