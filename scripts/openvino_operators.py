#!/usr/bin/env python3
"""What OpenVINO makes of operators with quantizers around them: a row per small graph, of what its CPU plugin executes.

    scripts/openvino_operators.py [WORD]      rows whose nodes hold WORD; ONEDNN_MAX_CPU_ISA=AVX2 in front: without VNNI

`v'` is v behind QuantizeLinear and DequantizeLinear (uint8, one scale); of a weight, its int8 codes dequantized. Every
graph stands between two convolutions on integers where its row says so, whose ends are a and b.
"""

from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import openvino
from onnx import numpy_helper

WEIGHTS = {"w": ((32, 32, 3, 3), 0), "d": ((32, 1, 3, 3), 0), "g": ((32, 8, 3, 3), 0), "t": ((32, 32, 2, 2), 1)}
CONSTANTS = {
    "zero": np.float32(0),
    "six": np.float32(6),
    "half": np.float32(0.5),
    "c": np.ones((1, 32, 1, 1), np.float32),
    "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
    "two": np.int64([1, 1, 2, 1]),
    "turned": np.int64([1, 32, 20, 80]),
    "sizes": np.float32([1, 1, 2, 2]),
    "halves": np.int64([16, 16]),
    "index": np.arange(16),
    "start": np.int64([0]),
    "stop": np.int64([16]),
    "axis": np.int64([2]),
}
IN = "a = Conv <pads=[1,1,1,1]> (x', w')"
OUT = "y = Conv <pads=[1,1,1,1]> ({}, w')"

LAYERS = (
    "y = Conv <pads=[1,1,1,1]> (x', w')",
    "y = Conv <pads=[1,1,1,1], group=32> (x', d')",
    "y = Conv <pads=[1,1,1,1], group=4> (x', g')",
    "y = ConvTranspose <strides=[2,2]> (x', t')",
    "r = Relu (x) y = ConvTranspose <strides=[2,2]> (r', t')",
)
FUNCTIONS = (
    *("Relu", "HardSwish", "Tanh", "Sigmoid", "Gelu", "Elu", "Mish", "LeakyRelu", "Abs", "HardSigmoid", "Softplus"),
    *("Clip:zero, six", "Mul:c", "Add:c", "PRelu:c"),
)
BETWEEN = (
    ("s = Sigmoid (a) b = Mul (a, s)", "b'"),
    ("e = Conv <pads=[1,1,1,1]> (a', w') b = Add (e, a')", "b'"),
    ("e = Conv <pads=[1,1,1,1]> (a', w') b = Add (e, a)", "b'"),
    ("e = Conv <pads=[1,1,1,1]> (x', w') b = Add (a, e')", "b'"),
    ("b = AveragePool <kernel_shape=[2,2]> (a')", "b'"),
    ("b = AveragePool <kernel_shape=[2,2]> (a)", "b'"),
    ("b = GlobalAveragePool (a')", "b'"),
    ("p = GlobalAveragePool (a') b = Mul (a', p)", "b'"),
    ("p = GlobalAveragePool (a) b = Mul (a, p)", "b'"),
    ("b = Softmax <axis=1> (a')", "b'"),
    ('b = Resize <mode="linear"> (a\', , sizes)', "b'"),
    *(
        (f"b = {moves}", "b")
        for moves in (
            *("MaxPool <kernel_shape=[2,2]> (a')", "Pad (a', pads)", "Reshape (a', turned)", "Tile (a', two)"),
            *("Transpose <perm=[0,1,3,2]> (a')", "Gather <axis=2> (a', index)", "Slice (a', start, stop, axis)"),
            'Resize <mode="nearest"> (a\', , sizes)',
        )
    ),
    ("s = DepthToSpace <blocksize=2> (a') b = Concat <axis=1> (s, s, s, s)", "b"),
    ("s = SpaceToDepth <blocksize=2> (a') b, r = Split <axis=1> (s, parts)", "b"),
    ("p, q = Split <axis=1> (a', halves) b = Concat <axis=1> (q, p)", "b"),
    ("p, q = Split <axis=1> (a', halves) b = Concat <axis=1> (q', p')", "b"),
    ("p = Conv <pads=[1,1,1,1]> (x', w') b = Concat <axis=2> (a', p')", "b"),
    ("r = Relu (a) s = Conv <pads=[1,1,1,1]> (x', w') p = Relu (s) b = Concat <axis=2> (r', p')", "b"),
)


def graphs() -> list[str]:
    """The nodes of every row."""
    functions = [f"{IN} b = {name} (a{', ' + more if more else ''})" for name, _, more in map(_parts, FUNCTIONS)]
    return [*LAYERS, *(f"{one} {OUT.format(chr(98) + chr(39))}" for one in functions)] + [
        f"{IN} {nodes} {OUT.format(end)}" for nodes, end in BETWEEN
    ]


def _parts(text: str) -> tuple[str, str, str]:
    return text.partition(":")


def model(nodes: str) -> onnx.ModelProto:
    """The graph, with a quantizer for every name with a prime."""
    constants = {"parts": np.int64([32, 96]), **CONSTANTS, "scale": np.float32(0.05)}
    made = set()

    def quantized(found: re.Match[str]) -> str:
        name = found[1]
        made.add(name)
        return f"{name}_dequantized"

    body = []
    for node in re.split(r"(?<!,) (?=\w+(?:, \w+)* = )", nodes):
        before = set(made)
        written = re.sub(r"(\w+)'", quantized, node)
        body += [line for name in sorted(made - before) for line in _quantizer(name, zero(nodes, name), constants)]
        body.append(written)
    text = (
        f'<ir_version: 9, opset_import: ["" : 20]> g (float[1,32,40,40] x) => (float[A,B,C,D] y) {{ {" ".join(body)} }}'
    )
    proto = onnx.parser.parse_model(text)
    used = {name for node in proto.graph.node for name in node.input}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    proto.graph.initializer.extend(tensors)
    return proto


def zero(nodes: str, name: str) -> int:
    """The zero point: 0 behind a Relu."""
    return 0 if f"{name} = Relu" in nodes else 3


def _quantizer(name: str, zero_point: int, constants: dict[str, np.ndarray]) -> list[str]:
    if name in WEIGHTS:
        dims, axis = WEIGHTS[name]
        constants[f"{name}_codes"] = np.random.default_rng(0).integers(-127, 128, dims).astype(np.int8)
        constants[f"{name}_scale"] = np.full(dims[axis], 0.01, np.float32)
        return [f"{name}_dequantized = DequantizeLinear <axis={axis}> ({name}_codes, {name}_scale)"]
    constants[f"zero{zero_point}"] = np.uint8(zero_point)
    return [
        f"{name}_quantized = QuantizeLinear ({name}, scale, zero{zero_point})",
        f"{name}_dequantized = DequantizeLinear ({name}_quantized, scale, zero{zero_point})",
    ]


def executed(proto: onnx.ModelProto) -> str:
    """What runs, in order: kind, primitive and type of what comes out."""
    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", options)
    rows = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        told = {key: value.astype(str) for key, value in op.get_rt_info().items()}
        if told["layerType"] not in ("Const", "Input", "Output", "Reorder", "Reshape"):
            rows.append(f"{told['layerType']} {told['primitiveType']} → {told['outputPrecisions']}")
    return "; ".join(rows)


if __name__ == "__main__":
    print("| graph | executed |\n|---|---|")
    for row in graphs():
        if all(word in row for word in sys.argv[1:]):
            print(f"| `{row}` | {executed(model(row))} |", flush=True)
