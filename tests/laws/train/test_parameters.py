"""What a state of training stands for is what the exported model has, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newer_onnxruntime import needs_opset
from train_cases import made, names_of

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.numerics.layer.integer_bias import LIMIT
from quark_onnx.numerics.weight_pairs import unsafe_pairs
from quark_onnx.stages.train.parameters import RANGE, WEIGHT, WEIGHT_SCALE, Parameters
from quark_onnx.stages.train.plan_parameters import parameters

FORMATS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8 with safe pairs": {"weight_pairs": "safe", "activation_type": "uint8"},
    "per channel": {"per_channel": True},
    "uint8, asymmetric": {"activation_type": "uint8", "weight_type": "uint8", "WeightSymmetric": False},
    "2 and 3 bits": {"weight_type": "int3", "activation_type": "uint3"},
    "blocks": {"BlockSize": 16, "WeightsOnly": True, "weight_type": "int4", "op_types_to_quantize": ("Gemm",)},
    "powers of two": {"target": "vitisai"},
    "16-bit biases": {"Int16Bias": True},
    "float biases": {"QuantizeBias": False},
}


def moved(found: Parameters, seed: int = 0, size: float = 1.0) -> dict[str, np.ndarray]:
    """A state some way off: weights by codes, logarithms of scales by a tenth or so."""
    rng = np.random.default_rng(seed)
    return {
        key: np.asarray(a + size * (1 if key.startswith(WEIGHT) else 0.2) * rng.standard_normal(a.shape), np.float32)
        for key, a in found.start().items()
    }


def dequantized(model: Model, plan: Plan, found: Parameters) -> dict[str, np.ndarray]:
    """What the exported model has instead of weights and biases."""
    quantized = apply(model, plan)
    wanted = {f"{tensor}_dequantized": tensor for tensor in (*found.weights, *found.biases) if tensor in plan.sites}
    runner = Runner(io.with_outputs(quantized, list(wanted)), list(wanted), optimized=False)
    arrays = runner({"x": np.zeros((1, 4, 6, 6), np.float32)})
    return {wanted[name]: array for name, array in zip(wanted, arrays, strict=True)}


@pytest.mark.parametrize("rounding", ["straight_through", "soft"])
@pytest.mark.parametrize("format", FORMATS)
def test_values_are_what_the_exported_model_dequantizes(format: str, rounding: str) -> None:
    if format in ("2 and 3 bits", "blocks"):
        needs_opset(21)
    model, plan, _ = made(**FORMATS[format])
    found = parameters(model, plan, names_of(model, plan), QAT(rounding=rounding))
    state = moved(found)
    after = found.planned(state)
    assert after.fault() is None
    values, held = found.values(state), dequantized(model, after, found)
    assert held and all(np.array_equal(values[tensor], array) for tensor, array in held.items())
    for group, name in found.inputs.scales.items():
        assert np.array_equal(values[name], after.qparams[group].scale)
    begun = found.values(found.start())
    assert not any(np.array_equal(values[tensor], begun[tensor]) for tensor in found.weights)


@pytest.mark.parametrize("format", FORMATS)
def test_a_start_is_the_plan_and_a_plan_is_a_start(format: str) -> None:
    if format in ("2 and 3 bits", "blocks"):
        needs_opset(21)
    model, plan, _ = made(**FORMATS[format])
    names = names_of(model, plan)
    found = parameters(model, plan, names, QAT())
    begun = dequantized(model, plan, found)
    assert all(np.array_equal(found.values(found.start())[tensor], array) for tensor, array in begun.items())
    state = moved(found)
    again = parameters(model, found.planned(state), names, QAT())
    both = found.values(state), again.values(again.start())
    assert all(np.array_equal(array, both[1][name]) for name, array in both[0].items())


def test_trained_codes_stay_within_their_grid_and_their_pairs_safe() -> None:
    model, plan, _ = made(**FORMATS["int8 with safe pairs"])
    found = parameters(model, plan, names_of(model, plan), QAT())
    large = {key: np.float32(60) * a for key, a in moved(found).items() if key.startswith(WEIGHT)}
    codes = found.planned({**found.start(), **large}).codes["w3"].codes
    assert np.abs(codes).max() == 127
    assert not unsafe_pairs(codes.T, len(codes)).any()


def test_powers_of_two_stay_so() -> None:
    model, plan, _ = made(target="vitisai")
    found = parameters(model, plan, names_of(model, plan), QAT())
    after = found.planned(moved(found, size=3.0))
    scales = [q.scale for q in after.qparams.values()] + [coded.scale for coded in after.codes.values()]
    assert all(np.frexp(scale)[0] == 0.5 for scale in scales)
    assert any(after.qparams[group].scale != plan.qparams[group].scale for group in plan.qparams)


def test_biases_leave_room_for_what_is_added() -> None:
    model, plan, _ = made()
    found = parameters(model, plan, names_of(model, plan), QAT())
    state = {**found.start(), "bias/b3": np.full(5, 1e9, np.float32)}
    after = found.planned(state)
    scale = after.qparams_of(plan.sites["b3"].factors[0]).scale * after.qparams_of("w3").scale
    assert np.abs(after.values["b3"] / scale).max() == pytest.approx(LIMIT, rel=1e-6)


def test_what_is_not_to_be_trained_stays() -> None:
    model, plan, _ = made()
    names = names_of(model, plan)
    off = {"weights": False, "biases": False, "weight_scales": False, "activation_ranges": False}
    kinds = {"weights": WEIGHT, "biases": "bias/", "weight_scales": WEIGHT_SCALE, "activation_ranges": RANGE}
    for what, kind in kinds.items():
        found = parameters(model, plan, names, QAT(**{**off, what: True}))
        assert {key[: len(kind)] for key in found.start()} == {kind}
        slopes = found.slopes(found.start(), {name: np.ones_like(a) for name, a in found.values(found.start()).items()})
        assert slopes.keys() == found.start().keys()


def test_ranges_that_are_known_and_those_shared_with_constants_stay() -> None:
    model, plan, _ = made()
    names = names_of(model, plan)
    found = parameters(model, plan, names, QAT())
    assert RANGE + "x" in found.start()
    site = plan.sites["x"]
    fixed = {**plan.sites, "x": type(site)(**{**vars(site), "range": (0.0, 1.0)})}
    known = parameters(model, type(plan)(**{**vars(plan), "sites": fixed}), names, QAT())
    assert RANGE + "x" not in known.start()
