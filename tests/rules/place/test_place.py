"""Placement: for every operator which tensors get a quantizer, who shares a scale, and every reason to say no."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operator_examples import IMAGE, ROW, TABLE
from quantized_models import graph, graph_between, layout, placed, settings
from text_models import normal, text_model

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import CPU
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.opened_job import open_job
from quark_onnx.stages.place import place
from quark_onnx.stages.place.idle_operators import BEHIND as IDLE
from quark_onnx.stages.place.idle_operators import MOVES
from quark_onnx.stages.place.storage_types import REMARK


def plain(text: str, **fields: Any) -> Plan:
    return placed(graph(text), **fields)


def between(text: str, **fields: Any) -> Plan:
    return placed(graph_between(text), **fields)


def test_the_table_has_every_operator() -> None:
    assert TABLE.keys() == CPU.keys()


@pytest.mark.parametrize("op_type", TABLE)
def test_sites(op_type: str) -> None:
    text, expected = TABLE[op_type]
    plan = between(text)
    assert layout(plan) == expected
    assert not plan.notes
    row = CPU[op_type]
    known = {site.tensor: site.range for site in plan.sites.values() if site.range is not None}
    assert known == ({"h": row.range} if row.range else {})
    formats = {site.format for site in plan.sites.values() if site.role in ("activation", "constant")}
    assert formats == {Format(8, signed=False)}


@pytest.mark.parametrize("op_type", TABLE)
def test_other_element_types_stay_float(op_type: str) -> None:
    """The twin of the above: the same operators on float16."""
    plan = between(TABLE[op_type][0].replace("float", "float16").replace("float16[4] s", "float[4] s"))
    assert not plan.sites
    assert plan.notes
    assert all("holds float16; only float32 is quantized" in reason for reason in plan.notes.values())


CONV = "(float[1,4,6,6] x) => (float[1,4,4,4] y) <float[4,4,3,3] w, float[4] b>"
UNSIGNED = {"activation_type": "uint8"}


@pytest.mark.parametrize("kinds", [{}, UNSIGNED])
@pytest.mark.parametrize(
    "clamp", ["Relu (h)", "Clip (h, zero, six)", "Clip (h, zero)", "Clip (h, zero, three)", "Clip (h, zero, big)"]
)
def test_a_clamp_at_zero_is_absorbed_by_an_asymmetric_quantizer(clamp: str, kinds: dict[str, str]) -> None:
    constants = "float zero = {0}, float six = {6}, float three = {3}, float big = {1e30}"
    plan = plain(f"{CONV[:-1]}, {constants}> {{ [c] h = Conv (x, w, b) [r] y = {clamp} }}", **kinds)
    assert layout(plan) == "b:bias w:weight x:activation y:activation"
    assert plan.nodes["r"] == plan.nodes["c"] == ("x", "w", "b", "y")


@pytest.mark.parametrize(
    ("clamp", "options"),
    [
        ("Relu (h)", {"ActivationSymmetric": True}),
        ("Clip (h, zero, one)", {"ActivationSymmetric": True}),
        ("Clip (h, minus, one)", {}),
        ("Clip (h, one)", {}),
        ("Clip (h, , one)", {}),
        ("Clip (h)", {}),
    ],
)
def test_any_other_clamp_has_a_quantizer_on_both_sides_with_one_scale(clamp: str, options: dict[str, bool]) -> None:
    constants = "float zero = {0}, float one = {1}, float minus = {-1}"
    plan = plain(f"{CONV[:-1]}, {constants}> {{ [c] h = Conv (x, w, b) [r] y = {clamp} }}", **options)
    assert layout(plan) == "b:bias h:activation=y w:weight x:activation y:activation"
    assert plan.nodes["r"] == ("x", "w", "b", "h", "y")


def test_a_clip_with_a_bound_that_is_computed() -> None:
    text = "(float[1,4,6,6] x, float top) => (float[1,4,4,4] y) <float[4,4,3,3] w, float zero = {0}>"
    plan = plain(f"{text} {{ [c] h = Conv (x, w) [r] y = Clip (h, zero, top) }}")
    assert layout(plan) == "h:activation=y w:weight x:activation y:activation"


@pytest.mark.parametrize("outputs", ["float[1,4,4,4] y, float[1,4,4,4] h", "float[1,4,4,4] y, float[1,4,4,4] z"])
def test_a_clamp_is_not_absorbed_where_others_see_its_input(outputs: str) -> None:
    also = "[s] g = Add (h, h) [m] z = MatMul (g, v)" if "z" in outputs else ""
    text = CONV.replace("float[1,4,4,4] y", outputs).replace("float[4] b>", "float[4] b, float[4,4] v>")
    plan = plain(f"{text} {{ [c] h = Conv (x, w, b) [r] y = Relu (h) {also} }}")
    assert plan.notes == {"r": "not behind a quantized operator that could take it in"}
    assert plan.sites["h"].group == "h"
    assert "y" not in plan.sites


def test_a_clamp_behind_nothing_stays_float() -> None:
    plan = plain("(float[2,4] x) => (float[2,4] y) { [r] y = Relu (x) }")
    assert plan.notes == {"r": "not behind a quantized operator that could take it in"}
    assert not plan.sites


def test_an_excluded_clamp_is_not_absorbed() -> None:
    plan = plain(CONV + " { [c] h = Conv (x, w, b) [r] y = Relu (h) }", nodes_to_exclude=["r"])
    assert layout(plan) == "b:bias h:activation w:weight x:activation"
    assert plan.notes == {"r": "named in nodes_to_exclude"}


def test_a_clamp_behind_an_excluded_layer_stays_float() -> None:
    plan = plain(CONV + " { [c] h = Conv (x, w, b) [r] y = Relu (h) }", nodes_to_exclude=["c"])
    assert not plan.sites
    assert plan.notes["r"] == "not behind a quantized operator that could take it in"


CHAIN = """(float[1,4,8,8] x) => (float[A,B,C,D] y) <float[4,4,3,3] w> {
    [c] a = Conv (x, w) [p] b = MaxPool <kernel_shape=[2,2]> (a)
    [t] d = Transpose <perm=[0,1,3,2]> (b) [q] y = Slice (d, s, e)
}"""


def test_movers_join_in_chains_and_share_one_scale() -> None:
    model = graph(CHAIN, s=np.array([0]), e=np.array([1]))
    assert layout(placed(model)) == "a:activation b:activation=a d:activation=a w:weight x:activation y:activation=a"


def test_movers_in_front_of_a_layer_join_too() -> None:
    plan = placed(
        graph("(float[4,2] x) => (float[2,5] y) <float[4,5] w> { [t] h = Transpose (x) [m] y = MatMul (h, w) }")
    )
    assert layout(plan) == "h:activation=x w:weight x:activation"


@pytest.mark.parametrize("forced", [True, False])
def test_lone_movers_need_force(forced: bool) -> None:
    model = graph("(float[2,4] x) => (float[4,2] y) { [t] h = Transpose (x) [u] y = Tile (h, s) }", s=np.array([1, 1]))
    plan = placed(model, ForceQuantizeNoInputCheck=forced, Protect=False)
    assert layout(plan) == ("h:activation=x x:activation y:activation=x" if forced else "")
    assert plan.notes == ({} if forced else {"t": MOVES, "u": MOVES})


def test_a_table_that_is_looked_up_is_a_constant_and_leads() -> None:
    model = graph(
        "(int64[2] i) => (float[2,5] y) <float[9,4] e, float[4,5] w> { [g] h = Gather (e, i) [m] y = MatMul (h, w) }"
    )
    plan = placed(model)
    assert layout(plan) == "e:constant h:activation=e w:weight"


def test_values_behind_a_known_range_keep_it() -> None:
    plan = placed(
        graph_between(
            ROW + " <float[4,5] w> { [s] a = Softmax (x) [t] h = Reshape (a, d) [m] y = MatMul (h, w) }",
            d=np.array([2, 4]),
        )
    )
    assert layout(plan) == "a:activation h:activation=a w:weight x:activation y:activation"
    assert plan.sites["a"].range == (0.0, 1.0)


UNSIGNED_CASES = {
    "read once": "(float[2,4] x) => (float[2,4] y) { [n] y = LeakyRelu (x) }",
    "a constant": "(float[2,4] x) => (float[2,4] y) <float[4] k> { [n] y = Mul (x, k) }",
    "a table that is looked up": "(int64[2] i) => (float[2,5] y) <float[9,4] e, float[4,5] w> "
    "{ h = Gather (e, i) [n] y = MatMul (h, w) }",
}


@pytest.mark.parametrize("text", UNSIGNED_CASES.values(), ids=UNSIGNED_CASES)
def test_int8_activations_are_stored_as_uint8(text: str) -> None:
    plan = between(text)
    assert "n" in plan.nodes
    assert plan.remarks == {"*": REMARK}
    formats = {site.format for site in plan.sites.values() if site.role != "weight"}
    assert formats == {Format(8, signed=False)}
    assert all(site.format.dtype == "int8" for site in plan.sites.values() if site.role == "weight")


@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_other_types_are_stored_as_they_are(kind: str) -> None:
    text = "(float[2,4] x) => (float[2,4] y, float[2,4] z) { [n] y = Add (x, x) [m] z = Mul (x, x) }"
    plan = between(text, activation_type=kind)
    assert {"n", "m"} <= plan.nodes.keys()
    assert {site.format.dtype for site in plan.sites.values() if site.role != "weight"} == {kind}
    assert not plan.remarks


PAIR = """(float[1,4,8,8] x) => (float[1,4,3,3] y) <float[4,4,3,3] w, float[4,4,3,3] v, float[3,3] u> {
    [stem_conv] a = Conv (x, w) [pool] b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
    [head_conv] d = Conv <pads=[1,1,1,1]> (b, v) [head_mul] y = MatMul (d, u)
}"""
ALL = {"stem_conv", "pool", "head_conv", "head_mul"}


@pytest.mark.parametrize(
    ("field", "value", "left", "reason"),
    [
        ("nodes_to_exclude", ["head_conv"], {"head_conv"}, "named in nodes_to_exclude"),
        ("nodes_to_exclude", ["head_*"], {"head_conv", "head_mul"}, "named in nodes_to_exclude"),
        ("nodes_to_exclude", ["^head"], {"head_conv", "head_mul"}, "named in nodes_to_exclude"),
        ("nodes_to_exclude", ["^.*_conv$", "pool"], ALL - {"head_mul"}, "named in nodes_to_exclude"),
        ("nodes_to_quantize", ["stem_conv", "pool"], {"head_conv", "head_mul"}, "not among nodes_to_quantize"),
        ("nodes_to_quantize", ["head*", "^stem"], {"pool"}, "not among nodes_to_quantize"),
        ("op_types_to_quantize", ["Conv", "MaxPool"], {"head_mul"}, "operator type not among op_types_to_quantize"),
        ("subgraphs_to_exclude", [(["pool"], ["head_conv"])], {"pool", "head_conv"}, "inside subgraphs_to_exclude"),
        ("subgraphs_to_exclude", [(["stem_conv"], ["head_mul"])], ALL, "inside subgraphs_to_exclude"),
        ("subgraphs_to_exclude", [(["head_mul"], ["stem_conv"])], set(), ""),
    ],
)
def test_what_the_user_excludes(field: str, value: list[Any], left: set[str], reason: str) -> None:
    plan = plain(PAIR, **{field: value})
    assert plan.notes == dict.fromkeys(left, reason)
    assert plan.nodes.keys() == ALL - left


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nodes_to_exclude", ["head_con"], "'head_con' matches no node of the model; did you mean 'head_conv'"),
        ("nodes_to_quantize", ["tail*"], "nodes_to_quantize: 'tail[*]' matches no node"),
        ("nodes_to_exclude", ["^(head"], "is not a regular expression"),
        ("op_types_to_quantize", ["Convv"], "'Convv' is not in the operator table; did you mean 'Conv'"),
        ("op_types_to_quantize", ["Erf"], "'Erf' is not in the operator table"),
        ("subgraphs_to_exclude", [(["stem_conv"], ["head"])], "subgraphs_to_exclude: no node 'head' in the model"),
    ],
)
def test_what_the_user_names_must_exist(field: str, value: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain(PAIR, **{field: value})


def test_names_of_nodes_that_preparing_folded_away_are_known() -> None:
    config = settings(nodes_to_exclude=["stem_bn", "stem_*"])
    plan = place(graph(PAIR), config, known={"stem_bn"})
    assert plan.notes == {"stem_conv": "named in nodes_to_exclude"}
    with pytest.raises(ConfigError, match="'stem_bn' matches no node"):
        place(graph(PAIR), config)


def test_a_name_with_wildcards_in_it_means_itself_first() -> None:
    model = graph(PAIR)
    model.graph[0].name = "head_*"
    assert placed(model, nodes_to_exclude=["head_*"]).notes.keys() == {"head_*"}


BRANCHES = "(float[1,4,6,6] x, float[1,4,4,4] z) => (float[1,8,4,4] y) <float[4,4,3,3] w, float[1,4,4,4] k>"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("z", "h:activation=y w:weight x:activation y:activation z:activation=y"),
        ("k", "h:activation=y k:constant=y w:weight x:activation y:activation"),
    ],
)
def test_align_concat(second: str, expected: str) -> None:
    model = graph_between(f"{BRANCHES} {{ [c] h = Conv (x, w) [n] y = Concat <axis=1> (h, {second}) }}")
    assert layout(placed(model, AlignConcat=True)) == expected
    assert layout(placed(model)) == expected.replace("=y", "")


def test_align_concat_leaves_a_known_range_alone() -> None:
    plan = placed(
        graph_between(BRANCHES + " { [c] h = Conv (x, w) [s] g = Sigmoid (z) [n] y = Concat <axis=1> (h, g) }"),
        AlignConcat=True,
    )
    assert layout(plan) == "g:activation h:activation=y w:weight x:activation y:activation z:activation"


def test_align_concat_leaves_the_scale_of_a_mover_alone() -> None:
    """What is moved has the scale of its source, which other operators read too."""
    plan = placed(
        graph_between(BRANCHES + " { [p] g = MaxPool <kernel_shape=[3,3]> (x) [n] y = Concat <axis=1> (z, g) }"),
        AlignConcat=True,
    )
    assert layout(plan) == "g:activation=x x:activation y:activation z:activation=y"


PRODUCTS = "(float[2,3,4] x, float[2,4,5] z) => (float[A,B,C] y) <float[4,5] w, float[2,4,5] v, float[3,3] u>"


@pytest.mark.parametrize(
    ("product", "expected", "const_b_only"),
    [
        ("MatMul (x, w)", "w:weight x:activation y:activation", True),
        ("MatMul (x, v)", "v:weight x:activation y:activation", True),
        ("MatMul (u, x)", "u:weight x:activation y:activation", False),
        ("MatMul (x, z)", "x:activation y:activation z:activation", False),
    ],
)
def test_matmul_of_either_side(product: str, expected: str, const_b_only: bool) -> None:
    model = graph_between(f"{PRODUCTS} {{ [m] y = {product} }}")
    assert layout(placed(model)) == expected
    limited = placed(model, MatMulConstBOnly=True)
    others = expected.replace("u:weight ", "")  # for the layers around
    assert layout(limited) == (expected if const_b_only else others)
    assert limited.notes == ({} if const_b_only else {"m": "MatMulConstBOnly: the second input is not constant"})


ADDED = "(float[2,4] x) => (float[2,5] y) <float[4,5] w, float[5] b, float[1,5] r, float[2,5] f, float s>"


@pytest.mark.parametrize("add", ["Add (h, b)", "Add (b, h)", "Add (h, r)", "Add (h, s)"])
@pytest.mark.parametrize("relu", [False, True])
def test_the_bias_behind_a_matmul_stays_in_the_accumulator(add: str, relu: bool) -> None:
    nodes = f"[m] h = MatMul (x, w) [a] g = {add} [r] y = Relu (g)" if relu else f"[m] h = MatMul (x, w) [a] y = {add}"
    plan = between(f"{ADDED} {{ {nodes} }}")
    assert layout(plan) == "w:weight x:activation y:activation"
    assert {plan.nodes[name] for name in ("m", "a", *"r" * relu)} == {("x", "w", "y")}


@pytest.mark.parametrize("nodes", ["[a] y = Add (h, f)", "[a] y = Add (h, h)", "[a] g = Add (h, b) [d] y = Add (g, h)"])
def test_any_other_add_behind_a_matmul_has_its_own_quantizers_where_all_is_in_fixed_point(nodes: str) -> None:
    text = f"{ADDED} {{ [m] h = MatMul (x, w) {nodes} }}"
    plan = between(text, target="qnn", activation_type="uint8")
    assert plan.nodes["m"] == ("x", "w", "h")
    assert plan.nodes["a"][0] == "h"
    assert between(text).nodes["m"][:2] == ("x", "w")  # it adds the floats that the product returns


def test_an_excluded_bias_add_is_not_absorbed() -> None:
    nodes = "[m] h = MatMul (x, w) [a] g = Add (h, b) [c] y = MatMul (h, v)"
    plan = placed(graph(f"{ADDED[:-1]}, float[5,5] v> {{ {nodes} }}"), nodes_to_exclude=["a"])
    assert layout(plan) == "h:activation v:weight w:weight x:activation"
    assert plan.nodes == {"m": ("x", "w"), "c": ("h", "v")}
    assert plan.sites["h"].beside  # the Add reads floats


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        (CONV + " { y = Conv (x, w, b) }", 0),
        (IMAGE + " <float[4,4,3,3] w, float[4] b> { y = ConvTranspose (x, w, b) }", 1),
        (ROW + " <float[4,5] w, float[5] b> { y = Gemm (x, w, b) }", 1),
        (ROW + " <float[4,5] w, float[5] b> { y = Gemm <transB=0> (x, w, b) }", 1),
        (ROW + " <float[5,4] w, float[5] b> { y = Gemm <transB=1> (x, w, b) }", 0),
        (ROW + " <float[4,5] w> { y = MatMul (x, w) }", 1),
        ("(float[2,3,4] x) => (float[2,3,5] y) <float[2,4,5] w> { y = MatMul (x, w) }", None),
        ("(float[2,3,4] x) => (float[2,3] y) <float[4] w> { y = MatMul (x, w) }", None),
        ("(float[2,4] x) => (float[3,4] y) <float[3,2] w> { y = MatMul (w, x) }", None),
    ],
)
def test_per_channel_axes(text: str, axis: int | None) -> None:
    model = graph(text)
    plan = placed(model, per_channel=True, weight_pairs="off")
    assert plan.sites["w"].format == Format(8, True, True, axis)
    if "b" in plan.sites:
        assert plan.sites["b"].format == Format(32, True, True, 0)
        assert plan.sites["b"].factors == ("x", "w")
    assert all(site.format.axis is None for site in placed(model).sites.values())


@pytest.mark.parametrize("kinds", [{}, {"activation_type": "uint8", "weight_type": "uint8"}])
def test_reduce_range_is_for_weights(kinds: dict[str, str]) -> None:
    model = graph(CONV + " { y = Conv (x, w, b) }")
    for reduce, bits in ((True, 7), (False, 8)):
        plan = placed(model, reduce_range=reduce, **kinds)
        assert {name: plan.sites[name].format.bits for name in "xwby"} == {"x": 8, "w": bits, "b": 32, "y": 8}
        assert plan.sites["w"].format.dtype == kinds.get("weight_type", "int8")


@pytest.mark.parametrize("other", ["", "[r] q = Add (h, x)", "[r] q = Erf (h)"])
def test_layer_normalization_is_float_and_layers_behind_it_quantize_what_they_read(other: str) -> None:
    text = "(float[2,4] x, float[2,4] z) => (float[2,5] y, float[2,4] q) <float[4] k, float[4,5] w>"
    text = text if other else text.replace(", float[2,4] q)", ")")
    nodes = f"[a] s = Add (x, z) [n] h = LayerNormalization (s, k) [m] y = MatMul (h, w) {other}"
    plan = placed(graph(f"{text} {{ {nodes} }}"))
    assert layout(plan) == "h:activation w:weight"
    assert plan.notes["a"] == IDLE and plan.nodes == {"m": ("h", "w")}
    assert plan.sites["h"].beside is bool(other)


IDLE_CASES = {
    "an unknown operator reads it": ("[a] h = Add (x, z) [e] y = Erf (h)", {"a"}),
    "a chain": ("[a] g = Add (x, z) [b] h = Mul (g, z) [e] y = Erf (h)", {"a", "b"}),
    "behind a mover": ("[a] g = Sigmoid (x) [t] h = Transpose (g) [e] y = Erf (h)", {"a"}),
    "with its clamp": ("[a] g = Add (x, z) [r] h = Relu (g) [e] y = Erf (h)", {"a", "r"}),
    "a model output": ("[a] y = Add (x, z)", {"a"}),
    "a mover to a model output": ("[a] g = Add (x, z) [t] y = Transpose (g)", {"a"}),
}
BUSY_CASES = {
    "a layer reads it": "[a] h = Add (x, z) [m] y = MatMul (h, z)",
    "one of two readers is a layer": "[a] h = Add (x, z) [e] g = Erf (h) [m] y = MatMul (h, g)",
    "behind a mover": "[a] g = Sigmoid (x) [t] h = Transpose (g) [m] y = MatMul (h, z)",
}
SQUARE = "(float[4,4] x, float[4,4] z) => (float[4,4] y)"


@pytest.mark.parametrize(("nodes", "idle"), IDLE_CASES.values(), ids=IDLE_CASES)
def test_elementwise_operators_for_nobody_stay_float(nodes: str, idle: set[str]) -> None:
    plan = placed(graph(f"{SQUARE} {{ {nodes} }}"))
    assert {name for name, reason in plan.notes.items() if reason == IDLE} == idle
    assert not plan.sites


@pytest.mark.parametrize("nodes", BUSY_CASES.values(), ids=BUSY_CASES)
def test_elementwise_operators_for_somebody_do_not(nodes: str) -> None:
    plan = between(f"{SQUARE} {{ {nodes} }}")
    assert plan.notes.keys() <= {"e"}
    assert "a" in plan.nodes


BRANCH = "g{0} () => (float[1,4,4,4] r{0}) {{ r{0} = {1} (h) }}"
IF = f"If (c) <then_branch = {BRANCH.format(1, 'Neg')}, else_branch = {BRANCH.format(2, 'Abs')}>"

REFUSED = {
    "unknown operator": (
        ROW + " <float[4,5] w> { h = MatMul (x, w) [n] y = Erf (h) }",
        "Erf is not in the operator table of the CPU target",
    ),
    "integers": ("(int64[2] x) => (int64[2] y) { [n] y = Add (x, x) }", "'x' holds int64; only float32 is quantized"),
    "double": (
        "(double[2] x) => (double[2] y) { [n] y = Add (x, x) }",
        "'x' holds float64; only float32 is quantized: convert the model to float32",
    ),
    "empty": ("(float[1,4] x) => (float[0,4] y) <float[0,4] e> { [n] y = Add (x, e) }", "'e' is empty"),
    "weight computed": (
        "(float[1,4,6,6] x, float[4,4,3,3] w) => (float[1,4,4,4] y) { [n] y = Conv (x, w) }",
        "the weight is computed at run time",
    ),
    "bias computed": (
        f"{CONV.replace('x)', 'x, float[4] d)')} {{ [n] y = Conv (x, w, d) }}",
        "the bias is computed at run time",
    ),
    "bias of a matrix": (
        ROW + " <float[4,5] w, float[2,5] b> { [n] y = Gemm (x, w, b) }",
        "the bias is not one number per output channel",
    ),
    "bias per row": (
        "(float[5,4] x) => (float[5,5] y) <float[4,5] w, float[5,1] b> { [n] y = Gemm (x, w, b) }",
        "the bias is not one number per output channel",
    ),
    "alpha": (
        ROW + " <float[4,5] w> { [n] y = Gemm <alpha=0.5> (x, w) }",
        "alpha or beta is not 1; optimize_model=True folds them",
    ),
    "beta": (
        ROW + " <float[4,5] w, float[5] b> { [n] y = Gemm <beta=2.0> (x, w, b) }",
        "alpha or beta is not 1; optimize_model=True folds them",
    ),
    "constants only": (
        "(float[2] x) => (float[2] y, float[2] z) <float[2] k> { [n] y = Add (k, k) z = Add (x, x) }",
        "all inputs are constant",
    ),
    "product of constants": (
        ROW + " <float[2,4] k, float[4,5] w> { [n] h = MatMul (k, w) y = Gemm (x, w, h) }",
        "both inputs are constant",
    ),
    "Concat of one": ("(float[2] x) => (float[2] y) { [n] y = Concat <axis=0> (x) }", "a Concat of one input"),
    "Softmax to the user": (
        "(float[2,4] x) => (float[2,4] y) { [n] y = Softmax (x) }",
        "its output is a model output: a fixed step would be all the user sees",
    ),
    "indices of MaxPool": (
        "(float[1,4,6,6] x) => (float[A,B,C,D] y, int64[A,B,C,D] z) "
        "{ [n] y, i = MaxPool <kernel_shape=[2,2]> (x) z = Neg (i) }",
        "its Indices output is read",
    ),
    "Pad with a value": (
        ROW + " <int64[4] p = {0,0,0,1}, float v = {1}> { [n] y = Pad (x, p, v) }",
        "pads with a value other than 0",
    ),
    "Pad with a computed value": (
        "(float[2,4] x, float v) => (float[2,5] y) <int64[4] p = {0,0,0,1}> { [n] y = Pad (x, p, v) }",
        "pads with a value other than 0",
    ),
    "cubic Resize": (
        IMAGE + ' <float[4] s = {1,1,2,2}> { [n] y = Resize <mode="cubic"> (x, , s) }',
        "cubic interpolation leaves the range of its input",
    ),
    "control flow": (
        f"(float[1,4,4,4] h, bool c) => (float[1,4,4,4] y) {{ [n] y = {IF} }}",
        "control flow: what it computes is computed in its bodies",
    ),
    "shape arithmetic": (
        "(float[2,4] x) => (float[A,B] y) <float[2] k> "
        "{ s = Shape (x) f = Cast <to=1> (s) [n] g = Mul (f, k) i = Cast <to=7> (g) y = Reshape (x, i) }",
        "computes shapes or indices, not data",
    ),
}
ALLOWED = {
    "bias of one number": ROW + " <float[4,5] w, float[1] b> { [n] y = Gemm (x, w, b) }",
    "bias of one number per column": ROW + " <float[4,5] w, float[1,5] b> { [n] y = Gemm (x, w, b) }",
    "alpha of one": ROW + " <float[4,5] w> { [n] y = Gemm <alpha=1.0> (x, w) }",
    "one constant": "(float[2] x) => (float[2] y) <float[2] k> { [n] y = Add (k, x) }",
    "indices of MaxPool unread": IMAGE + " { [n] y, i = MaxPool <kernel_shape=[2,2]> (x) }",
    "Pad with zero": ROW + " <int64[4] p = {0,0,0,1}, float v = {0}> { [n] y = Pad (x, p, v) }",
    "Pad by reflection": ROW + ' <int64[4] p = {0,0,0,1}> { [n] y = Pad <mode="reflect"> (x, p) }',
    "linear Resize": IMAGE + ' <float[4] s = {1,1,2,2}> { [n] y = Resize <mode="linear"> (x, , s) }',
    "data of a known shape": ROW + " <int64[2] s = {2,4}, float[4,5] w> { [n] h = Reshape (x, s) y = MatMul (h, w) }",
    "data and a shape": "(float[2,2] x) => (float[2,2] y) { s = Shape (x) f = Cast <to=1> (s) [n] y = Add (f, x) }",
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, reason: str) -> None:
    plan = plain(text)
    assert plan.notes["n"] == reason


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_allowed(text: str) -> None:
    assert "n" in between(text).nodes


def test_a_softmax_for_the_user_and_for_others_is_allowed() -> None:
    nodes = "{ h = MatMul (x, v) [o] g = MatMul (h, w) [n] y = Softmax (h) z = MatMul (y, w) }"
    plan = plain(f"(float[2,4] x) => (float[2,4] y, float[2,5] z, float[2,5] g) <float[4,4] v, float[4,5] w> {nodes}")
    assert "n" in plan.nodes


def test_an_unknown_type_is_a_reason() -> None:
    model = graph("(float[2] x) => (float[2] y) { h = other.Magic (x) [n] y = Add (h, x) }")
    assert placed(model).notes["n"] == "the type of 'h' is unknown"


def test_nodes_in_bodies_are_not_placed_and_those_around_are() -> None:
    text = CONV.replace("x)", "x, bool c)")
    plan = placed(graph(f"{text} {{ [n] h = Conv (x, w, b) [i] y = {IF} }}"))
    assert plan.nodes.keys() == {"n"}
    assert plan.notes.keys() == {"i"}
    assert layout(plan) == "b:bias h:activation w:weight x:activation"


def test_what_a_branch_computes_is_data_even_when_a_shape_decides() -> None:
    text = "(float[1,4,4,4] x) => (float[1,4,2,2] y) <float[4,4,3,3] w, int64 one = {1}>"
    nodes = f"h = Abs (x) s = Size (x) c = Greater (s, one) [i] g = {IF} [n] y = Conv (g, w)"
    assert placed(graph(f"{text} {{ {nodes} }}")).nodes.keys() == {"n"}


BOTH = """g (float[4,32] x) => (float[4,16] y) {
    a = MatMul(x, w)  b = Add(a, c)  y = Gemm(b, v, e)
}"""


@pytest.mark.parametrize(
    ("types", "quantized"),
    [(["MatMul"], {"MatMul_a"}), (["MatMul", "Gemm"], {"MatMul_a", "Gemm_y"}), (["Add"], set())],
)
def test_an_operator_type_is_that_of_the_users_model(types: list[str], quantized: set[str]) -> None:
    """Preparing makes a Gemm of MatMul and Add; who names MatMul means it, and no other Gemm."""
    sizes = {"w": normal(32, 64), "c": normal(64), "v": normal(64, 16), "e": normal(16)}
    config = QuantizationConfig(op_types_to_quantize=types)
    assert set(open_job(text_model(BOTH, **sizes), config).sites.nodes) == quantized
