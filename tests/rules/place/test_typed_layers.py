"""Layers with number types of their own: what they are placed as, what their neighbours make of it, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from quantized_models import graph, placed, settings

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, Site
from quark_onnx.stages.place import place
from quark_onnx.stages.place.typed_layers import NO_WEIGHT

CHAIN = """(float[1,4,8,8] x) => (float[1,4,2,2] y)
    <float[4,4,3,3] wa, float[4] ba, float[4,4,3,3] wb, float[4] bb, float[4,4,3,3] wc,
     float zero = {0}, float six = {6}>
    { [a] h = Conv (x, wa, ba) [ar] hr = Relu (h) [b] i = Conv (hr, wb, bb) [br] ir = Clip (i, zero, six)
      [c] y = Conv (ir, wc) }"""
RESIDUAL = """(float[1,4,8,8] x) => (float[1,4,8,8] y)
    <float[4,4,1,1] wa, float[4,4,1,1] wb, float[4] bb, float[4,4,1,1] wc, float[4,4,1,1] wd>
    { [a] h = Conv (x, wa) [b] i = Conv (h, wb, bb) [s] j = Add (h, i) [c] k = Conv (j, wc) [t] l = Add (j, k)
      [d] y = Conv (l, wd) }"""
PRODUCTS = """(float[2,8] x) => (float[2,8] y)
    <float[8,8] wa, float[8] ba, float[8,8] wb, float[8] bb, float[8,8] wc, float[8,8] wd>
    { [a] h = MatMul (x, wa) [aa] ha = Add (h, ba) [r] hr = Relu (ha) [b] i = Gemm (hr, wb, bb) [c] j = MatMul (hr, wc)
      [m] k = Mul (i, j) [d] y = MatMul (k, wd) }"""
MOVED = """(float[1,4,8,8] x) => (float[1,8] y)
    <float[4,4,3,3] wa, float[4,4,3,3] wb, float[288,8] wc, int64[2] to = {1, 288}>
    { [a] h = Conv (x, wa) [b] i = Conv (x, wb) [k] c = Concat <axis = 1> (h, i)
      [p] p = MaxPool <kernel_shape = [1, 1]> (c)
      [f] f = Reshape (p, to) [g] y = MatMul (f, wc) }"""
GRAPHS = {"chain": CHAIN, "residual": RESIDUAL, "products": PRODUCTS, "moved": MOVED}
ALONE = {"activation_type": "float", "weight_type": "uint4", "symmetric": False}


def typed(text: str, types: dict[str, dict[str, Any]], **fields: Any) -> Plan:
    return placed(graph(text), LayerTypes=types, **fields)


def weights(plan: Plan) -> dict[str, Format]:
    return {name: site.format for name, site in plan.sites.items() if site.role == "weight"}


def others(plan: Plan, weight: str) -> dict[str, Site]:
    return {name: site for name, site in plan.sites.items() if name != weight}


@pytest.mark.parametrize(
    "fields", [{}, {"ActivationSymmetric": True}, {"target": "tensorrt"}, {"target": "vitisai"}], ids=str
)
@pytest.mark.parametrize("text", GRAPHS.values(), ids=GRAPHS)
def test_to_its_neighbours_it_is_as_float_as_an_excluded_layer(text: str, fields: dict[str, Any]) -> None:
    model = graph(text)
    layers = [node for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    for node in layers:
        name, weight = node.name or "", node.inputs[1].name or ""
        alone = placed(model, LayerTypes={name: {"activation_type": "float"}}, **fields)
        excluded = placed(model, nodes_to_exclude=[name], **fields)
        assert others(alone, weight) == excluded.sites
        assert alone.sites[weight].role == "weight"
        assert alone.nodes[name] == (weight,)
        theirs = {other: tensors for other, tensors in alone.nodes.items() if tensors != (weight,)}
        assert theirs == excluded.nodes


def test_a_layer_gets_what_is_asked_and_no_other() -> None:
    plain = placed(graph(CHAIN), per_channel=True)
    plan = typed(CHAIN, {"b": ALONE, "c": {"weight_type": "int4", "per_channel": False}}, per_channel=True)
    assert weights(plan) == weights(plain) | {
        "wb": Format(4, False, False, axis=0),
        "wc": Format(4, True, True),
    }
    assert plan.nodes["b"] == ("wb",)
    assert plan.sites["x"] == plain.sites["x"]
    assert plan.sites["hr"] == plain.sites["hr"]
    assert "bb" not in plan.sites


def test_blocks_run_along_the_input_and_the_bias_stays_float() -> None:
    plan = typed(PRODUCTS, {"b": {"weight_type": "int4", "BlockSize": 4}}, per_channel=True)
    assert weights(plan)["wb"] == Format(4, True, True, axis=0, block=4)
    assert weights(plan)["wc"].block is None
    assert plan.nodes["b"][:2] == ("hr", "wb")
    assert "bb" not in plan.sites
    none = typed(PRODUCTS, {"b": {"BlockSize": None}}, BlockSize=4)
    assert (weights(none)["wb"].block, weights(none)["wc"].block) == (None, 4)


def test_all_layers_alone_are_weights_alone() -> None:
    every = typed(PRODUCTS, {"*": {"activation_type": "float", "weight_type": "int8"}})
    assert every.sites == placed(graph(PRODUCTS), WeightsOnly=True).sites
    assert every.nodes == placed(graph(PRODUCTS), WeightsOnly=True).nodes


def test_the_twin_of_the_configuration_is_the_configuration() -> None:
    for text in GRAPHS.values():
        same = typed(text, {"*": {"activation_type": "int8", "weight_type": "int8"}})
        assert same.sites == placed(graph(text)).sites


WIDE = {"activation_type": "int16"}


def test_the_widest_wins_where_layers_share_a_tensor() -> None:
    bits = {
        name: site.format.bits for name, site in typed(PRODUCTS, {"c": WIDE}).sites.items() if site.role == "activation"
    }
    assert bits["hr"] == 16  # read by b as well
    assert bits["x"] == 8  # read by a alone
    narrow = typed(PRODUCTS, {"*": {"activation_type": "int8"}, "c": WIDE}, activation_type="int16")
    assert {name: narrow.sites[name].format.bits for name in bits} == bits


def test_what_no_layer_touches_goes_with_those_around() -> None:
    text = RESIDUAL.replace("[t] l = Add (j, k)", "[t] m = Add (j, k) [u] n = Add (m, x) [v] l = Add (n, m)")
    base = typed(text, {"c": WIDE})
    assert {name: site.format.bits for name, site in base.sites.items() if name in ("j", "k", "m", "n", "l", "h")} == {
        **dict.fromkeys(("j", "k", "m", "n"), 16),
        **dict.fromkeys(("h", "l"), 8),
    }
    all_narrow = typed(text, {"*": {"activation_type": "int8"}}, activation_type="int16")
    assert {site.format.bits for site in all_narrow.sites.values() if site.role == "activation"} == {8}


def test_a_group_has_one_type() -> None:
    plan = typed(MOVED, {"a": WIDE}, AlignConcat=True)
    assert len({plan.sites[name].group for name in ("h", "i", "c")}) == 1
    assert {plan.sites[name].format.bits for name in ("h", "i", "c")} == {16}
    assert typed(MOVED, {"a": WIDE}).sites["i"].format.bits == 8


def test_an_override_of_a_tensor_counts_more() -> None:
    asked = {"hr": [{"quant_type": "uint8"}], "wb": [{"quant_type": "int8"}]}
    plan = typed(PRODUCTS, {"c": WIDE, "b": {"weight_type": "int4"}}, TensorQuantOverrides=asked)
    assert (plan.sites["hr"].format.bits, plan.sites["wb"].format.bits) == (8, 8)


def test_a_product_of_activations_has_none_to_leave() -> None:
    text = "(float[2,8] x) => (float[2,2] y) <float[8,8] w, float[8,8] v> "
    text += "{ [a] h = MatMul (x, w) [b] i = MatMul (x, v) [t] t = Transpose <perm = [1, 0]> (i) "
    text += "[c] y = MatMul (h, t) }"
    plan = typed(text, {"*": ALONE})
    assert plan.notes["c"] == NO_WEIGHT
    assert plan.nodes.keys() == {"a", "b"}
    assert typed(text, {"*": {"activation_type": "int16"}}).sites["h"].format.bits == 16


def test_a_name_counts_more_than_a_pattern() -> None:
    plan = typed(CHAIN, {"^[ab]$": {"weight_type": "int4"}, "a": {"weight_type": "int16"}})
    assert {name: format.bits for name, format in weights(plan).items()} == {"wa": 16, "wb": 4, "wc": 8}
    again = typed(CHAIN, {"a": {"weight_type": "int16"}, "^[ab]$": {"weight_type": "int4"}})
    assert weights(again) == weights(plan)
    agreeing = typed(CHAIN, {"^[ab]$": {"weight_type": "int4"}, "?": {"weight_type": "int4"}})
    assert {format.bits for format in weights(agreeing).values()} == {4}


SHARED = "(float[2,8] x) => (float[2,8] y) <float[8,8] w> { [a] h = MatMul (x, w) [b] y = MatMul (h, w) }"
COMPUTED = "(float[2,8] x, float[8,8] w) => (float[2,8] y) { [a] y = MatMul (x, w) }"
REFUSED = {
    "unknown": (CHAIN, {"bb": ALONE}, "LayerTypes: 'bb' matches no node of the model; did you mean 'b'"),
    "pattern": (CHAIN, {"stem/*": ALONE}, r"LayerTypes: 'stem/\*' matches no node"),
    "no layer": (CHAIN, {"ar": ALONE}, r"LayerTypes\['ar'\] takes Relu 'ar', and only Conv, .* are layers"),
    "no layer among them": (CHAIN, {"?r": ALONE}, r"takes Relu 'ar', Clip 'br', and only"),
    "weight": (COMPUTED, {"a": ALONE}, "MatMul 'a' has no constant weight; leave 'weight_type' out"),
    "blocks": (CHAIN, {"b": {"BlockSize": 4}}, "the weight of Conv 'b' has no blocks"),
    "two ways": (
        CHAIN,
        {"^[ab]": {"weight_type": "int4"}, "^[bc]": {"weight_type": "int8"}},
        r"'\^\[ab\]' and '\^\[bc\]' want Conv 'b' in different ways; name it alone",
    ),
    "one weight": (SHARED, {"b": {"weight_type": "int4"}}, "'a' and 'b' share the weight 'w', which has one type"),
}


@pytest.mark.parametrize(("text", "types", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(text: str, types: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(text, types)
    placed(graph(text))


def test_what_goes_beside_the_refused() -> None:
    typed(COMPUTED, {"a": {"activation_type": "int16"}})
    typed(SHARED, {"*": {"weight_type": "int4"}})
    typed(SHARED, {"b": {"activation_type": "float"}})
    typed(CHAIN, {"*": {"weight_type": "int4"}, "b": {"weight_type": "int16"}})


def test_a_name_that_preparing_has_folded_away() -> None:
    with pytest.raises(ConfigError, match=r"LayerTypes\['bn'\] takes nothing that is left of the model"):
        place(graph(CHAIN), settings(LayerTypes={"bn": ALONE}), known={"bn"})
    place(graph(CHAIN), settings(LayerTypes={"b*": ALONE}), known={"bn"})


def test_at_run_time_a_layer_may_be_alone() -> None:
    plan = typed(PRODUCTS, {"b": ALONE}, use_dynamic_quant=True, activation_type="uint8")
    assert plan.nodes["b"] == ("wb",)
    assert plan.nodes["c"] == ("wc", "hr")
    assert plan.sites["hr"].role == "dynamic"
