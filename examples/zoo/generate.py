"""Ten small models of different kinds, with random weights, and data for each: `python generate.py FOLDER`."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

MODELS = {
    "mlp": """(float[N, 32] x) => (float[N, 10] y)
        <float[32, 64] w1, float[64] b1, float[64, 64] w2, float[64] b2, float[64, 10] w3> {
        a = MatMul (x, w1)  b = Add (a, b1)  c = Relu (b)  d = Gemm (c, w2, b2)  e = Relu (d)  y = MatMul (e, w3) }""",
    "gates": """(float[N, 32] x) => (float[N, 10] y) <float[32, 48] w1, float[32, 48] w2, float[48, 10] w3> {
        a = MatMul (x, w1)  b = Sigmoid (a)  c = MatMul (x, w2)  d = Tanh (c)  e = Mul (b, d)  y = MatMul (e, w3) }""",
    "lenet": """(float[N, 3, 16, 16] x) => (float[N, 10] y)
        <float[8, 3, 5, 5] w1, float[8] b1, float[16, 8, 5, 5] w2, float[64, 10] w3, float[10] b3> {
        a = Conv (x, w1, b1)  b = Relu (a)  c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        d = Conv (c, w2)  e = Relu (d)  f = Flatten (e)  y = Gemm (f, w3, b3) }""",
    "residual": """(float[N, 3, 16, 16] x) => (float[N, 10] y)
        <float[16, 3, 3, 3] w1, float[16, 16, 3, 3] w2, float[16, 16, 3, 3] w3, float[16, 10] w4> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w1)  b = Relu (a)  c = Conv <pads = [1, 1, 1, 1]> (b, w2)  d = Relu (c)
        e = Conv <pads = [1, 1, 1, 1]> (d, w3)  f = Add (b, e)  g = Relu (f)
        h = GlobalAveragePool (g)  i = Flatten (h)  y = Gemm (i, w4) }""",
    "depthwise": """(float[N, 3, 16, 16] x) => (float[N, 10] y) <float[24, 3, 1, 1] w1, float[24, 1, 3, 3] w2,
        float[12, 24, 1, 1] w3, float[12, 10] w4, float low, float high> {
        a = Conv (x, w1)  b = Clip (a, low, high)  c = Conv <pads = [1, 1, 1, 1], group = 24> (b, w2)
        d = Clip (c, low, high)  e = Conv (d, w3)  f = GlobalAveragePool (e)  g = Flatten (f)  y = Gemm (g, w4) }""",
    "branches": """(float[N, 3, 16, 16] x) => (float[N, 10] y)
        <float[8, 3, 1, 1] w1, float[8, 3, 3, 3] w2, float[8, 3, 5, 5] w3, float[24, 10] w4> {
        a = Conv (x, w1)  b = Conv <pads = [1, 1, 1, 1]> (x, w2)  c = Conv <pads = [2, 2, 2, 2]> (x, w3)
        d = Concat <axis = 1> (a, b, c)  e = Relu (d)  f = GlobalAveragePool (e)  g = Flatten (f)
        y = Gemm (g, w4) }""",
    "decoder": """(float[N, 3, 16, 16] x) => (float[N, 3, 16, 16] y)
        <float[12, 3, 3, 3] w1, float[12, 3, 2, 2] w2, float[3, 3, 3, 3] w3> {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1)  b = Relu (a)
        c = ConvTranspose <strides = [2, 2]> (b, w2)  d = Relu (c)  y = Conv <pads = [1, 1, 1, 1]> (d, w3) }""",
    "attention": """(float[N, 12, 32] x) => (float[N, 10] y)
        <float[32, 32] wq, float[32, 32] wk, float[32, 32] wv, float[32, 32] wo, float[32] gain, float[32] shift,
         float[32, 64] w1, float[64, 32] w2, float[32, 10] w3, float root> {
        q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)  t = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul (q, t)  r = Div (s, root)  p = Softmax <axis = -1> (r)  c = MatMul (p, v)  o = MatMul (c, wo)
        a = Add (x, o)  n = LayerNormalization (a, gain, shift)  f = MatMul (n, w1)  g = Relu (f)
        h = MatMul (g, w2)  i = Add (n, h)  m = ReduceMean <axes = [1], keepdims = 0> (i)  y = MatMul (m, w3) }""",
    "two_inputs": """(float[N, 3, 16, 16] image, float[N, 8] facts) => (float[N, 10] y)
        <float[16, 3, 3, 3] w1, float[8, 16] w2, float[32, 10] w3> {
        a = Conv (image, w1)  b = Relu (a)  c = GlobalAveragePool (b)  d = Flatten (c)
        e = MatMul (facts, w2)  f = Relu (e)  g = Concat <axis = 1> (d, f)  y = MatMul (g, w3) }""",
    "tokens": """(int64[N, 20] ids) => (float[N, 10] y) <float[100, 32] table, float[32, 32] w1, float[32, 10] w2> {
        a = Gather (table, ids)  b = MatMul (a, w1)  c = Relu (b)  d = ReduceMean <axes = [1], keepdims = 0> (c)
        y = MatMul (d, w2) }""",
}
"""Models as ONNX text. What stands between < and > are weights."""

VALUES = {"low": 0.0, "high": 6.0, "root": 32**0.5}


def dims(info: onnx.ValueInfoProto) -> list[int]:
    """The shape; N, the batch, counts as 0."""
    return [dim.dim_value for dim in info.type.tensor_type.shape.dim]


def model(name: str, seed: int = 0) -> onnx.ModelProto:
    """One of the models; weights are such that values keep their size from layer to layer."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {name} {MODELS[name]}')
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    made = {output for node in proto.graph.node for output in node.output}
    for info in proto.graph.value_info:
        if info.name not in made:
            shape = dims(info)
            spread = (2 / max(1, np.prod(shape) / max(shape[-1 if len(shape) < 3 else 0], 1))) ** 0.5 if shape else 0
            values = VALUES.get(info.name, rng.normal(0, spread if len(shape) > 1 else 0.1, shape))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(values), info.name))
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def samples(proto: onnx.ModelProto, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Stacked inputs: normal numbers, or ids below 100."""
    rng = np.random.default_rng(seed)
    found = {}
    for info in proto.graph.input:
        shape = (count, *dims(info)[1:])
        floats = info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        found[info.name] = rng.normal(size=shape).astype(np.float32) if floats else rng.integers(0, 100, shape)
    return found


def generate(folder: Path, count: int = 64) -> None:
    """Write `models/NAME.onnx` and `data/NAME.npz`."""
    for part in ("models", "data"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        proto = model(name)
        onnx.save(proto, str(folder / "models" / f"{name}.onnx"))
        np.savez(folder / "data" / f"{name}.npz", **samples(proto, count))


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
