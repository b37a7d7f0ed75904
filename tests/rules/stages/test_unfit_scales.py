"""Scales that operators cannot compute with: what stays float, and what onnxruntime's kernels really take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx_text import parse_model
from quantized_models import feeds, graph, placed, settings
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ModelError
from quark_onnx.core.operators import CPU, QNN
from quark_onnx.core.plan import Plan, QParams
from quark_onnx.core.records import UNFIT
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.result import Result
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.scale_alignment import align
from quark_onnx.stages.unfit_scales import without_unfit

# kernels with limits -------------------------------------------------------------------------------------------------

KERNELS = {
    "GlobalAveragePool": "[n] y = GlobalAveragePool (a)",
    "AveragePool": "[n] y = AveragePool <kernel_shape=[2,2]> (a)",
    "Add": "[n] y = Add (a, b)",
    "Mul": "[n] y = Mul (a, b)",
}
WRITTEN = """(float[1,2,2,2] x, float[1,2,2,2] z) => (float[A,B,C,D] o)
    <float s = {SX}, float t = {SY}, uint8 m = {128}> {
    p = QuantizeLinear (x, s, m)  a = DequantizeLinear (p, s, m)  q = QuantizeLinear (z, s, m)
    b = DequantizeLinear (q, s, m)  NODE  r = QuantizeLinear (y, t, m)  o = DequantizeLinear (r, t, m) }"""


def departs(op_type: str, ratio: float) -> bool:
    """Whether the kernel fails, or is more than two steps away from what is written, for scales with this ratio."""
    scale = f"{np.sqrt(ratio):.9g}"
    behind = 1.0 if op_type == "Mul" else 1 / float(scale)  # the product of both inputs' scales is the square of one
    text = WRITTEN.replace("NODE", KERNELS[op_type]).replace("SX", scale).replace("SY", f"{behind:.9g}")
    proto = parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    model, feed = io.load(proto), {name: normal(1, 2, 2, 2, seed=i) * float(scale) * 60 for i, name in enumerate("xz")}
    try:
        run = Runner(model, threads=1)(feed)[0]
    except ModelError as error:
        assert error.node == "n"
        return True
    written = Runner(model, optimized=False, threads=1)(feed)[0]
    return bool(np.abs(run - written).max() > 2.5 * behind)


@pytest.mark.parametrize("op_type", KERNELS)
def test_the_limits_are_those_of_the_kernels(op_type: str) -> None:
    """What is within them is computed right; far beyond it is not, so the limit is needed."""
    low, high = CPU[op_type].ratio or (0.0, 0.0)
    assert not departs(op_type, high / 1.01)
    assert departs(op_type, high * 2**12)
    assert not departs(op_type, max(low, 2.0**-40))
    if low:
        assert departs(op_type, low * 2.0**-40)


def test_only_what_is_known_of_cpus_is_said_of_other_targets() -> None:
    assert {name for name, row in CPU.items() if row.ratio} == KERNELS.keys()
    assert not any(row.ratio for row in QNN.values())


def scaled(model: Model, scales: dict[str, float], target: str = "cpu", **fields: Any) -> dict[str, str]:
    """What stays float, and why, where tensors have these scales and all others 1."""
    plan = placed(model, target=target, **fields)
    zero = np.asarray(0, np.int32)
    groups = {site.group for site in plan.sites.values()}
    given = {group: QParams(np.asarray(scales.get(group, 1.0), np.float32), zero) for group in groups}
    plan = replace(plan, qparams=given)
    done = without_unfit(model, plan, {}, TARGETS[target])
    assert done is plan or len(done.nodes) < len(plan.nodes)
    return {node: reason for node, reason in done.notes.items() if node not in plan.notes}


BETWEEN = """(float[1,4,4,4] x) => (float[A,B,C,D] o, float[1,4,4,4] p) <float[4,4,1,1] w, float[4,4,1,1] v> {
    a = Conv (x, w)  b = Conv (x, v)  NODE  o = Conv (y, w)  p = Conv (b, w) }"""

BEYOND = {
    "GlobalAveragePool": ({"a": 300.0}, {"a": 200.0}),
    "GlobalAveragePool, coarse output": ({"y": 300.0}, {"y": 200.0}),
    "AveragePool": ({"a": 300.0}, {"a": 200.0}),
    "Add": ({"b": 2.0**23}, {"b": 2.0**21, "a": 2.0**-30}),
    "Mul": ({"a": 2.0**8, "b": 2.0**8}, {"a": 2.0**20, "b": 2.0**-8}),
}


@pytest.mark.parametrize(("beyond", "within"), BEYOND.values(), ids=BEYOND)
def test_a_kernel_that_would_fail_is_not_asked_for(
    request: pytest.FixtureRequest, beyond: dict[str, float], within: dict[str, float]
) -> None:
    model = graph(BETWEEN.replace("NODE", KERNELS[request.node.callspec.id.partition(",")[0]]))
    (reason,) = scaled(model, beyond).values()
    assert reason.startswith(f"{UNFIT}the scale of its input is ") and "its kernel takes" in reason
    assert scaled(model, within) == {}
    assert scaled(model, beyond, "qnn", activation_type="uint8") == {}
    assert scaled(model, beyond, activation_type="uint16") == {}  # no integer kernel has 16 bits


LOUD = """g (float[1,4,4,4] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {
    a, b = Split <axis=1> (x, s)  [pool] p = NODE (b)  [after] y = Conv (p, w)  [big] z = Conv (a, v) }"""


def halves(loud: float, node: str = "GlobalAveragePool", **options: Any) -> Result:
    """Two channels, `loud` times as large as the two that are pooled, decide the scale of all four."""
    arrays = {"s": np.array([2, 2]), "w": normal(3, 2, 1, 1), "v": normal(3, 2, 1, 1, seed=1)}
    data = [{"x": normal(1, 4, 4, 4, seed=i) * np.float32([loud, loud, 1, 1])[:, None, None]} for i in range(4)]
    config = get_default_config("S8S8_AAWS")
    config = replace(config, extra_options={**config.extra_options, **options})
    return ModelQuantizer(config).quantize_model(text_model(LOUD.replace("NODE", node), **arrays), None, data)


@pytest.mark.parametrize("options", [{"Protect": False}, {}], ids=["unprotected", "protected"])
def test_a_pool_of_the_quiet_half_is_computed_in_float(options: dict[str, Any]) -> None:
    found = halves(1e4, **options)
    assert found.plan.notes["pool"].startswith(UNFIT)
    assert "pool" in found.report.float_nodes
    assert found.report.outputs["z"].db is not None and found.report.outputs["z"].db > 30
    assert not any("fails" in warning for warning in found.report.warnings)


def test_twin_a_pool_of_halves_alike_is_computed_on_integers() -> None:
    found = halves(2.0, Protect=False)
    assert "pool" in found.plan.nodes
    assert found.report.fused["GlobalAveragePool"] == (1, 1)
    assert "Max" not in {node.op_type for node in found.model.graph.node}


# divisors ------------------------------------------------------------------------------------------------------------

INPUT = "(float[4,8] x) => (float[A,B] y, float[C,D] z) <float[8,8] w, float one = {1}, float minus = {-1}, float[8] k>"
HEAD = "h = MatMul (x, w)  e = Exp (h)  z = MatMul (e, w)"

VANISHING = {  # what is computed, the tensor that must not have a quantizer, its twin
    "divided by": (f"{HEAD}  [n] y = Div (x, e)", "e", f"{HEAD}  [n] y = Div (e, one)"),
    "reciprocal": (f"{HEAD}  [n] y = Reciprocal (e)", "e", f"{HEAD}  [n] y = Sqrt (e)"),
    "logarithm": (f"{HEAD}  [n] y = Log (e)", "e", f"{HEAD}  [n] y = Exp (h)"),
    "a power below 0": (f"{HEAD}  [n] y = Pow (e, minus)", "e", f"{HEAD}  [n] y = Pow (e, one)"),
    "behind a root": (f"{HEAD}  s = Sqrt (e)  [n] y = Div (x, s)", "e", f"{HEAD}  s = Sqrt (e)  [n] y = Add (x, s)"),
    "moved": (f"{HEAD}  t = Transpose (e)  [n] y = Reciprocal (t)", "e", f"{HEAD}  t = Transpose (e)  [n] y = Abs (t)"),
    "squared": (f"{HEAD}  q = Mul (e, e)  [n] y = Div (x, q)", "e", f"{HEAD}  q = Mul (e, e)  [n] y = Mul (x, q)"),
    "of a known range": (
        "h = MatMul (x, w)  s = Sigmoid (h)  z = MatMul (s, w)  [n] y = Log (s)",
        "s",
        "h = MatMul (x, w)  s = Sigmoid (h)  z = MatMul (s, w)  t = Add (s, one)  [n] y = Log (t)",
    ),
}
TARGET_FIELDS = [("qnn", {"activation_type": "uint8"}), ("vitisai", {}), ("cpu", {})]


def chosen(text: str, target: str, **fields: Any) -> Plan:
    """The plan on data on which e = exp(h) is from .01 to 50: a step of 8 bits is coarser than its least values."""
    model = graph(text, k=np.float32([1.5e-3, 1, 1, 1, 1, 1, 1, 1]), w=normal(8, 8) * 0.7)
    data = feeds(model)
    sites, config = placed(model, target=target, **fields), settings(target=target, **fields)
    statistics = observe(model, data, observed_tensors(sites), lambda done: None)
    plan = align(model, choose_ranges(model, sites, statistics, config), config)
    return without_unfit(model, plan, statistics, config.row)


@pytest.mark.parametrize(("target", "fields"), TARGET_FIELDS, ids=["qnn", "vitisai", "cpu"])
@pytest.mark.parametrize(("nodes", "divisor", "twin"), VANISHING.values(), ids=VANISHING)
def test_what_is_divided_by_keeps_its_small_values(
    nodes: str, divisor: str, twin: str, target: str, fields: dict[str, Any]
) -> None:
    plan = chosen(f"{INPUT} {{ {nodes} }}", target, **fields)
    assert divisor not in plan.sites
    assert any("at 'n' must not meet a 0" in reason for reason in plan.notes.values())
    plan = chosen(f"{INPUT} {{ {twin} }}", target, **fields)
    assert divisor in plan.sites
    assert not any("must not meet a 0" in reason for reason in plan.notes.values())


def test_constants_that_divide_count_as_well() -> None:
    text = f"{INPUT} {{ z = MatMul (x, w)  [n] y = Div (z, k) }}"
    plan = chosen(text, "qnn", activation_type="uint8")
    assert "values of 0.0015 in 'k' would become one" in plan.notes["n"]
    plan = chosen(text.replace("Div (z, k)", "Div (z, one)"), "qnn", activation_type="uint8")
    assert "n" in plan.nodes
    plan = chosen(text, "qnn", activation_type="uint16")  # 98 steps of 1/65535
    assert "n" in plan.nodes


def test_a_range_that_the_user_gives_is_not_questioned() -> None:
    text = f"{INPUT} {{ {HEAD}  [n] y = Div (x, e) }}"
    given = {"TensorQuantOverrides": {"e": [{"rmin": 0.0, "rmax": 9.0}]}}
    plan = chosen(text, "qnn", activation_type="uint8", **given)
    assert "e" in plan.sites


@pytest.mark.parametrize("target", ["qnn", "cpu"])
def test_quotients_stay_finite(target: str) -> None:
    text = f"g (float[4,8] x) => (float[4,8] y, float[4,8] z) {{ {HEAD}  y = Div (x, e) }}"
    proto = text_model(text, w=normal(8, 8) * 2)
    config = get_default_config("U8S8_AAWS")
    config = replace(config, target=target, extra_options={**config.extra_options, "Protect": False})
    data = [{"x": normal(4, 8, seed=i)} for i in range(4)]
    found = ModelQuantizer(config).quantize_model(proto, None, data).report
    assert found.outputs["y"].lost == 0
    assert found.outputs["y"].db is not None and found.outputs["y"].db > 20
