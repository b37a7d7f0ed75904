"""Small nets whose kinds of layers training meets, quantized in some format, and the graph of a step of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tuning_cases import case, draw

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.graph import Model
from quark_onnx.stages.train.training_graph import TrainingGraph, training_graph


class Net(NamedTuple):
    """inputs: shape of a sample; parameters: drawn; constants: as they are."""

    text: str
    inputs: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]]
    constants: dict[str, float]


NETS = {
    "convolutions": Net(
        """g (float[N, 3, 6, 6] x) => (float[N, 5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r = Relu (a)
            d = Conv <pads = [1, 1, 1, 1], group = 6> (r, w2, b2) c = Clip (d, lo, hi)
            e = Conv (c, w3) s = Add (e, r) q = Relu (s) k = Concat <axis = 1> (q, c)
            p = GlobalAveragePool (k) f = Flatten (p) y = Gemm <transB = 1> (f, w4, b4) }""",
        (3, 6, 6),
        {
            "w1": (6, 3, 3, 3),
            "b1": (6,),
            "w2": (6, 1, 3, 3),
            "b2": (6,),
            "w3": (6, 6, 1, 1),
            "w4": (5, 12),
            "b4": (5,),
        },
        {"lo": 0, "hi": 6},
    ),
    "matrices": Net(
        """g (float[N, 4, 8] x) => (float[N, 4, 5] y) {
            h = MatMul (x, w1) a = Add (h, b1) r = Relu (a) m = MatMul (r, w2) y = Add (b2, m) }""",
        (4, 8),
        {"w1": (8, 16), "b1": (16,), "w2": (16, 5), "b2": (5,)},
        {},
    ),
    "one bias": Net(
        """g (float[N, 8] x) => (float[N, 5] y) {
            h = Gemm (x, w1, b1) r = Sigmoid (h) m = Gemm (r, w2, b2) y = Softmax (m) }""",
        (8,),
        {"w1": (8, 16), "b1": (1, 16), "w2": (16, 5), "b2": (1,)},
        {},
    ),
    "tied": Net(
        """g (float[N, 8] x) => (float[N, 8] y) {
            h = Gemm (x, w1, b1) r = Relu (h) t = Gemm (r, w1, b1) y = Add (t, x) }""",
        (8,),
        {"w1": (8, 8), "b1": (8,)},
        {},
    ),
    "transposed": Net(
        """g (float[N, 4, 5, 5] x) => (float[N, 4, 9, 9] y) {
            h = ConvTranspose <strides = [2, 2], group = 2, pads = [1, 1, 1, 1]> (x, w1, b1) y = Tanh (h) }""",
        (4, 5, 5),
        {"w1": (4, 2, 3, 3), "b1": (4,)},
        {},
    ),
    "attention": Net(
        """g (float[1, 6, 8] x) => (float[1, 6, 8] y) {
            q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv) kt = Transpose <perm = [0, 2, 1]> (k)
            s = MatMul (q, kt) p = Softmax (s) o = MatMul (p, v) t = Add (o, x) n = LayerNormalization (t, g1, b1)
            f = MatMul (n, w1) e = Add (f, b2) u = Gelu (e) y = MatMul (u, w2) }""",
        (6, 8),
        {
            "wq": (8, 8),
            "wk": (8, 8),
            "wv": (8, 8),
            "g1": (8,),
            "b1": (8,),
            "w1": (8, 12),
            "b2": (12,),
            "w2": (12, 8),
        },
        {},
    ),
}


class Quantized(NamedTuple):
    """The float model, its plan, the graph of a step, and samples."""

    model: Model
    plan: Plan
    graph: TrainingGraph
    shard: Feed


def quantized(name: str, losses: Losses | None = None, **fields: Any) -> Quantized:
    """A net in a format: fields of the configuration, and extra options. Models of one sample at a time get one."""
    net, rng = NETS[name], np.random.default_rng(1)
    arrays = {key: np.float32(number) for key, number in net.constants.items()}
    for key, shape in net.parameters.items():
        fan = max(1, int(np.prod(shape)) // shape[0]) if len(shape) > 1 else 1
        arrays[key] = (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
    feeds = [{"x": feed["x"][None]} for feed in draw(net.inputs, 12)]
    made = case(net.text, feeds, arrays, **fields)
    graph = training_graph(made.model, made.plan, losses or Losses())
    count = 1 if "float[1," in net.text else 4
    return Quantized(made.model, made.plan, graph, {"x": np.concatenate([feed["x"] for feed in feeds[:count]])})
