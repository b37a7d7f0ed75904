"""Overrides on graphs: exactly what is named changes, in format, range and method, and what cannot be is an error."""

from __future__ import annotations

from typing import Any

import pytest
from onnxruntime.quantization import QuantType
from quantized_models import graph, placed

from quark_onnx import ConfigError
from quark_onnx.core.plan import Plan, Site
from quark_onnx.stages.place.storage_types import REMARK

NET = """(float[1,3,6,6] x) => (float[1,3,4,4] y) <float[4,3,3,3] w, float[4] b, float[3,4,1,1] v>
    { [one] c = Conv (x, w, b) [act] r = LeakyRelu (c) [pool] p = MaxPool <kernel_shape=[1,1]> (r)
      [two] y = Conv (p, v) }"""
ADDED = """(float[2,4] i) => (float[2,5] y, float[2,4] z, float[2,4] o) <float[4,5] w, float[4] k, float[4,4] u>
    { [first] x = Gemm (i, u) [sum] a = Add (x, k) [gain] g = Mul (a, x) [dot] y = MatMul (a, w)
      [last] z = Gemm (g, u) [other] o = Gemm (x, u) }"""


def plan(text: str = NET, tensors: Any = None, types: Any = None, **fields: Any) -> Plan:
    """Weights are rounded freely: whether they need safe pairs depends on the activation beside them."""
    fields = fields if "target" in fields else {"weight_pairs": "off"} | fields
    if tensors is not None:
        fields["TensorQuantOverrides"] = tensors
    if types is not None:
        fields["OpTypeQuantOverrides"] = types
    return placed(graph(text), **fields)


def changed(before: Plan, after: Plan) -> dict[str, Site]:
    """The sites that differ; there must be the same ones, in the same groups, of the same nodes."""
    assert list(before.sites) == list(after.sites)
    assert before.nodes == after.nodes
    assert all(before.sites[name].group == site.group for name, site in after.sites.items())
    return {name: site for name, site in after.sites.items() if site != before.sites[name]}


# Single tensors


@pytest.mark.parametrize(
    ("tensor", "asked", "fields"),
    [
        ("c", {"quant_type": "uint16"}, {"bits": 16, "signed": False}),
        ("c", {"quant_type": QuantType.QInt16, "symmetric": True}, {"bits": 16, "signed": True, "symmetric": True}),
        ("w", {"quant_type": "int4"}, {"bits": 4, "symmetric": True}),
        ("w", {"quant_type": "uint8"}, {"signed": False, "symmetric": False}),
        ("w", {"symmetric": False}, {"symmetric": False}),
        ("w", {"reduce_range": True}, {"bits": 7}),
        ("v", {"axis": 0}, {"axis": 0}),
        ("v", {"axis": -4}, {"axis": 0}),
    ],
)
def test_the_format_of_the_named_tensor_changes(tensor: str, asked: dict[str, Any], fields: dict[str, Any]) -> None:
    before, after = plan(), plan(tensors={tensor: [asked]})
    (name, site), *others = changed(before, after).items()
    assert (name, others) == (tensor, [])
    wanted = {
        key: getattr(before.sites[tensor].format, key) for key in ("bits", "signed", "symmetric", "axis")
    } | fields
    assert {key: getattr(site.format, key) for key in wanted} == wanted


def test_a_method_is_kept_for_the_ranges() -> None:
    found = changed(plan(), plan(tensors={"w": {"calibrate_method": "mse"}, "c": {"calibrate_method": "Entropy"}}))
    assert {name: site.method for name, site in found.items()} == {"w": "MinMSE", "c": "Entropy"}


def test_a_range_is_kept_as_given() -> None:
    found = changed(plan(), plan(tensors={"c": {"rmin": -0.1, "rmax": 3.7}}))
    assert {name: site.range for name, site in found.items()} == {"c": (-0.1, 3.7)}


def test_a_method_takes_the_place_of_a_range_that_is_known() -> None:
    text = "(float[2,4] x) => (float[2,5] y, float[2,5] z) <float[4,4] v, float[4,5] w> "
    text += "{ g = MatMul (x, v) z = MatMul (g, w) [s] h = Softmax (g) [m] y = MatMul (h, w) }"
    assert "s" in plan(text).nodes
    assert plan(text).sites["h"].range == (0.0, 1.0)
    site = plan(text, {"h": {"calibrate_method": "MinMSE"}}).sites["h"]
    assert (site.range, site.method) == (None, "MinMSE")


def test_non_overflow_makes_a_power_of_two_of_one_scale() -> None:
    found = changed(plan(), plan(tensors={name: {"calibrate_method": "NonOverflow"} for name in "cv"}))
    assert {name: (site.format.scale, site.method) for name, site in found.items()} == {
        "c": ("pow2", "NonOverflow"),
        "v": ("pow2", "NonOverflow"),
    }
    whole = plan(WeightCalibrateMethod="NonOverflow")
    assert {name: site.format.scale for name, site in whole.sites.items() if name in "wvx"} == {
        "w": "pow2",
        "v": "pow2",
        "x": "float",
    }


def test_one_scale_for_a_weight_that_would_have_many() -> None:
    before = plan(per_channel=True)
    assert (before.sites["w"].format.axis, before.sites["b"].format.axis) == (0, 0)
    for asked in ({"axis": None}, {"rmin": -1.0, "rmax": 1.0}):
        found = changed(before, plan(tensors={"w": asked}, per_channel=True))
        assert {name: site.format.axis for name, site in found.items()} == {"w": None, "b": None}
    kept = changed(before, plan(tensors={"w": {"quant_type": "int4"}}, per_channel=True))
    assert {name: site.format.axis for name, site in kept.items()} == {"w": 0}


def test_the_bias_follows_the_axis_of_its_weight() -> None:
    found = changed(plan(), plan(tensors={"w": {"axis": 0}}))
    assert {name: site.format.axis for name, site in found.items()} == {"w": 0, "b": 0}


def test_every_bias_follows_the_axis_of_a_weight_that_layers_share() -> None:
    model = graph("""(float[1,4,6,6] x) => (float[1,4,2,2] y) <float[4,4,3,3] w, float[4] b, float[4] c>
        { [n] h = Conv (x, w, b) [m] y = Conv (h, w, c) }""")
    plan = placed(model, TensorQuantOverrides={"w": [{"axis": 0}]})
    assert {tensor: plan.sites[tensor].format.axis for tensor in "wbc"} == {"w": 0, "b": 0, "c": 0}


def test_tensors_of_one_scale_change_together() -> None:
    assert plan().sites["p"].group == "r"
    for name in ("r", "p"):
        found = changed(plan(), plan(tensors={name: {"quant_type": "uint16"}}))
        assert {tensor: site.format.bits for tensor, site in found.items()} == {"r": 16, "p": 16}
    same = {"quant_type": "uint16"}
    assert changed(plan(), plan(tensors={"r": same, "p": same})).keys() == {"r", "p"}
    with pytest.raises(ConfigError, match="'r' and 'p' share one scale"):
        plan(tensors={"r": same, "p": {"quant_type": "int16"}})


# Operator types


@pytest.mark.parametrize(
    ("types", "tensors"),
    [
        ({"Conv": {"weight": {"quant_type": "int4"}}}, {"w", "v"}),
        ({"Conv": {"input": {"calibrate_method": "MinMSE"}}}, {"x", "r", "p"}),
        ({"Conv": {"output": {"quant_type": "int16"}}}, {"c", "y"}),
        ({"LeakyRelu": {"output": {"quant_type": "int16"}}}, {"r", "p"}),
        ({"Gemm": {"input": {"quant_type": "int16"}}}, set()),
    ],
)
def test_operator_types_change_what_they_read_and_write(types: dict[str, Any], tensors: set[str]) -> None:
    assert changed(plan(), plan(types=types)).keys() == tensors


def test_what_no_operator_of_the_type_has_is_refused() -> None:
    for part, asked in (("LeakyRelu", "weight"), ("Conv", "output")):
        with pytest.raises(ConfigError, match=rf"OpTypeQuantOverrides\['{part}'\]\['{asked}'\]: nothing of the model"):
            plan(types={part: {asked: {"quant_type": "int8"}}}, **({"target": "tensorrt"} if part == "Conv" else {}))


def test_constants_are_inputs_too() -> None:
    found = changed(plan(ADDED), plan(ADDED, types={"Add": {"input": {"symmetric": True}}}))
    assert found.keys() == {"x", "k"}


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu"])
def test_the_output_is_where_its_quantizer_stands(op: str) -> None:
    text = "(float[1,3,6,6] x) => (float[1,4,4,4] z) <float[4,3,3,3] w, float[4,4,1,1] v> "
    text += f"{{ [n] c = Conv (x, w) [o] y = {op} (c) [p] z = Conv (y, v) }}"
    found = changed(plan(text), plan(text, types={"Conv": {"output": {"quant_type": "uint16"}}}))
    assert found.keys() == ({"y", "z"} if op == "Relu" else {"c", "z"})


def test_the_output_of_a_product_is_behind_its_bias() -> None:
    text = """(float[2,3,4] x) => (float[2,3,5] z) <float[4,5] w, float[5] b, float[5,5] v>
        { [n] c = MatMul (x, w) [o] a = Add (c, b) [r] y = Relu (a) z = MatMul (y, v) }"""
    found = changed(plan(text), plan(text, types={"MatMul": {"output": {"quant_type": "uint16"}}}))
    assert found.keys() == {"y"}


@pytest.mark.parametrize(
    ("node", "weight", "axis"),
    [
        ("Conv (x, w)", "float[4,3,1,1]", 0),
        ("ConvTranspose (x, w)", "float[3,4,1,1]", 1),
        ("MatMul (x, w)", "float[6,5]", 1),
        ("MatMul (x, w)", "float[3,6,5]", None),
        ("MatMul (w, x)", "float[6,6]", None),
    ],
)
def test_scales_per_channel_for_one_operator_type(node: str, weight: str, axis: int | None) -> None:
    text = f"(float[1,3,6,6] x) => (float[A,B,C,D] y) <{weight} w> {{ [n] y = {node} }}"
    kind = node.split()[0]
    assert plan(text, types={kind: {"weight": {"per_channel": True}}}).sites["w"].format.axis == axis
    wide = plan(text, types={kind: {"weight": {"per_channel": False}}}, per_channel=True)
    assert wide.sites["w"].format.axis is None


def test_a_target_with_one_scale_per_product_has_none_per_channel() -> None:
    text = "(float[2,4] x) => (float[2,5] y) <float[4,5] w> { [n] y = MatMul (x, w) }"
    types = {"MatMul": {"weight": {"per_channel": True}}}
    assert plan(text, types=types, target="qnn", activation_type="uint8").sites["w"].format.axis is None


def test_gemm_has_its_channels_where_transb_says() -> None:
    for trans, dims, axis in ((0, "4,5", 1), (1, "5,4", 0)):
        text = f"(float[2,4] x) => (float[2,5] y) <float[{dims}] w> {{ [n] y = Gemm <transB={trans}> (x, w) }}"
        assert plan(text, types={"Gemm": {"weight": {"per_channel": True}}}).sites["w"].format.axis == axis


def test_tensors_win_over_operator_types_and_inputs_over_outputs() -> None:
    types = {"Conv": {"output": {"quant_type": "int16"}}, "LeakyRelu": {"input": {"quant_type": "uint16"}}}
    sites = plan(types=types)
    assert (sites.sites["c"].format.dtype, sites.sites["y"].format.dtype) == ("uint16", "int16")
    assert sites.remarks == {
        "*": REMARK,
        "c": "OpTypeQuantOverrides['LeakyRelu']['input'] wins over OpTypeQuantOverrides['Conv']['output']",
    }
    named = plan(tensors={"c": {"quant_type": "int8"}}, types=types)
    assert named.sites["c"].format.dtype == "uint8"  # as which int8 is stored


def test_what_does_not_disagree_is_joined() -> None:
    types = {
        "Conv": {"output": {"quant_type": "int16", "symmetric": True}},
        "LeakyRelu": {"input": {"calibrate_method": "MinMSE", "symmetric": True}},
    }
    sites = plan(tensors={"c": {"symmetric": False}}, types=types)
    site = sites.sites["c"]
    assert (site.format.dtype, site.format.symmetric, site.method) == ("int16", False, "MinMSE")
    assert sites.remarks == {"*": REMARK}


def test_two_readers_that_disagree_are_refused_unless_the_tensor_is_named() -> None:
    types = {"Mul": {"input": {"quant_type": "uint16"}}, "MatMul": {"input": {"quant_type": "int16"}}}
    with pytest.raises(ConfigError, match=r"\['Mul'\]\['input'\] and .*\['MatMul'\]\['input'\] want 'a' in different"):
        plan(ADDED, types=types)
    with pytest.raises(ConfigError, match="in different"):
        plan(ADDED, {"a": {"calibrate_method": "MinMSE"}}, types)
    assert plan(ADDED, {"a": {"quant_type": "uint8"}}, types).sites["a"].format.dtype == "uint8"


# Errors

SCALED = {"scale": 0.5, "zero_point": 0}
BAD: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "no such tensor": ({"cc": {"symmetric": True}}, r"\['cc'\]: the prepared model has no such tensor", {}),
    "nearest tensor": ({"X": {"symmetric": True}}, "did you mean 'x'", {}),
    "axis of an activation": ({"c": {"axis": 1}}, "'axis' is for weights, and 'c' is none", {}),
    "reduced activation": ({"c": {"reduce_range": True}}, "'reduce_range' is for weights", {}),
    "bias": ({"b": {"quant_type": "int16"}}, "'b' is a bias, its scale is that of the input", {}),
    "reduced 4 bits": ({"w": {"quant_type": "int4", "reduce_range": True}}, "for 8-bit weights, not int4", {}),
    "axis beyond": ({"w": {"axis": 4}}, "axis 4 is none of the 4 axes of 'w'", {}),
    "channel count": (
        {"w": [{"axis": 0} | SCALED] * 3},
        r"\['w'\] has 3 dictionaries, but 'w' has 4 channels along axis 0",
        {},
    ),
    "axis of inputs": ({"w": {"axis": 1}}, "whose scales its bias 'b' needs; give axis 0", {}),
    "tuned axis of inputs": ({"v": {"axis": 1}}, "fine-tuning needs; give axis 0", {"include_fast_ft": True}),
    "zero point beyond": ({"c": {"scale": 1.0, "zero_point": 200}}, "zero_point 200.* is not a code of int8", {}),
    "tiny scale": ({"c": {"scale": 1e-44, "zero_point": 0}}, "is not a normal float32", {}),
    "type of the target": (
        {"x": {"quant_type": "uint8"}},
        "target 'tensorrt' runs activations of int8",
        {"target": "tensorrt"},
    ),
    "weight of the target": ({"w": {"quant_type": "int16"}}, "runs weights of int8 or int4", {"target": "tensorrt"}),
    "symmetry of the target": ({"x": {"symmetric": False}}, "needs symmetric activations", {"target": "tensorrt"}),
    "symmetric weights": ({"w": {"symmetric": False}}, "needs symmetric weights", {"target": "tensorrt"}),
    "zero point of a weight": (
        {"w": {"scale": 1.0, "zero_point": 3}},
        "needs the zero point in the middle, 0",
        {"target": "tensorrt"},
    ),
    "one scale per weight": ({"w": {"axis": 0}}, "'vitisai' runs one scale per weight", {"target": "vitisai"}),
    "zero point of the target": (
        {"x": {"scale": 1.0, "zero_point": 3}},
        "needs the zero point in the middle, 0",
        {"target": "tensorrt"},
    ),
    "scale of the target": (
        {"x": {"scale": 0.3, "zero_point": 0}},
        "scale 0.3 is not a power of two",
        {"target": "vitisai"},
    ),
    "nothing converts": ({"c": {"convert": {"quant_type": "uint16"}}}, "no quantized node reads the converted", {}),
}


@pytest.mark.parametrize(("tensors", "message", "fields"), BAD.values(), ids=BAD)
def test_bad_overrides(tensors: Any, message: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(tensors=tensors, **fields)


def test_a_tensor_without_a_quantizer_names_those_around_it() -> None:
    text = "(float[1,3,6,6] x) => (float[1,4,4,4] y) <float[4,3,3,3] w> { [n] c = Conv (x, w) [o] y = Relu (c) }"
    with pytest.raises(ConfigError, match=r"\['c'\]: the tensor carries no quantizer; near it they stand on 'x', 'y'"):
        plan(text, {"c": {"symmetric": True}})


def test_an_operator_type_that_is_unknown() -> None:
    with pytest.raises(ConfigError, match="'Convv' is not in the operator table; did you mean 'Conv'"):
        plan(types={"Convv": {}})


def test_nothing_can_be_asked_of_what_is_quantized_at_run_time() -> None:
    with pytest.raises(ConfigError, match="'x' is quantized at run time"):
        plan(tensors={"x": {"symmetric": True}}, use_dynamic_quant=True, activation_type="uint8")
