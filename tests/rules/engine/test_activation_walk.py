"""The activation walk: what a layer is shown is what the float model and the quantized model compute there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from mapped_memory import PROC, resident
from onnx_text import parse_model
from quantized_models import Feed, Made, feeds, graph, quantized
from text_models import normal

from quark_onnx.core.plan import Coded, Plan, QParams
from quark_onnx.engine.activation_store import let_go
from quark_onnx.engine.activation_walk import Frontier, walk
from quark_onnx.engine.apply_plan import apply
from quark_onnx.graph import Model, Node, io

Arrays = list[np.ndarray]
Seen = dict[str, tuple[Arrays, Arrays]]

ROOMY = 1 << 28


def whole(*shape: int, top: int = 3, seed: int = 0) -> np.ndarray:
    """Small integers: then no sum of products is ever rounded, in whatever order it is taken."""
    return np.clip(np.rint(2 * normal(*shape, seed=seed)), -top, top).astype(np.float32)


def on_powers_of_two(plan: Plan) -> Plan:
    """The plan with every scale raised to a power of two: all that the quantized model computes is exact, too."""

    def raised(q: QParams) -> QParams:
        return QParams(np.exp2(np.ceil(np.log2(q.scale))).astype(np.float32), q.zero_point)

    return replace(plan, qparams={group: raised(q) for group, q in plan.qparams.items()})


def made_of(text: str, data: list[Feed] | None = None, arrays: dict[str, Any] | None = None, **fields: Any) -> Made:
    model = graph(text, **arrays or {})
    plan = on_powers_of_two(quantized(model, data, **fields).plan)
    return Made(model, plan, apply(model, plan))


def inside(model: Model, feed: Feed, tensors: Collection[str]) -> Arrays:
    """Tensors of a model, as its whole computes them, without any fusion."""
    proto = io.to_proto(model)
    present = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    asked = [name for name in tensors if name not in names]
    found = dict(zip(asked, session.run(asked, feed), strict=True)) if asked else {}
    return [feed[name] if name in names else found[name] for name in tensors]


def shown(made: Made, data: list[Feed], layers: Collection[str], limit: int = ROOMY, **more: Any) -> Seen:
    """What a visitor that changes nothing gets to see: by layer and input, both sides."""
    seen: Seen = {}

    def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
        assert plan is made.plan
        for value in node.inputs:
            if value is not None and not value.is_initializer():
                name = value.name or ""
                sides = frontier.read(node, name, plan)
                seen[f"{node.name} {name}"] = ([a.copy() for a in sides[0]], [a.copy() for a in sides[1]])
        return plan

    assert walk(made.model, made.plan, data, layers, visit, limit, **more) is made.plan
    return seen


def assert_true(made: Made, data: list[Feed], seen: Seen) -> None:
    """Exact side: the float model's tensor. Rounded side: the quantized model's codes, or floats without a site."""
    assert seen
    for key, (exact, rounded) in seen.items():
        name = key.split()[1]
        coded = name in made.plan.sites and made.plan.reads_codes(key.split()[0], name)
        inner = f"{name}_quantized" if coded else name
        for i, feed in enumerate(data):
            np.testing.assert_array_equal(exact[i], inside(made.model, feed, [name])[0])
            (want,) = inside(made.quantized, feed, [inner])
            assert rounded[i].dtype == want.dtype
            np.testing.assert_array_equal(rounded[i], want)


def integers(model: Model, count: int = 3) -> list[Feed]:
    def draw(name: str, array: np.ndarray, i: int) -> np.ndarray:
        return whole(*array.shape, seed=i + len(name)) if array.dtype == np.float32 else array

    return [{k: draw(k, a, i) for k, a in feed.items()} for i, feed in enumerate(feeds(model, count))]


RESIDUAL = """(float[1,4,8,8] x) => (float[1,5] y) {
    [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu] b = Relu (a)
    [two] c = Conv <group = 4, pads = [1, 1, 1, 1]> (b, w2, b2)
    [add] d = Add (c, b)
    [clip] e = Clip (d, low, high)
    [pool] f = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (e)
    [flat] g = Flatten (f)
    [head] y = Gemm (g, w3, b3)
}"""
NUMBERS = {
    "w1": whole(4, 4, 3, 3),
    "b1": whole(4),
    "w2": whole(4, 1, 3, 3),
    "b2": whole(4, seed=1),
    "w3": whole(16, 5),
    "b3": whole(5),
    "low": np.float32(-8),
    "high": np.float32(100),
}
LAYERS = ["one", "two", "head"]
AROUND = """(float[1,4,8,8] x) => (float[1,4,8,8] y) {
    [one] a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w2, b2)
    [two] b = Conv <group = 4, pads = [1, 1, 1, 1]> (a, w2, b2)
    [add] c = Add (b, x)
    [head] y = Conv <group = 4, pads = [1, 1, 1, 1]> (c, w2, b2)
}"""
"""Its input is read again behind two layers."""


def residual(**fields: Any) -> tuple[Made, list[Feed]]:
    data = integers(graph(RESIDUAL, **NUMBERS))
    return made_of(RESIDUAL, data, NUMBERS, **fields), data


@pytest.mark.parametrize("fields", [{}, {"per_channel": True}, {"ActivationSymmetric": True}], ids=str)
@pytest.mark.parametrize("follow", [True, False])
def test_both_sides_are_those_of_the_whole_models(fields: dict[str, Any], follow: bool) -> None:
    made, data = residual(**fields)
    seen = shown(made, data, LAYERS, follow=follow)
    assert seen.keys() == {"one x", "two b", "head g"}
    assert_true(made, data, seen)


@limits(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(["one", "relu", "two", "add", "clip", "pool", "flat", "head", "none"])))
def test_any_nodes_can_be_visited(names: set[str]) -> None:
    """Cuts between a layer and its clamp, in front of the first node and behind all of them."""
    made, data = residual()
    seen = shown(made, data[:1], names)
    assert {key.split()[0] for key in seen} == names - {"none"}
    if seen:
        assert_true(made, data[:1], seen)


def test_numbers_of_real_models_agree_to_one_code() -> None:
    """Without exact arithmetic onnxruntime may sum in another order than for the whole model: a code apart, rarely."""
    model = graph(
        RESIDUAL,
        **{k: normal(*a.shape) for k, a in NUMBERS.items() if a.ndim},
        low=NUMBERS["low"],
        high=NUMBERS["high"],
    )
    data = feeds(model, 4)
    made = quantized(model, data)
    for key, (exact, rounded) in shown(made, data, LAYERS).items():
        name = key.split()[1]
        for i, feed in enumerate(data):
            np.testing.assert_allclose(exact[i], inside(made.model, feed, [name])[0], rtol=1e-4, atol=1e-4)
            apart = rounded[i].astype(int) - inside(made.quantized, feed, [f"{name}_quantized"])[0]
            assert np.abs(apart).max() <= 1
            assert (apart != 0).mean() <= 0.01


def zeroed(made: Made, tensor: str, plan: Plan) -> Plan:
    """The plan with all codes of a weight at zero."""
    q = plan.qparams_of(tensor)
    shape = made.model.graph.initializers[tensor].const_value.numpy().shape
    return replace(plan, codes={**plan.codes, tensor: Coded(np.zeros(shape, np.int32), q.scale)})


@pytest.mark.parametrize("follow", [True, False])
def test_what_a_visitor_changes_is_seen_downstream_if_that_is_wanted(follow: bool) -> None:
    """With the first weight at zero the second layer reads the bias alone; float activations stay what they are."""
    made, data = residual()
    seen: dict[str, Arrays] = {}

    def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
        name = node.inputs[0].name or ""
        seen[node.name or ""] = list(frontier.rounded[name])
        for array, feed in zip(frontier.exact[name], data, strict=True):
            np.testing.assert_array_equal(array, inside(made.model, feed, [name])[0])
        return zeroed(made, "w1", plan) if node.name == "one" else plan

    plan = walk(made.model, made.plan, data, LAYERS, visit, ROOMY, follow=follow)
    assert plan.codes.keys() == {"w1"}
    changed = Made(made.model, plan, apply(made.model, plan))
    read = changed if follow else made
    for name, tensor in (("one", "x"), ("two", "b"), ("head", "g")):
        for array, feed in zip(seen[name], data, strict=True):
            np.testing.assert_array_equal(array, inside(read.quantized, feed, [f"{tensor}_quantized"])[0])
    assert any((seen["two"][0] != shown(made, data, LAYERS)["two b"][1][0]).ravel()) is follow


@pytest.mark.parametrize("widen", [1, 64])
def test_floats_are_held_before_their_quantizer_and_are_read_through_the_latest_one(widen: int) -> None:
    """A visitor that changes the range of what its layer reads changes what this layer, and all others, make of it."""
    made, data = residual()
    seen: dict[str, Arrays] = {}
    q = made.plan.qparams_of("b")
    wider = QParams(q.scale * np.float32(widen), q.zero_point)
    plan = replace(made.plan, qparams={**made.plan.qparams, made.plan.sites["b"].group: wider})
    changed = apply(made.model, plan)

    def visit(node: Node, frontier: Frontier, current: Plan) -> Plan:
        seen[node.name or ""] = list(frontier.rounded[node.inputs[0].name or ""])
        return plan if node.name == "two" else current

    assert walk(made.model, made.plan, data, LAYERS, visit, ROOMY, floats={"x", "b"}) is plan
    for i, feed in enumerate(data):
        np.testing.assert_array_equal(seen["one"][i], feed["x"])
        np.testing.assert_array_equal(seen["two"][i], inside(made.quantized, feed, ["b"])[0])
        np.testing.assert_array_equal(seen["head"][i], inside(changed, feed, ["g_quantized"])[0])
    others = [inside(made.quantized, feed, ["g_quantized"])[0] for feed in data]
    assert all(np.array_equal(a, b) for a, b in zip(seen["head"], others, strict=True)) is (widen == 1)


@pytest.mark.parametrize("limit", [0, 1, 1000, 4000, 1 << 40])
def test_the_memory_limit_changes_nothing(limit: int) -> None:
    made, data = residual()
    want, got = (shown(made, data, LAYERS, bytes_) for bytes_ in (ROOMY, limit))
    assert want.keys() == got.keys()
    for key, sides in want.items():
        for a, b in zip(sides, got[key], strict=True):
            assert all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(a, b, strict=True))


@pytest.mark.skipif(not PROC, reason="needs /proc")
def test_what_lies_in_files_is_in_memory_only_while_it_is_read() -> None:
    data = integers(graph(AROUND, **NUMBERS))
    made = made_of(AROUND, data, NUMBERS)
    seen: list[int] = []

    def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
        seen.append(resident())
        for side in (frontier.exact, frontier.rounded):
            for array in side[node.inputs[0].name or ""]:
                array.sum()
                let_go(array)
        return plan

    walk(made.model, made.plan, data, ["one", "two", "head"], visit, 0)
    assert seen == [0, 0, 0]


def test_no_more_is_held_than_allowed_and_only_what_is_still_read() -> None:
    made, data = residual()
    limit = 8 * 1024
    held: list[int] = []

    def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
        held.append(frontier.exact.held + frontier.rounded.held)
        alive = {"one": {"x"}, "two": {"b"}, "head": {"g"}}[node.name or ""]
        for name in ("x", "a", "b", "c", "d", "e", "f", "g", "y"):
            for store in (frontier.exact, frontier.rounded):
                if name in alive:
                    assert len(store[name]) == len(data)
                else:
                    with pytest.raises(KeyError):
                        store[name]
        return plan

    walk(made.model, made.plan, data, LAYERS, visit, limit)
    assert max(held) <= limit


OTHERS = {
    "several inputs, integers among them": (
        "(float[2,4] x, int64[2] k, bool[2,4] c) => (float[2,5] y, int64[2] j) { [g] e = Gather (table, k) "
        "[a] s = Where (c, e, x) [m] h = MatMul (s, v) [j] j = Add (k, k) [r] r = Relu (h) [n] y = MatMul (r, w) }",
        {"table": whole(6, 4), "v": whole(4, 4), "w": whole(4, 5)},
        ["m", "n"],
    ),
    "an output in between": (
        "(float[2,4] x) => (float[2,4] h, float[2,5] y) { [m] h = MatMul (x, v) [n] y = MatMul (h, w) }",
        {"v": whole(4, 4), "w": whole(4, 5)},
        ["m", "n"],
    ),
    "an input that is an output, and one that is not read": (
        "(float[2,4] x, float[2] z) => (float[2,4] x, float[2,5] y) { [m] h = MatMul (x, v) [n] y = MatMul (h, w) }",
        {"v": whole(4, 4), "w": whole(4, 5)},
        ["m", "n"],
    ),
    "tensors without a site": (
        "(float[2,4] x) => (float[2,5] y) { [m] h = MatMul (x, v) [e] e = Floor (h) [s] s = Sign (e) "
        "[n] y = MatMul (e, w) [t] z = Mul (s, s) }",
        {"v": whole(4, 4), "w": whole(4, 5)},
        ["m", "e", "n", "s"],
    ),
    "a body": (
        "(float[2,4] x, bool c) => (float[2,5] y) { [m] h = MatMul (x, v) [i] t = If (c) <then_branch = g () => "
        "(float[2,4] u) { [n] u = Neg (h) }, else_branch = g () => (float[2,4] e) { [p] e = Abs (x) }> "
        "[n2] y = MatMul (t, w) }",
        {"v": whole(4, 4), "w": whole(4, 5)},
        ["m", "n2", "i"],
    ),
    "a weight that is shared": (
        "(float[2,4] x) => (float[2,4] y) { [m] h = MatMul (x, v) [r] r = Relu (h) [n] y = MatMul (r, v) }",
        {"v": whole(4, 4)},
        ["m", "n"],
    ),
    "a sequence over a cut": (
        "(float[2,4] x) => (float[2,5] y) { [m] h = MatMul (x, v) [q] s = SequenceConstruct (h, x) "
        "[k] k = MatMul (h, v) [p] z = SequenceAt (s, zero) [a] a = Add (z, k) [n] y = MatMul (a, w) }",
        {"v": whole(4, 4), "w": whole(4, 5), "zero": np.int64(0)},
        ["m", "k", "n"],
    ),
    "constants that nothing folded": (
        "(float[2,4] x) => (float[2,4] y) { [t] u = Transpose (v) [d] d = Exp (v) [m] y = MatMul (x, u) }",
        {"v": whole(4, 4)},
        ["m", "d"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_graphs_of_other_shapes(name: str) -> None:
    text, arrays, layers = OTHERS[name]
    data = integers(graph(text, **arrays))
    made = made_of(text, data, arrays)
    for limit in (0, ROOMY):
        seen = shown(made, data, layers, limit)
        assert {key.split()[0] for key in seen} == {*layers} - {"d"}
        assert_true(made, data, seen)


def test_nothing_runs_when_there_is_nothing_to_visit() -> None:
    """Bad data would be noticed."""
    made, _ = residual()
    assert shown(made, [{"x": np.zeros(1, np.float32)}], []) == {}


def test_the_layers_are_visited_once_in_order_and_the_last_plan_is_returned() -> None:
    made, data = residual()
    visited = []

    def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
        assert not visited or plan.remarks == dict.fromkeys(visited, "seen")
        visited.append(node.name or "")
        return replace(plan, remarks=dict.fromkeys(visited, "seen"))

    plan = walk(made.model, made.plan, data, {"head", "two", "one"}, visit, ROOMY)
    assert visited == LAYERS
    assert list(plan.remarks) == LAYERS


def test_operators_that_onnx_does_not_know_lie_behind_a_cut() -> None:
    """Their outputs have no type in the graph: a segment that reads them learns it from the data."""
    proto = parse_model(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2,4] x) => (float[2,5] y) {
        [m] h = MatMul (x, v) [g] e = com.microsoft.QuickGelu <alpha = 0.0> (h) [n] y = MatMul (e, w) }"""
    )
    for name, array in {"v": whole(4, 4), "w": whole(4, 5)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = io.load(proto)
    data = [{"x": whole(2, 4)}]
    made = Made(model, Plan(io.fingerprint(model)), model)
    assert_true(made, data, shown(made, data, ["m", "n"]))
