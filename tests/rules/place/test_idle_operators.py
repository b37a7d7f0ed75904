"""Operators that integers buy nothing stay float, with their reason; those that they buy something do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operator_examples import TABLE
from quantized_models import Made, executed_kernels, feeds, graph, graph_between, layout, placed, quantized, run

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.graph import Model
from quark_onnx.stages.place.idle_operators import BEHIND, CLAMP, IN_FRONT, MOVES, tidied

IMAGE = "(float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,1,1] w, float[4,4,1,1] v, float[4,8,1,1] u, float k> {"
ROWS = "(float[2,3,4] x, float[2,3,4] z) => (float[A,B,C] y) <float[4,4] w, float[4,4] v, float[4] b, float[4] c> {"


def statuses(made: Made) -> dict[str, str]:
    """The kernel of what runs on integers, else the status."""
    rows = ledger(made.model, made.plan, made.quantized)
    return {row.node: row.kernel if row.status == "integer" else row.status for row in rows}


def quantizers(made: Made) -> int:
    """Those that are executed, and not done by the kernel in front."""
    return executed_kernels(made.quantized)["QuantizeLinear"]


def noise(made: Made, part: Any = ...) -> float:
    """Of the first output, or a part of it, for its own size."""
    pairs = [[run(model, feed)[0][part] for model in (made.model, made.quantized)] for feed in feeds(made.model)]
    return max(float(np.linalg.norm(want - got) / np.linalg.norm(want)) for want, got in pairs)


# behind the last layer

TAILS = {
    "Add": "[n] y = Add (h, x) }",
    "Mul with a constant": "[n] y = Mul (h, k) }",
    "Sigmoid": "[n] y = Sigmoid (h) }",
    "LeakyRelu": "[n] y = LeakyRelu (h) }",
    "pool": "[n] y = AveragePool <kernel_shape = [1, 1]> (h) }",
    "Concat": "[n] y = Concat <axis = 1> (h, x) }",
    "moved afterwards": "[n] g = Add (h, x) [t] y = Transpose (g) }",
    "a chain": "[m] g = Mul (h, k) [n] y = Add (g, x) }",
    "with its clamp": "[n] g = Add (h, x) [r] y = Relu (g) }",
    "read in float as well": "[n] g = Add (h, x) [e] y = Erf (g) }",
}


def net(tail: str) -> str:
    return IMAGE.replace("[1,4,8,8] y", "[A,B,C,D] y") + " [a] h = Conv (x, w) " + tail


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_behind_the_last_layer_all_is_float(tail: str) -> None:
    plan = placed(graph(net(tail)))
    assert plan.notes["n"] != IN_FRONT
    assert layout(plan) == "h:activation w:weight x:activation"
    assert plan.nodes == {"a": ("x", "w", "h")}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_in_front_of_another_layer_it_is_not(tail: str) -> None:
    text = net(tail).replace("[e] y = Erf (g)", "[e] f = Erf (g) y = Conv (g, v)")  # one of two readers is a layer
    text = text if "Erf" in tail else text.replace(" y = ", " p = ").replace("}", "y = MatMul (p, q) }")
    width = 1 if "Transpose" in tail else 8
    assert "n" in placed(graph(text, q=np.ones((width, 4), np.float32))).nodes


def test_a_tail_keeps_the_scales_of_the_layers_that_end_in_it() -> None:
    """Reshape has the scale of its Conv; Concat, which would join both under one, and Transpose stay float."""
    text = IMAGE.replace("[1,4,8,8] y", "[1,64,8] y")
    nodes = (
        "[a] h = Conv (x, w) [b] g = Conv (x, v) [r] f = Reshape (h, s) [q] e = Reshape (g, s) "
        "[n] d = Concat <axis = 1> (f, e) [t] y = Transpose <perm = [0, 2, 1]> (d) }"
    )
    plan = placed(graph(text + nodes, s=np.array([1, 4, 64])))
    assert layout(plan) == "e:activation=g f:activation=h g:activation h:activation v:weight w:weight x:activation"
    assert plan.notes == {"n": BEHIND, "t": MOVES}


HEAD = (
    "(float[1,8,400] x) => (float[1,12,400] y, float[1,4,400] z) <float[6,8,1] w, float[4,12,1] v, float big = {300}> {"
    " h = Conv (x, w) b = Mul (h, big) s = Sigmoid (h) [n] y = Concat <axis = 1> (b, s) "
)


@pytest.mark.parametrize(("reader", "fine"), [("z = Relu (y) }", True), ("z = Conv (y, v) }", False)])
def test_boxes_and_scores_are_not_joined_under_one_scale(reader: str, fine: bool) -> None:
    """Boxes reach some 2000, so scores would have one step of 8: of them nothing but 0 is left."""
    text = HEAD.replace("[1,4,400] z", "[1,12,400] z") if fine else HEAD
    model = graph(text + reader)
    made = quantized(model, per_channel=True)
    assert ("n" in made.plan.nodes) is not fine
    scores = noise(made, np.s_[:, 6:])
    assert scores < 0.02 if fine else scores > 0.5


ENLARGED = IMAGE.replace("[1,4,8,8] y", "[A,B,C,D] y") + " [a] h = Conv (x, w) [t] g = ConvTranspose (h, v) "


@pytest.mark.parametrize(
    ("tail", "behind"),
    [
        ("y = Sigmoid (g) }", 0),
        ("[r] f = Relu (g) y = Erf (f) }", 0),
        ("f = Transpose (g) y = Neg (f) }", 0),
        ("y = Conv (g, w) }", 1),
        ("[r] f = Relu (g) y = ConvTranspose (f, w) }", 1),
        ("e = Erf (g) d = Conv (g, w) y = Add (e, d) }", 1),
    ],
)
def test_a_layer_without_an_integer_kernel_returns_the_floats_that_it_computes(tail: str, behind: int) -> None:
    """ConvTranspose: there is a quantizer behind it where somebody reads integers, and only there."""
    made = quantized(graph(ENLARGED + tail))
    assert made.plan.nodes["t"][:2] == ("h", "v")
    assert sum(tensor in made.plan.sites for tensor in "gf") == behind
    if behind == 0:
        assert quantizers(made) == 1  # in front of the model
        assert made.plan.notes.get("r", CLAMP) == CLAMP


# between float operators

GELU = "[g] d = Div (h, k) [e] e = Erf (d) [n] p = Add (e, k) [m] q = Mul (h, p) [l] f = Mul (q, k)"
NORM = (
    "[g] a = ReduceMean <axes = [-1]> (h) [s] d = Sub (h, a) [m] q = Mul (d, d) [i] r = ReduceMean <axes = [-1]> (q) "
    "[n] e = Add (r, k) [t] p = Sqrt (e) [o] o = Div (d, p) [l] j = Mul (o, b) [j] f = Add (j, c)"
)


def test_a_gelu_between_layers_is_one_island() -> None:
    made = quantized(graph(f"{IMAGE} [a] h = Conv (x, w) {GELU} [z] y = Conv (f, v) }}"))
    assert layout(made.plan) == "f:activation h:activation v:weight w:weight x:activation y:activation"
    assert {made.plan.notes[name] for name in "nml"} == {IN_FRONT}
    assert quantizers(made) == 2  # in front of the model, and behind the island
    assert statuses(made) == dict.fromkeys("genml", "float") | {"a": "QLinearConv", "z": "QLinearConv"}


def test_a_normalization_between_products_is_one_island_and_the_product_in_front_returns_floats() -> None:
    text = ROWS.replace("float[4] c>", "float[4] c, float k = {0.00001}>")
    made = quantized(graph(f"{text} [a] h = MatMul (x, w) {NORM} [z] y = MatMul (f, v) }}"))
    assert layout(made.plan) == "f:activation v:weight w:weight x:activation"
    assert {made.plan.notes[name] for name in "mnlj"} == {IN_FRONT, BEHIND}
    assert quantizers(made) == 2
    assert {statuses(made)[name] for name in "az"} == {"MatMulIntegerToFloat"}


def test_a_softmax_of_floats_keeps_its_range_for_the_product_behind_it() -> None:
    """Whatever calibration has seen of it; the step is that of the integer Softmax."""
    text = ROWS.replace("float[4] b", "float[3,4] b")
    nodes = " [t] f = Transpose <perm = [0, 2, 1]> (z) [a] h = MatMul (x, f) [e] g = Neg (h) [n] p = Softmax (g) "
    made = quantized(graph(f"{text}{nodes} [m] y = MatMul (p, b) }}"))
    assert made.plan.notes["n"] == IN_FRONT
    assert made.plan.sites["p"].range == (0.0, 1.0)
    assert float(made.plan.qparams_of("p").scale) == np.float32(1 / 255)
    moved = nodes.replace("Neg (h)", "Slice (h, start, end)")
    numbers = {"start": np.array([0]), "end": np.array([2])}
    product = graph(f"{text}{moved} [m] y = MatMul (p, b) }}", **numbers)
    assert placed(product).notes["n"] == IN_FRONT  # the scores of attention: a product returns floats
    both = text.replace("float[A,B,C] y", "float[A,B,C] y, float[D,E,F] o")
    integer = placed(graph(f"{both}{moved} [m] y = MatMul (p, b) [o] o = MatMul (g, b) }}", **numbers))
    assert "n" in integer.nodes and integer.sites["p"].range == (0.0, 1.0)


GATES = {
    # how the factor is made, whether the product runs on integers
    "squeeze and excite": ("p = GlobalAveragePool (h) e = Conv (p, v) [e] g = HardSigmoid (e)", True),
    "one number per row": ("[e] g = ReduceMax <axes = [3]> (h)", True),
    "the whole of it": ("[e] g = HardSigmoid (h)", False),
    "by integers alone": ("[e] g = Sigmoid (h)", True),
    "another branch, in float": ("e = Conv (x, v) [e] g = HardSigmoid (e)", True),
}


@pytest.mark.parametrize(("gate", "integer"), GATES.values(), ids=GATES)
def test_a_product_is_float_where_all_that_is_large_is_read_as_floats_anyway(gate: str, integer: bool) -> None:
    """x · f(x) is one with f. What is small costs little to quantize, and a whole branch of integers is worth it."""
    made = quantized(graph(f"{IMAGE} [a] h = Conv (x, w) {gate} [n] f = Mul (h, g) [z] y = Conv (f, v) }}"))
    assert statuses(made)["n"] == ("QLinearMul" if integer else "float")
    assert made.plan.notes.get("n") == (None if integer else IN_FRONT)


@pytest.mark.parametrize("gate", ["p = ReduceMean <axes = [2, 3]> (x) [e] g = HardSigmoid (p)", "[e] g = Erf (x)"])
def test_what_is_small_does_not_make_it_integers_either(gate: str) -> None:
    """The large input comes as floats: from a float operator, or from outside, for nobody who reads integers."""
    nodes = f"{gate} [f] h = Abs (x) [n] f = Mul (h, g) [z] y = Conv (f, v) }}"
    plan = placed(graph(f"{IMAGE} {nodes}"))
    assert plan.notes["n"] == IN_FRONT
    assert layout(plan) == "f:activation v:weight y:activation"


@pytest.mark.parametrize(
    ("other", "integer"), [("", False), ("[c] p = Conv (x, w) [e] q = Erf (p)", True), ("[c] q = Abs (x)", False)]
)
def test_an_input_of_the_model_counts_where_a_layer_needs_it_as_integers(other: str, integer: bool) -> None:
    """Its quantizer stands there anyway."""
    plan = placed(graph(f"{IMAGE} {other} [n] f = Mul (x, k) [z] y = Conv (f, v) }}"))
    assert ("n" in plan.nodes) is integer
    assert plan.notes.get("n") == (None if integer else IN_FRONT)


@pytest.mark.parametrize(("reader", "integer"), [("[c] p = Conv (t, w) [e] q = Erf (p)", True), ("q = Erf (t)", False)])
def test_so_does_what_is_moved_to_a_layer(reader: str, integer: bool) -> None:
    nodes = f"a = Abs (x) t = Transpose <perm = [0, 1, 3, 2]> (a) {reader} [n] f = Mul (t, k) [z] y = Conv (f, v) }}"
    plan = placed(graph(f"{IMAGE} {nodes}"))
    assert ("n" in plan.nodes) is integer
    assert plan.notes.get("n") == (None if integer else IN_FRONT)


@pytest.mark.parametrize("other", ["[e] g = Erf (h)", "[e] g = LeakyRelu (h)", "[e] g = Erf (x)"])
def test_a_concat_with_one_input_of_integers_stays(other: str) -> None:
    """Its kernel moves bytes: a quantizer on the other one costs less than floats for the layer behind."""
    nodes = f"[a] h = Conv (x, w) {other} [n] f = Concat <axis = 1> (h, g) [z] y = Conv (f, u) }}"
    made = quantized(graph(f"{IMAGE} {nodes}"))
    assert statuses(made)["n"] == "QLinearConcat"
    floats = nodes.replace("h = Conv (x, w)", "h = Abs (x)").replace("LeakyRelu (h)", "Sqrt (h)")
    assert placed(graph(f"{IMAGE} {floats}")).notes["n"] == IN_FRONT


def test_a_residual_stream_is_float_and_with_it_the_products_that_end_in_it() -> None:
    """One channel of it is an outlier in transformers: 8 bits for all of them leave the others nothing."""
    text = ROWS.replace("float[4] c>", "float[4] c, float[4] g>")
    nodes = "[a] h = MatMul (x, w) [n] r = Add (h, b) [s] q = Add (r, x) [l] p = LayerNormalization (q, g, c) "
    numbers = {"w": np.eye(4, dtype=np.float32) * np.float32([1, 1, 1, 500]), "g": np.float32([1, 1, 1, 0.002])}
    made = quantized(graph(f"{text} {nodes} [z] y = MatMul (p, v) }}", **numbers))
    assert layout(made.plan) == "p:activation v:weight w:weight x:activation"
    assert made.plan.notes == {"s": BEHIND, "l": "LayerNormalization is not in the operator table of the CPU target"}
    assert {statuses(made)[name] for name in "az"} == {"MatMulIntegerToFloat"}
    assert noise(made) < 0.02  # a step of the stream, 4, would be 1 and more of what the other channels hold


def test_excluding_the_layer_behind_makes_an_operator_idle() -> None:
    model = graph(f"{IMAGE} [a] h = Conv (x, w) [n] f = Mul (h, k) [z] y = Conv (f, v) }}")
    assert "n" in placed(model).nodes
    plan = placed(model, nodes_to_exclude=["z"])
    assert plan.notes == {"n": BEHIND, "z": "named in nodes_to_exclude"}
    assert placed(model, nodes_to_exclude=["a"]).notes["n"] == IN_FRONT


# layers that return floats

PRODUCT = "(float[2,3,4] x, float[2,3,5] z) => (float[2,3,5] y) <float[4,5] w, float[5,5] v, float[5] b> {"
FLAT = PRODUCT.replace("[2,3,", "[2,")
OPEN = PRODUCT.replace("[2,3,", "[N,M,")
ENDS = {
    "alone": "[a] y = MatMul (x, w) }",
    "Relu": "[a] h = MatMul (x, w) [r] y = Relu (h) }",
    "bias": "[a] h = MatMul (x, w) [n] y = Add (h, b) }",
    "bias first": "[a] h = MatMul (x, w) [n] y = Add (b, h) }",
    "bias, Relu": "[a] h = MatMul (x, w) [n] g = Add (h, b) [r] y = Relu (g) }",
    "bias, float operator": "[a] h = MatMul (x, w) [n] g = Add (h, b) [e] y = Erf (g) }",
    "a sum of floats": "[a] h = MatMul (x, w) [n] y = Add (h, z) }",
    "a sum of two": "[a] h = MatMul (x, w) [c] g = MatMul (z, v) [n] y = Add (h, g) }",
}


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("text", [PRODUCT, FLAT, OPEN], ids=["rank 3", "rank 2", "open dimensions"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_product_that_nobody_reads_as_integers_returns_floats(end: str, text: str, opset: int) -> None:
    """And runs on integers all the same: onnxruntime would make a float Gemm of a MatMul and an Add."""
    made = quantized(graph(text + end, opset))
    assert {"h", "g", "y"}.isdisjoint(made.plan.sites)
    kernels = statuses(made)
    assert kernels["a"] == "MatMulIntegerToFloat"
    assert kernels.get("r", "float") == "float" and made.plan.notes.get("r", CLAMP) == CLAMP
    for feed in feeds(made.model, 2):
        written, executed = (run(made.quantized, feed, optimized=flag)[0] for flag in (False, True))
        np.testing.assert_allclose(executed, written, rtol=0, atol=16 * 2.0**-23 * float(np.abs(written).max()) * 8)


@pytest.mark.parametrize("name", ENDS)
def test_a_product_whose_readers_take_integers_does_not(name: str) -> None:
    """But what adds floats, or computes with them, reads those that the product returns: all is rounded behind it."""
    reader = ENDS[name].replace(" y = ", " p = ").replace("}", "[z] y = MatMul (p, v) }").replace("Erf", "LeakyRelu")
    plan = placed(graph(PRODUCT.replace("float[2,3,5] z", "float[2,3,5] i") + " z = MatMul (i, v) " + reader))
    assert CLAMP not in plan.notes.values()
    assert "p" in plan.sites
    floats = name in ("bias, float operator", "a sum of floats", "a sum of two")
    assert ("p" in plan.nodes["a"]) is not floats
    assert (IN_FRONT in plan.notes.values()) is floats


def test_a_product_that_is_read_both_ways_returns_floats() -> None:
    """Who computes with integers quantizes them; who computes in float reads what nobody has rounded."""
    text = PRODUCT.replace("(float[2,3,5] y)", "(float[2,3,5] y, float[2,3,5] p)")
    made = quantized(graph(text + "[a] h = MatMul (x, w) [n] g = Add (h, b) [z] y = MatMul (g, v) [e] p = Erf (g) }"))
    assert made.plan.nodes == {"a": ("x", "w"), "n": ("x", "w"), "z": ("g", "v")}
    assert {tensor for tensor, site in made.plan.sites.items() if site.beside} == {"g"}
    assert {statuses(made)[name] for name in "az"} == {"MatMulIntegerToFloat"}
    assert executed_kernels(made.quantized)["DequantizeLinear"] == 0


def test_what_moves_floats_that_are_read_as_such_is_left_alone() -> None:
    """Of one product come the values of attention, and queries that are turned: one scale for both fits neither."""
    text = "(float[2,3,4] x) => (float[2,3,8] y, float[A,B,C] z) <float[4,8] w, float[4,8] v> {"
    nodes = " h = MatMul (x, w) [s] q, k = Split <axis = -1> (h) [e] z = Erf (q) y = MatMul (k, v) }"
    plan = placed(graph(text + nodes))
    assert plan.notes["s"] == MOVES and layout(plan) == "k:activation v:weight w:weight x:activation"
    both = placed(graph(text + nodes.replace("Erf (q)", "MatMul (q, v)")))
    assert layout(both) == "h:activation k:activation=h q:activation=h v:weight w:weight x:activation"


def test_what_moves_the_integers_of_a_layer_goes_on_moving_them() -> None:
    nodes = "[a] h = Conv (x, w) [t] f = Transpose <perm = [0, 1, 3, 2]> (h) [e] y = Erf (f) [z] p = Conv (f, v) }"
    plan = placed(graph(IMAGE.replace("[1,4,8,8] y", "[1,4,8,8] y, float[1,4,8,8] p") + nodes))
    assert plan.nodes["t"] == ("h", "f")
    assert not any(site.beside for site in plan.sites.values())


GEMM = "(float[3,4] x) => (float[3,5] y) <float[4,5] w, float[5] b> {"


@pytest.mark.parametrize("fields", [{}, {"QuantizeBias": False}, {"per_channel": True}], ids=str)
@pytest.mark.parametrize("end", ["[a] y = Gemm (x, w, b) }", "[a] h = Gemm (x, w, b) [r] y = Relu (h) }"])
def test_a_gemm_returns_floats_with_its_bias(end: str, fields: dict[str, Any]) -> None:
    made = quantized(graph(GEMM + end), **fields)
    assert {"h", "y"}.isdisjoint(made.plan.sites)
    assert statuses(made)["a"] == "QGemm"


def test_a_convolution_has_no_kernel_that_returns_floats() -> None:
    assert "y" in placed(graph(f"{IMAGE} y = Conv (x, w) }}")).sites


# after nodes have been taken out


def without(model: Model, *tensors: str, target: str = "cpu", **fields: Any) -> Plan:
    plan = placed(model, target=target, **fields)
    groups = {plan.sites[tensor].group for tensor in tensors}
    return tidied(model.graph, plan.without(dict.fromkeys(groups, "taken out")), TARGETS[target])


@pytest.mark.parametrize("target", [name for name, row in TARGETS.items() if row.spares_idle or row.inputs_only])
@pytest.mark.parametrize("make", [graph, graph_between])
def test_of_a_plan_as_it_is_placed_nothing_goes(make: Any, target: str) -> None:
    for model in [make(text) for text, _ in TABLE.values()]:
        plan = placed(model, target=target)
        found = tidied(model.graph, plan, TARGETS[target])
        assert (found.sites, found.nodes, found.notes) == (plan.sites, plan.nodes, plan.notes)


def test_a_target_whose_quantizers_stand_on_inputs_keeps_them() -> None:
    model = graph(TABLE["GlobalAveragePool"][0])
    plan = placed(model, target="tensorrt")
    assert tidied(model.graph, plan, TARGETS["tensorrt"]).nodes == {"n": ("x",)}


def test_islands_go_with_what_made_them_useful() -> None:
    nodes = "[a] h = Conv (x, w) [n] g = Mul (h, k) [t] f = Transpose <perm = [0, 1, 3, 2]> (g) [z] y = Conv (f, v) }"
    model = graph(f"{IMAGE} {nodes}")
    plan = without(model, "v")
    assert plan.nodes == {"a": ("x", "w", "h")}
    assert plan.notes == {"z": "taken out", "n": BEHIND, "t": MOVES}
    assert plan.sites.keys() == {"x", "w", "h"}
    plan = without(model, "w")
    assert plan.nodes.keys() == {"t", "z"}  # what is moved to the layer is moved as integers
    assert plan.notes == {"a": "taken out", "n": IN_FRONT}


def test_quantizers_behind_products_go_with_the_last_reader_of_integers() -> None:
    nodes = "[a] h = MatMul (x, w) [n] g = Add (h, b) [r] f = Relu (g) [z] y = MatMul (f, v) }"
    model = graph(ROWS + nodes)
    plan = without(model, "v")
    assert plan.nodes == {"a": ("x", "w"), "n": ("x", "w")}
    assert plan.notes == {"z": "taken out", "r": CLAMP}
    assert placed(model).nodes["a"] == ("x", "w", "f")


def test_what_is_left_runs_on_integers() -> None:
    nodes = "[a] h = MatMul (x, w) [n] g = Add (h, b) [r] f = Relu (g) [z] y = MatMul (f, v) }"
    made = quantized(graph(ROWS + nodes))
    group = made.plan.sites["v"].group
    plan = tidied(made.model.graph, made.plan.without({group: "taken out"}), TARGETS["cpu"])
    left = Made(made.model, plan, apply(made.model, plan))
    assert statuses(left) == {"a": "MatMulIntegerToFloat", "n": "float", "r": "float", "z": "float"}


@pytest.mark.parametrize("inner", ["[n] i = Relu (h)", "[n] i = MatMul (x, w)", "[n] i = Add (h, b)"])
def test_layers_that_share_input_and_weight_are_two(inner: str) -> None:
    """Their quantizers are the same, and neither has absorbed the other."""
    text = ROWS.replace(" y)", " y, float[A,B,C] i)")
    model = graph(text + f"[a] h = MatMul (x, w) {inner} [z] y = MatMul (x, w) }}")
    plan = placed(model)
    assert plan.nodes["a"] == plan.nodes["z"] == ("x", "w")
    assert tidied(model.graph, plan, TARGETS["cpu"]).nodes == plan.nodes
