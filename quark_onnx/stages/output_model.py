"""From a plan to the model that the user gets, in the float types that it is to have.

quantization          apply; the float parts of a float16 model go back to float16
float16, bfloat16     the nodes of the plan are converted, the others stay float32
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.convertible import clamped, losses
from quark_onnx.graph.from_float16 import Widened
from quark_onnx.graph.packed_weights import repack
from quark_onnx.graph.to_bfloat16 import to_bfloat16
from quark_onnx.graph.to_float16 import to_float16

INFINITE = 65520.0
"""From here on, half a step above the largest number, float16 rounds to infinity."""


def realize(
    model: Model,
    plan: Plan,
    conversion: str | None = None,
    half: Widened | None = None,
    bodies: Mapping[str, Model] | None = None,
) -> Model:
    """The model that a plan describes.

    Args:
        model: the prepared float32 model that the plan belongs to; left as it is.
        conversion: "float16" or "bfloat16"; None: quantize.
        half: what the user's model has as float16, where the result is to have it, too.
        bodies: quantized bodies of control flow, by key.

    Raises:
        PlanError: the plan was made for another model, or is not complete.
        ModelError: float16 inputs or outputs cannot be given back.
    """
    interface = () if half is None else half.interface
    if conversion is None:
        quantized = apply(model, plan, bodies)
        if half is not None:
            return to_float16(quantized, keep=half.wide, interface=interface)
        repack(quantized)
        return quantized
    if io.fingerprint(model) != plan.model:
        raise PlanError(
            f"the plan was made for model {plan.model}, this one is {io.fingerprint(model)}; make a new plan for it"
        )
    kept = {node.name or "" for node in model.graph} - plan.nodes.keys()
    if conversion == "float16":
        return to_float16(model, keep=kept, interface=interface)
    rounded = to_bfloat16(model, keep=kept)
    if not interface:
        return rounded
    return to_float16(rounded, keep={node.name or "" for node in rounded.graph}, interface=interface)


def spare_large(model: Model, plan: Plan, feeds: Sequence[Feed]) -> Plan:
    """The plan of a conversion to float16 without the nodes that touch activations too large for it on the data.

    Constants are taken as float16 will have them: a mask of −3.4e38 is −65504 there, which does the same.
    """
    inputs = {value.name for value in model.graph.inputs}
    made = [value.name or "" for node in model.graph if node.name in plan.nodes for value in node.outputs if value.name]
    if not made:
        return plan
    runner = Runner(io.with_outputs(clamped(model, "float16"), made), made)
    largest = dict.fromkeys((*made, *(name or "" for name in inputs)), 0.0)
    for feed in feeds:
        for name, array in (feed | dict(zip(made, runner(feed), strict=True))).items():
            if isinstance(array, np.ndarray) and array.dtype == np.float32:
                finite = np.abs(array[np.isfinite(array)])
                largest[name] = max(largest[name], float(finite.max(initial=0.0)))
    reasons = {}
    for node in model.graph:
        touched = [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None]
        worst = max(touched, key=lambda name: largest.get(name, 0.0), default="")
        if node.name in plan.nodes and largest.get(worst, 0.0) >= INFINITE:
            reasons[node.name or ""] = f"{worst!r} reaches {largest[worst]:.3g} on the data, beyond float16"
    nodes = {name: tensors for name, tensors in plan.nodes.items() if name not in reasons}
    remarks = losses(model, nodes, "float16") | {key: text for key, text in plan.remarks.items() if key == "*"}
    return replace(plan, nodes=nodes, notes={**plan.notes, **reasons}, remarks=remarks)
