"""What the tests of simulations share: two small models, samples, and a simulation that is ready to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from text_models import normal, text_model

from quark_onnx.quantsim import QuantizationSimModel

Feeds = list[dict[str, np.ndarray]]

CONVS = """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
    c = Conv<pads=[1,1,1,1]>(x,w,b) r = Relu(c) d = Conv<pads=[1,1,1,1]>(r,v) y = Sigmoid(d)
}"""
JOINED = """g (float[1,4,8,8] x) => (float[1,8,4,4] y) {
    a = Conv<pads=[1,1,1,1]>(x,w,b) d = Conv<pads=[1,1,1,1]>(x,v) c = Concat<axis=1>(a,d)
    y = AveragePool<kernel_shape=[2,2],strides=[2,2]>(c)
}"""
LEAST: dict[str, Any] = {
    "defaults": {"ops": {}, "params": {}},
    "params": {},
    "op_type": {},
    "supergroups": [],
    "model_input": {},
    "model_output": {},
}
"""A runtime configuration that quantizes nothing."""

FEEDS: Feeds = [{"x": normal(1, 4, 8, 8, seed=seed)} for seed in range(4)]


def model(text: str = CONVS, opset: int = 17) -> onnx.ModelProto:
    """One of the models above, with weights."""
    weights = {"w": normal(4, 4, 3, 3), "b": normal(4), "v": normal(4, 4, 3, 3, seed=1)}
    return text_model(text, opset, **weights)


def simulation(text: str = CONVS, opset: int = 17, **options: Any) -> QuantizationSimModel:
    """Of a model above; encodings are still open."""
    return QuantizationSimModel(model(text, opset), threads=1, **options)


def ready(text: str = CONVS, opset: int = 17, **options: Any) -> QuantizationSimModel:
    """The same with encodings."""
    sim = simulation(text, opset, **options)
    sim.compute_encodings(FEEDS)
    return sim


def output(sim: QuantizationSimModel, feed: dict[str, np.ndarray] = FEEDS[0]) -> np.ndarray:
    """What the simulation computes."""
    result: np.ndarray = sim.session.run(None, feed)[0]
    return result


def encodings(sim: QuantizationSimModel) -> dict[str, Any]:
    """All of them, and which quantizers are on."""
    return {t: (q.enabled, q.get_encodings()) for t, q in sim.qc_quantize_op_dict.items()}
