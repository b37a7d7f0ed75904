"""The fold over layers that all tuning goes through: what is found is judged, taken or not, recorded and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from text_models import text_model

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import Tuning
from quark_onnx.engine.activation_walk import Visitor
from quark_onnx.engine.tuning_walk import Finder, Found, along
from quark_onnx.graph import Node, io

NODES = {
    node.name or "": node
    for node in io.load(
        text_model("g (float[4] x) => (float[4] y) { [a] h = Relu (x) [b] k = Abs (h) [c] y = Neg (k) }")
    ).graph
}
PLAN = Plan("model", {})


def through(visit: Visitor) -> Plan:
    """A walk over the three layers, that hands a plan of its own to each."""
    for node in NODES.values():
        visit(node, frontier(), replace(PLAN))
    return PLAN


def frontier() -> Any:
    """Finders of these tests do not look at it."""


def found(*names: str, held: tuple[float, float] = (1.0, 0.1), signal: float | None = 10.0) -> Finder:
    """What lowers the errors of these layers, by a new note of the plan."""

    def find(node: Node, _: object, plan: Plan) -> Found:
        after = replace(plan, notes={**plan.notes, node.name or "": "better"})
        nodes = tuple(NODES[name] for name in names or (node.name or "",))
        return Found(after, nodes, "nearest", (2.0, 0.2), held, 7, signal)

    return find


def nothing(node: Node, _: object, plan: Plan) -> Found:
    return Found(plan, (node,), "nearest", (2.0, 0.2), (1.0, 0.1), 7, 10.0)


def run(
    finders: Mapping[str, Finder],
    helps: Callable[[Plan, Plan], bool] | None = None,
    tell: Callable[[str, int, int], None] = lambda text, done, layers: None,
    **sharing: list[str],
) -> Tuning:
    return along(through, PLAN, finders, {}, tell, helps, sharing)


def test_each_layer_is_looked_at_under_what_the_ones_before_it_made_of_the_plan() -> None:
    seen: list[list[str]] = []

    def find(node: Node, given: object, plan: Plan) -> Found | Skip | None:
        seen.append([*plan.notes])
        return found()(node, given, plan)  # type: ignore[arg-type]

    done = run(dict.fromkeys("abc", find))
    assert seen == [[], ["a"], ["a", "b"]]
    assert [*done.plan.notes] == ["a", "b", "c"]
    assert not done.interrupted


def test_a_record_says_what_a_layer_became() -> None:
    kept, none = found(), nothing
    done = run({"a": kept, "b": none, "c": kept}, lambda before, after: "c" not in after.notes)
    plain = [(r.node, r.op_type, r.choice, r.accepted, r.iterations) for r in done.records]
    assert plain == [
        ("a", "Relu", "nearest", True, 7),
        ("b", "Abs", "raw", False, 7),
        ("c", "Neg", "nearest", False, 7),
    ]
    losses = [(r.loss_before, r.loss_after, r.held_before, r.held_after) for r in done.records]
    assert losses == [(2.0, 0.2, 1.0, 0.1), (2.0, 2.0, 1.0, 1.0), (2.0, 0.2, 1.0, 0.1)]
    assert [*done.plan.notes] == ["a"]
    assert all(record.seconds >= 0 for record in done.records)


def test_nobody_is_asked_about_a_plan_that_is_the_same() -> None:
    asked: list[Plan] = []
    done = run(dict.fromkeys("abc", nothing), lambda before, after: bool(asked.append(after)))
    assert done.plan is PLAN
    assert asked == []


def test_layers_with_one_weight_are_done_at_the_last_of_them() -> None:
    def later(node: Node, given: object, plan: Plan) -> None:
        return None

    done = run({"a": later, "b": found("a", "b"), "c": found()})
    assert [record.node for record in done.records] == ["a", "b", "c"]
    assert (done.reasons, [*done.plan.notes]) == ({}, ["b", "c"])


def test_a_reason_goes_to_all_that_share_the_weight_but_not_over_their_own() -> None:
    def why(node: Node, given: object, plan: Plan) -> Skip:
        return Skip(f"because of {node.name}")

    done = run({"a": found(), "b": why, "c": why}, a=["b"], b=["a", "c"], c=["b"])
    assert done.reasons == {
        "a": "shares its weight with 'b': because of b",
        "b": "because of b",
        "c": "because of c",
    }


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupt_keeps_what_is_done(at: int) -> None:
    def tell(text: str, done: int, layers: int) -> None:
        if text == "abc"[at]:
            raise KeyboardInterrupt

    done = run(dict.fromkeys("abc", found()), tell=tell)
    assert done.interrupted
    assert [record.node for record in done.records] == [*done.plan.notes] == [*"abc"[:at]]
    assert done.reasons == dict.fromkeys("abc"[at:], "fine-tuning ended earlier")
    assert (done.done, done.layers, done.late) == (at, 3, "")


def test_a_layer_that_waited_for_one_that_was_not_reached_is_left() -> None:
    def later(node: Node, given: object, plan: Plan) -> None:
        return None

    def tell(text: str, done: int, layers: int) -> None:
        if text == "c":
            raise KeyboardInterrupt

    done = run({"a": later, "b": found(), "c": found("a", "c")}, tell=tell)
    assert done.reasons == dict.fromkeys("ac", "fine-tuning ended earlier")


def test_what_is_told() -> None:
    said: list[tuple[str, int, int]] = []
    silent, lost, exact = found(signal=None), found(held=(10.0, 1.0)), found(held=(0.1, 0.0))
    run({"a": silent, "b": lost, "c": exact}, tell=lambda *words: said.append(words))
    assert said == [
        ("a", 0, 3),
        ("b", 1, 3),
        ("b: 0.0 → 10.0 dB (nearest)", 2, 3),
        ("c", 2, 3),
        ("c: 20.0 → inf dB (nearest)", 3, 3),
    ]
