"""∂L/∂s of an activation is that of learned step sizes (LSQ), where a Clip cuts to a narrow grid, too.

∂L/∂s = Σ ∂L/∂x̂ · (q − x/s inside the grid, its end code less the zero point outside)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newer_onnxruntime import needs_opset
from training_values import values_of
from tuning_cases import case

from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.labels import LABELS
from quark_onnx.numerics.quantizer import code_limits
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph

LAYER = "g (float[N, 6] x) => (float[N, 4] y) { y = Gemm (x, w, b) }"
FORMATS: dict[str, dict[str, Any]] = {
    "int8": {},
    "uint8": {"activation_type": "uint8"},
    "uint4": {"activation_type": "uint4"},
    "int4 in the middle": {"activation_type": "int4", "ActivationSymmetric": True},
    "int3": {"activation_type": "int3"},
    "uint2": {"activation_type": "uint2"},
    "uint12": {"activation_type": "uint12"},
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_scales_learn_as_learned_step_sizes_do(format: str, factor: float) -> None:
    """factor: by which the scale is another than the one that was calibrated, so that numbers are beyond its ends."""
    if not format.endswith("8"):
        needs_opset(21)
    draw = np.random.default_rng(0)
    arrays = {"w": draw.standard_normal((6, 4)).astype(np.float32), "b": draw.standard_normal(4).astype(np.float32)}
    feeds = [{"x": draw.standard_normal((1, 6)).astype(np.float32)} for _ in range(24)]
    fields = {"OpTypesToExcludeOutputQuantization": ["Gemm"], **FORMATS[format]}
    made = case(LAYER, feeds, arrays, **fields)
    graph = training_graph(made.model, made.plan, Losses(kl=0, l2=1), labels=("float32", 2))
    values, group = values_of(graph, made.model, made.plan), made.plan.sites["x"].group
    name = graph.scales[group]
    s = values[name] = np.asarray(values[name] * factor, np.float32)
    x, labels = np.concatenate([feed["x"] for feed in feeds]), draw.standard_normal((24, 4)).astype(np.float32)
    step = Step(graph, made.model)
    found = step.gradients(values, {"x": x, LABELS: labels}).of[name]

    low, high = (code - int(made.plan.qparams[group].zero_point) for code in code_limits(made.plan.sites["x"].format))
    codes = np.clip(np.rint(x / s), low, high)
    output = step.evaluate(values, {"x": x, LABELS: labels}).outputs["y"]
    by_input = (2 / 4 * (output - labels)) @ values[graph.weights["w"]].T
    inside = (x / s >= low) & (x / s <= high)
    assert (factor == 1.7) or not inside.all()
    each = by_input * np.where(inside, codes - x / s, codes)
    rounding = 8 * np.finfo(np.float32).eps * (abs(by_input) * abs(codes)).sum()  # of two sums, whose difference it is
    assert found == pytest.approx(each.sum(), rel=1e-4, abs=float(rounding))
