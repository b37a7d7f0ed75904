"""What the inputs of a training graph are fed, computed from the plan alone, without anything of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.engine.trainable_model import Trainable
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import dequantize, quantize
from quark_onnx.stages.train.training_graph import TrainingGraph


def values_of(graph: TrainingGraph | Trainable, model: Model, plan: Plan) -> dict[str, NDArray[Any]]:
    """Input → the value that the exported model computes with."""
    found = {name: plan.qparams[group].scale for group, name in graph.scales.items()}
    for kind in (graph.weights, graph.biases):
        found |= {name: stands_for(tensor, model, plan) for tensor, name in kind.items()}
    return found


def stands_for(tensor: str, model: Model, plan: Plan) -> NDArray[Any]:
    """What is dequantized of a parameter, or the parameter itself where it stays float."""
    array, site = plan.values.get(tensor), plan.sites.get(tensor)
    array = constant(model.graph.initializers[tensor]) if array is None else array
    if site is None:
        return array
    if not has_scale(site):
        x, w = (plan.qparams_of(factor).scale for factor in site.factors)
        scale = integer_bias.scale(x, w, array.size // w.size if w.ndim and array.size > w.size else 1)
        flat = np.broadcast_to(array.reshape(-1), scale.shape) if array.size == 1 and scale.ndim else array.reshape(-1)
        found = integer_bias.codes(flat, scale).astype(np.float32) * scale
        return found.reshape(array.shape) if found.size == array.size else found
    q, coded = plan.qparams_of(tensor), plan.coded(tensor)
    return dequantize(quantize(array, q, site.format) if coded is None else coded.codes, q, site.format)
