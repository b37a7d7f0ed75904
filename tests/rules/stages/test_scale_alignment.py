"""Scales that a target wants equal or near: groups that are merged, and positions that are moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantized_models import feeds, graph, graph_between, placed, run, settings

from quark_onnx.core.plan import Plan, QParams
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model, io
from quark_onnx.numerics.ranges import power_of_two_shifts as shifts
from quark_onnx.stages.place.storage_types import REMARK
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.scale_alignment import align, align_positions

# arithmetic ----------------------------------------------------------------------------------------------------------

place = st.integers(-20, 40)


def layer_holds(data: int, weight: int, output: int, bias: int | None) -> bool:
    """The limits as Quark writes them."""
    cut = weight + data - output
    lifts = 0 if bias is None else weight + data - bias
    return 0 <= cut <= 16 and min(0, -(24 - (8 + cut))) <= lifts <= 15


@given(place, place, place, st.none() | place)
def test_layers(data: int, weight: int, output: int, bias: int | None) -> None:
    w, o, b = shifts.layer(data, weight, output, bias)
    assert layer_holds(data, w, o, b)
    assert w <= weight
    assert o <= output
    assert bias is None or (b is not None and b <= bias)
    assert ((w, o, b) == (weight, output, bias)) is layer_holds(data, weight, output, bias)


@given(st.lists(place, min_size=2, max_size=3), place)
def test_additions(terms: list[int], output: int) -> None:
    def holds(terms: tuple[int, ...], output: int) -> bool:
        return max(terms) - min(terms) <= 7 and -7 <= min(terms) - output <= 25

    moved, o = shifts.added(terms, output)
    assert holds(moved, o)
    assert all(new <= old for new, old in zip((*moved, o), (*terms, output), strict=True))
    assert ((moved, o) == (tuple(terms), output)) is holds(tuple(terms), output)


@given(st.lists(place, min_size=2, max_size=2), place, st.sampled_from([15, 32]))
def test_products(factors: list[int], output: int, most: int) -> None:
    moved, o = shifts.multiplied(factors, output, most)
    assert 0 <= sum(moved) - o <= most
    assert all(new <= old for new, old in zip((*moved, o), (*factors, output), strict=True))
    assert ((moved, o) == (tuple(factors), output)) is (0 <= sum(factors) - output <= most)


@given(st.integers(-118, 118))
def test_positions_of_powers_of_two(p: int) -> None:
    scale = np.asarray(2.0**-p, np.float32)
    assert shifts.position(scale) == p
    assert shifts.position(np.asarray(scale * np.float32(1.5))) is None
    assert shifts.position(np.asarray([scale, scale])) is None


# models --------------------------------------------------------------------------------------------------------------


def at(plan: Plan, **positions: int) -> Plan:
    """The plan with these positions; tensors that are not named have 7."""
    places = {site.group: 7 for site in plan.sites.values()} | positions
    zero = np.asarray(0, np.int32)
    scales = {group: QParams(np.asarray(2.0**-p, np.float32), zero) for group, p in places.items()}
    return Plan(plan.model, plan.sites, plan.nodes, plan.notes, qparams=scales)


def settled(text: str, given: dict[str, int], **arrays: Any) -> tuple[dict[str, int | None], dict[str, str]]:
    """Positions that changed, and remarks."""
    model = graph(text, **arrays)
    plan = at(placed(model, target="vitisai"), **given)
    done = align_positions(model, plan)
    assert (done.sites, done.nodes) == (plan.sites, plan.nodes)
    found = {group: shifts.position(q.scale) for group, q in done.qparams.items()}
    return {g: p for g, p in found.items() if p != shifts.position(plan.qparams[g].scale)}, dict(done.remarks)


CONV = "(float[1,4,6,6] x) => (float[1,4,4,4] y) <float[4,4,3,3] w, float[4] b> { [n] y = Conv (x, w, b) }"
PRODUCT = "(float[2,4] x, float[2,4] z) => (float[2,4] y) { [n] y = Mul (x, z) }"
SUM = "(float[2,4] x, float[2,4] z) => (float[2,4] y) { [n] y = Add (x, z) }"
SWISH = "(float[2,4] x) => (float[2,4] y) { [g] h = HardSigmoid (x) [n] y = Mul (x, h) }"

CASES: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "near": (CONV, {}, {}),
    "output finer than the products": (CONV, {"x": 2, "w": 3}, {"y": 5}),
    "cut of 17 bits": (CONV, {"x": 9, "w": 9, "y": 1}, {"w": 8}),
    "bias too coarse to be shifted up": (CONV, {"w": 9, "b": 0, "x": 7}, {"w": 8}),
    "bias finer than the sum": (CONV, {"y": 0, "b": 17}, {"b": 16}),
    "behind a Relu": (
        CONV.replace("[n] y = Conv (x, w, b)", "[n] h = Conv (x, w, b) [r] y = Relu (h)"),
        {"w": -3},
        {"y": 4},
    ),
    "terms of an addition": (SUM, {"x": 12, "z": 3}, {"x": 10}),
    "result of an addition": (SUM, {"x": 1, "z": 1, "y": 9}, {"y": 8}),
    "result of a product": (PRODUCT, {"x": -2, "z": 1, "y": 3}, {"y": -1}),
    "coarse result of a product": (PRODUCT, {"x": 19, "z": 16, "y": 2}, {"x": 18}),
    "swish": (SWISH, {"x": 9, "h": 7, "y": 0}, {"x": 8}),
    "input of HardSigmoid": (SWISH, {"x": 17, "h": 7, "y": 12}, {"x": 15}),
}


@pytest.mark.parametrize(("text", "given", "expected"), CASES.values(), ids=CASES)
def test_positions_that_the_hardware_cannot_shift_between_are_moved(
    text: str, given: dict[str, int], expected: dict[str, int]
) -> None:
    moved, remarks = settled(text, given)
    assert moved == expected
    assert remarks.keys() == expected.keys()
    assert all("so that the shifts around it have few enough bits" in remark for remark in remarks.values())


def test_zeros_are_exact_at_any_position() -> None:
    """A bias of zeros has scale 1 as it has no range: that is no reason to make the weight coarser."""
    moved, _ = settled(CONV, {"w": 12, "b": 0}, b=np.zeros(4, np.float32))
    assert moved == {"b": 23}
    assert settled(CONV, {"w": 12, "b": 0})[0] == {"w": 8}


def test_one_move_leads_to_the_next_and_shared_scales_move_together() -> None:
    """The sum's output is lowered, which the second layer reads, and the pool in between shares its scale."""
    text = """(float[1,4,6,6] x) => (float[A,B,C,D] y) <float[4,4,1,1] w, float[4,4,1,1] v> {
        a = Conv (x, w) c = Add (a, x) p = MaxPool <kernel_shape=[2,2]> (c) y = Conv (p, v) }"""
    moved, _ = settled(text, {"x": 1, "w": -2, "c": 9, "v": 0})
    assert moved == {"a": -1, "c": 6, "y": 6}


def test_what_cannot_be_settled_is_said() -> None:
    """A loop through one scale: weights above 1 make the output coarser than the input, which is the same tensor."""
    text = "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w> { [n] y = Conv (x, w) }"
    model = graph(text)
    plan = at(placed(model, target="vitisai"), w=-1)
    sites = {name: site if name == "w" else replace(site, group="x") for name, site in plan.sites.items()}
    looped = Plan(plan.model, sites, plan.nodes, qparams={name: plan.qparams[name] for name in "xw"})
    assert "the shifts of 'n' have too many bits" in align_positions(model, looped).remarks["y"]
    assert not align_positions(model, at(placed(model, target="vitisai"), w=-1, y=6)).remarks


@pytest.mark.parametrize("scale", [np.float32(0.3), np.asarray([0.5, 0.25, 0.5, 0.5], np.float32)])
def test_other_scales_are_left_alone(scale: Any) -> None:
    model = graph(CONV)
    plan = at(placed(model, target="vitisai"), y=30)
    odd = QParams(np.asarray(scale), np.asarray(0, np.int32))
    wide = Plan(plan.model, plan.sites, plan.nodes, qparams={**plan.qparams, "w": odd})
    assert not align_positions(model, wide).remarks
    assert align_positions(model, plan).remarks


# scales that are equal -----------------------------------------------------------------------------------------------


def aligned(text: str, make: Callable[[str], Model] = graph, **fields: Any) -> tuple[Model, Plan]:
    """Quantized on data whose inputs differ in width: z is eight times as wide as x."""
    model = make(text)
    sites = placed(model, **fields)
    data = [{name: array * (8 if name == "z" else 1) for name, array in feed.items()} for feed in feeds(model)]
    statistics = observe(model, data, observed_tensors(sites), lambda done: None)
    config = settings(**fields)
    return model, align(model, choose_ranges(model, sites, statistics, config), config)


QNN = {"target": "qnn", "activation_type": "uint8"}
NPU = {"target": "vitisai"}
POOLED = (
    "(float[1,4,6,6] x, float[1,4,5,5] z) => (float[1,8,5,5] y)"
    " { [p] g = MaxPool <kernel_shape=[2,2]> (x) [n] y = Concat <axis=1> (g, z) }"
)


@pytest.mark.parametrize("fields", [QNN, NPU], ids=["qnn", "vitisai"])
def test_scales_that_placement_could_not_tie_become_one(fields: dict[str, Any]) -> None:
    """g moves values of x and is joined to z: x, g, z and y have one scale, which holds the values of all."""
    model, plan = aligned(POOLED, **fields)
    assert {site.group for site in plan.sites.values()} == {"y"} == set(plan.qparams)
    assert plan.remarks["g"] == "has the scale of 'y': all around Concat share one"
    q, format = plan.qparams["y"], plan.sites["y"].format
    low, high = ((code - int(q.zero_point)) * float(q.scale) for code in (format.lo, format.hi))
    for feed in feeds(model):
        assert low <= feed["x"].min() - 1e-6 <= feed["x"].max() + 1e-6 <= high
    io.check(quantized := apply(model, plan))
    run(quantized, feeds(model)[0])


def test_the_cpu_needs_no_such_thing() -> None:
    _, plan = aligned(POOLED, graph_between)
    assert inner(plan) == {"x", "z", "y"}
    assert plan.remarks == {"*": REMARK}
    _, plan = aligned(POOLED, **QNN, AlignConcat=False)
    assert len(plan.qparams) == 3


def test_the_cpu_does_it_where_it_is_asked_for() -> None:
    """Placement cannot tie g, which has the scale of x."""
    _, plan = aligned(POOLED, graph_between, AlignConcat=True)
    assert inner(plan) == {"y"}


def inner(plan: Plan) -> set[str]:
    """Groups that are not of the layers around."""
    return {site.group for site in plan.sites.values() if not site.tensor.startswith("outer_")}


def test_a_pool_between_two_concats_joins_both() -> None:
    text = """(float[1,4,6,6] x, float[1,4,6,6] z) => (float[A,B,C,D] y, float[1,8,6,6] d) {
        d = Concat <axis=1> (x, z) p = AveragePool <kernel_shape=[1,1]> (d) y = Concat <axis=1> (p, z) }"""
    _, plan = aligned(text, **NPU)
    assert len(plan.qparams) == 1
    _, plan = aligned(text, **NPU, AlignPool=False)
    assert len(plan.qparams) == 1  # z is in both
    _, plan = aligned(text.replace("(p, z)", "(p, p)"), **NPU, AlignPool=False)
    assert len(plan.qparams) == 2


JOINED = """(float[1,4,6,6] x, float[1,2,6,6] z) => (float[A,B,C,D] y) <float[1,2,6,6] k, int64[2] s = {2, 2}> {
    a, b = Split <axis=1> (x, s) r = Relu (b) m = MaxPool <kernel_shape=[1,1]> (x) y = Concat <axis=1> (WHAT) }"""

OVERLAPS = {
    "two parts of a Split": "a, b, z",
    "a part, and the whole": "a, x, z",
    "a part twice": "a, a, z",
    "parts, what is pooled of the whole, and a constant": "b, m, k, a",
    "a part behind a Relu": "r, a, b",
}


@pytest.mark.parametrize("fields", [QNN, NPU, {"AlignConcat": True}], ids=["qnn", "vitisai", "cpu"])
@pytest.mark.parametrize("what", OVERLAPS.values(), ids=OVERLAPS)
def test_inputs_that_share_a_group_already_join_as_one(what: str, fields: dict[str, Any]) -> None:
    model, plan = aligned(JOINED.replace("WHAT", what), graph_between if "target" not in fields else graph, **fields)
    around = {*what.split(", "), "y"} & plan.sites.keys()
    assert len(around) >= 2
    assert {plan.sites[tensor].group for tensor in around} == {"y"}
    assert {site.group for site in plan.sites.values()} >= plan.qparams.keys()
    io.check(quantized := apply(model, plan))
    run(quantized, feeds(model)[0])


def test_twin_what_is_not_joined_keeps_its_group() -> None:
    """The whole has its scale for itself where no part of it is joined."""
    _, plan = aligned(JOINED.replace("WHAT", "z, k, z"), **QNN, AlignConcat=False)
    assert {plan.sites[tensor].group for tensor in "zky"} == {"z", "k", "y"}
    _, plan = aligned(JOINED.replace("WHAT", "z, k, z"), **QNN)
    assert {plan.sites[tensor].group for tensor in "zky"} == {"y"}
    assert not {"x", "a", "b"} & {tensor for tensor, site in plan.sites.items() if site.group == "y"}


def test_a_node_that_stays_float_joins_nothing() -> None:
    text = JOINED.replace("y = Concat", "[n] y = Concat").replace("WHAT", "a, b, z")
    _, plan = aligned(text, **QNN, nodes_to_exclude=["n"])
    assert "z" not in plan.sites
    assert all(site.group == "x" for site in plan.sites.values() if site.tensor in "xab")
    _, plan = aligned(text, **QNN)
    assert plan.sites["z"].group == plan.sites["x"].group == "y"


def test_a_scale_that_an_operator_must_have_is_not_widened() -> None:
    text = "(float[2,4] x, float[2,4] z) => (float[2,8] y) { h = Sigmoid (x) y = Concat <axis=1> (h, z) }"
    _, plan = aligned(text, target="qnn", activation_type="uint16")
    assert float(plan.qparams["h"].scale) == 1 / 65536
    assert "its operator has no other scale" in plan.remarks["h"]
    _, plan = aligned(text, **QNN)
    assert plan.sites["h"].group == "y"


def test_tensors_of_another_type_keep_their_scale() -> None:
    _, plan = aligned(POOLED, **QNN, TensorQuantOverrides={"x": [{"quant_type": "uint16"}]})
    assert {name: site.group for name, site in plan.sites.items()} == {"x": "x", "g": "x", "z": "y", "y": "y"}
    assert plan.remarks == {
        "g": "keeps its own scale at Concat, where all should share one: it is uint16 asymmetric per-tensor"
    }
