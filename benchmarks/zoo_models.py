"""The models of `zoo.py`: networks with random weights, and files that break whatever reads them.

Nothing is imported from the package: this is what a user would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, PIXELS = TensorProto.FLOAT, 32
GIGABYTE = 1_000_000_000


class Net:
    """A network that grows layer by layer; `x` is the tensor that it ends with so far."""

    def __init__(self, shape: Sequence[int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.x = tuple(shape), "x"
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, spread: float) -> str:
        """A new initializer of normal numbers."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(self.rng.normal(0, spread, shape).astype(np.float32), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node behind these inputs, default: the end of the network, which it becomes."""
        self.x, name = f"t{len(self.nodes)}", f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.x], name, **attributes))
        return self.x

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """MatMul."""
        return self.add("MatMul", x, self.weight(inputs, outputs, spread=(2 / inputs) ** 0.5))

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> str:
        """Conv with bias, padded."""
        spread, pad = (2 * groups / (inputs * size * size)) ** 0.5, size // 2
        kernel = self.weight(outputs, inputs // groups, size, size, spread=spread)
        bias = self.weight(outputs, spread=0.1)
        return self.add("Conv", x, kernel, bias, pads=[pad] * 4, strides=[stride] * 2, group=groups)

    def proto(self, outputs: Sequence[int]) -> onnx.ModelProto:
        """The model."""
        self.nodes[-1].output[0] = "y"
        ends = (("x", self.shape), ("y", outputs))
        x, y = (helper.make_tensor_value_info(name, FLOAT, ["N", *shape]) for name, shape in ends)
        return _model(self.nodes, x, y, self.weights)


def _model(nodes: Sequence[onnx.NodeProto], x: object, y: object, weights: Sequence[TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "zoo", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cnn(width: int, depth: int, seed: int, *, separable: bool = False) -> onnx.ModelProto:
    """Residual blocks, plain or separable."""
    net = Net((3, PIXELS, PIXELS), seed)
    x = net.add("Relu", net.conv("x", 3, width, stride=2))
    for _ in range(depth):
        if separable:
            inner = net.add("Relu", net.conv(x, width, 2 * width, 1))
            inner = net.add("Relu", net.conv(inner, 2 * width, 2 * width, groups=2 * width))
            inner = net.conv(inner, 2 * width, width, 1)
        else:
            inner = net.conv(net.add("Relu", net.conv(x, width, width)), width, width)
        x = net.add("Relu", net.add("Add", x, inner))
    net.dense(net.add("Flatten", net.add("GlobalAveragePool", x)), width, 10)
    return net.proto([10])


def mlp(width: int, depth: int, seed: int, activation: str = "Relu") -> onnx.ModelProto:
    """Layers with a bias and an activation."""
    net = Net((width,), seed)
    x = "x"
    for _ in range(depth):
        x = net.add(activation, net.add("Add", net.dense(x, width, width), net.weight(width, spread=0.1)))
    net.dense(x, width, 10)
    return net.proto([10])


def transformer(width: int, depth: int, tokens: int, seed: int) -> onnx.ModelProto:
    """Blocks of attention with one head, and of a Relu between two layers, each with its LayerNormalization."""
    net = Net((tokens, width), seed)
    x = "x"
    for _ in range(depth):
        q, k, v = (net.dense(x, width, width) for _ in range(3))
        root = net.weight(1, spread=0)
        net.weights[-1].CopyFrom(numpy_helper.from_array(np.float32([width**-0.5]), root))
        scores = net.add("Mul", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1])), root)
        x = _normal(net, net.add("Add", x, net.dense(net.add("MatMul", net.add("Softmax", scores), v), width, width)))
        inner = net.add("Relu", net.dense(x, width, 4 * width))
        x = _normal(net, net.add("Add", x, net.dense(inner, 4 * width, width)))
    net.dense(net.add("ReduceMean", x, axes=[1], keepdims=0), width, 10)
    return net.proto([10])


def _normal(net: Net, x: str) -> str:
    width = net.shape[-1]
    return net.add("LayerNormalization", x, net.weight(width, spread=1), net.weight(width, spread=0.1))


def crash() -> onnx.ModelProto:
    """Ends the process of onnxruntime by SIGFPE on x86: the least int64 divided by -1 has no result that fits."""
    net = Net((8,), 0)
    a = net.dense("x", 8, 8)
    constants = {"least": -(2**63), "minus": -1, "zero": 0}
    net.weights += [numpy_helper.from_array(np.int64([value]), name) for name, value in constants.items()]
    whole = net.add("Mul", net.add("Cast", a, to=TensorProto.INT64), "zero")
    quotient = net.add("Div", net.add("Add", whole, "least"), "minus")
    net.add("Add", a, net.add("Cast", quotient, to=FLOAT))
    return net.proto([8])


def hang() -> onnx.ModelProto:
    """A Loop that goes on for 2^62 rounds."""
    net = Net((8,), 0)
    net.dense("x", 8, 8)
    state = [helper.make_tensor_value_info(name, FLOAT, ["N", 8]) for name in ("s", "s_next")]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "go_next")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", ["go"], ["go_next"]), helper.make_node("Tanh", ["s"], ["s_next"])]
    body = helper.make_graph(nodes, "body", [count, flags[0], state[0]], [flags[1], state[1]])
    net.weights.append(numpy_helper.from_array(np.int64(2**62), "rounds"))
    net.weights.append(numpy_helper.from_array(np.bool_(True), "always"))
    net.add("Loop", "rounds", "always", net.x, body=body)
    return net.proto([8])


def write(proto: onnx.ModelProto, folder: Path, name: str, samples: int = 32) -> None:
    """`models/NAME.onnx` and `data/NAME.npz`."""
    for part in ("models", "data"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(folder / "models" / f"{name}.onnx"))
    dims = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    data = np.random.default_rng(1).normal(size=(samples, *dims)).astype(np.float32)
    np.savez(folder / "data" / f"{name}.npz", x=data)


def write_large(folder: Path, size: float = 2.2 * GIGABYTE, layers: int = 10) -> int:
    """`models/large.onnx` with its weights in a file beside it, most of which is a hole; its bytes.

    Weights are zero but for the first rows of each layer.
    """
    width, rows = int((size / layers / 4) ** 0.5) // 64 * 64, 32
    step, rng = width * width * 4, np.random.default_rng(0)
    net = Net((width,), 0)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    with (folder / "models" / "large.weights").open("wb") as file:
        x = "x"
        for layer in range(layers):
            file.seek(layer * step)
            file.write(rng.normal(0, (2 / rows) ** 0.5, (rows, width)).astype(np.float32).tobytes())
            tensor = TensorProto(name=f"w{layer}", data_type=FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.weights"), ("offset", layer * step), ("length", step)):
                tensor.external_data.add(key=key, value=str(value))
            net.weights.append(tensor)
            x = net.add("Relu", net.add("MatMul", x, tensor.name))
        file.truncate(layers * step)
    write(net.proto([width]), folder, "large", samples=16)
    return layers * step


def sound(count: int = 25) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Networks of several kinds and sizes."""
    activations = ("Relu", "Sigmoid", "Tanh")
    for seed in range(count):
        kind, size = seed % 3, seed // 3
        if kind == 0:
            yield f"cnn{seed}", cnn(8 + 8 * (size % 3), 1 + size % 4, seed, separable=seed % 2 == 1)
        elif kind == 1:
            yield f"mlp{seed}", mlp(32 << size % 4, 1 + size % 5, seed, activations[size % 3])
        else:
            yield f"transformer{seed}", transformer(32 + 16 * (size % 4), 1 + size % 3, 8 + size, seed)


def write_broken(folder: Path) -> None:
    """A file that is no model any more, one that crashes, one that hangs. The fourth is not there."""
    write(crash(), folder, "crash")
    write(hang(), folder, "hang")
    write(mlp(32, 1, 0), folder, "corrupt")
    file = folder / "models" / "corrupt.onnx"
    file.write_bytes(file.read_bytes()[:-1000])
