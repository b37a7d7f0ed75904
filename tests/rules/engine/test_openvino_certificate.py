"""What is certified of OpenVINO's kernels, against its sums on processors without VNNI: in a process for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quantized_models import graph, quantized
from text_models import text_model

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.layers.matrix_geometry import conv_geometry
from quark_onnx.engine.runtimes.known import RUNTIMES
from quark_onnx.engine.runtimes.openvino import without_vnni as openvino_without_vnni
from quark_onnx.engine.runtimes.openvino.pairs import orders, rows_in
from quark_onnx.engine.runtimes.runtime import Missing, Runtime
from quark_onnx.engine.saturation_certificate import NO_CONSTANT, Certificate
from quark_onnx.graph import Model, Node, io
from quark_onnx.numerics.layer.im2col import every_position, patches
from quark_onnx.numerics.rounding.weight_grid import nearest
from quark_onnx.numerics.saturating_products import exact_product, saturating_product

Array = NDArray[Any]

CPUINFO = Path("/proc/cpuinfo")
HAS_AVX512 = CPUINFO.exists() and "avx512" in CPUINFO.read_text()

KINDS = {"AVX2": ("avx512", "amx", "vnni"), "AVX512_CORE": ("amx", "vnni")}
"""Instructions that oneDNN is told of, and what is not in names of primitives then."""


@dataclass(frozen=True)
class Layer:
    """One operator with its attributes, the shapes of its input and weight, and the zero point of its input.

    normalized  there is a normalization behind it, which doubles what it makes, and hides its name in OpenVINO
    """

    op: str
    data: tuple[int, ...]
    weight: tuple[int, ...]
    attributes: str = ""
    zero: Any = field(default_factory=lambda: np.uint8(0))
    normalized: bool = False


LAYERS = {
    "dense": Layer("Conv", (1, 16, 6, 6), (16, 16, 3, 3), "pads = [1, 1, 1, 1]"),
    "three channels": Layer("Conv", (2, 3, 9, 9), (8, 3, 3, 3), "strides = [2, 2], pads = [1, 1, 1, 1]", np.uint8(7)),
    "dilated": Layer("Conv", (1, 5, 9, 9), (8, 5, 3, 3), "dilations = [2, 2]"),
    "one position": Layer("Conv", (1, 33, 4, 4), (16, 33, 1, 1), zero=np.int8(-3)),
    "one axis": Layer("Conv", (1, 7, 20), (16, 7, 5)),
    "three axes": Layer("Conv", (1, 3, 4, 4, 4), (16, 3, 2, 2, 2)),
    "large": Layer("Conv", (1, 131, 3, 3), (16, 131, 3, 3), "pads = [1, 1, 1, 1]"),
    "one channel": Layer("Conv", (1, 1, 8, 8), (16, 1, 3, 3)),
    "one channel along an axis": Layer("Conv", (1, 1, 30), (16, 1, 9)),
    "groups of three": Layer("Conv", (1, 6, 6, 6), (32, 3, 3, 3), "group = 2"),
    "groups of two": Layer("Conv", (1, 16, 6, 6), (16, 2, 3, 3), "group = 8", np.uint8(128)),
    "two outputs of a channel": Layer("Conv", (1, 8, 6, 6), (16, 1, 3, 3), "group = 8"),
    "two outputs of a channel, wider": Layer("Conv", (1, 8, 9, 9), (16, 1, 3, 3), "group = 8"),
    "depthwise": Layer("Conv", (1, 7, 8, 8), (7, 1, 3, 3), "group = 7"),
    "transposed": Layer("ConvTranspose", (1, 5, 4, 4), (5, 8, 2, 2), "strides = [2, 2]"),
    "matrix": Layer("MatMul", (2, 3, 33), (33, 16), zero=np.uint8(9)),
    "turned": Layer("Gemm", (4, 300), (8, 300), "transB = 1"),
    "normalized": Layer("Conv", (1, 5, 6, 6), (8, 5, 3, 3), normalized=True),
    "signed": Layer("MatMul", (5, 8), (8, 16), zero=np.int8(0)),
}
SEVERAL_ORDERS = ("one channel", "one channel along an axis", "groups of three", "two outputs of a channel")
SEVERAL_ORDERS += ("two outputs of a channel, wider",)


def wild(layer: Layer) -> Array:
    """Codes, most of one sign, many of whose pairs are too large."""
    rng = np.random.default_rng(len(str(layer)))
    return np.asarray(rng.integers(-20, 128, layer.weight), np.int8)


def safe(layer: Layer, node: Node) -> Array:
    """Those with safe pairs inside every tap that are nearest."""
    codes = wild(layer).astype(np.float32)
    matrix = layer.op in ("MatMul", "Gemm")
    turned = layer.op == "MatMul"
    if matrix:
        rows = (codes.T if turned else codes)[None]
        found = nearest(rows, np.ones(rows.shape[:2], np.float32), -127, 127, rows.shape[-1])[0]
        return np.asarray(found.T if turned else found, np.int8)
    rows, run = rows_in("tap", codes, node)
    found = nearest(rows, np.ones(rows.shape[:2], np.float32), -127, 127, run)
    geometry = conv_geometry(node, layer.weight[2:], transposed=layer.op == "ConvTranspose")
    return np.asarray(geometry.weight(found, codes), np.int8)


@dataclass(frozen=True)
class Case:
    """A layer with codes, which is one of many in a model."""

    layer: Layer
    node: Node
    codes: Array

    def x(self) -> Array:
        """Whole numbers: often the highest, which are 255 for the kernel."""
        info = np.iinfo(self.layer.zero.dtype)
        rng = np.random.default_rng(1)
        found = rng.choice(np.array([info.min, info.min + 1, info.max - 1, info.max, info.max]), self.layer.data)
        return np.asarray(found, np.float32) - np.float32(self.layer.zero)

    def sums(self) -> list[Array]:
        """Exact ones, and those of every order, as the layer's output."""
        zero = int(self.layer.zero) - np.iinfo(self.layer.zero.dtype).min  # of the bytes that the kernel multiplies
        x = (self.x() + zero).astype(np.uint8)
        if self.layer.op in ("MatMul", "Gemm"):
            rows = (self.codes.T if self.layer.op == "MatMul" else self.codes)[None]
            read = x.reshape(1, -1, x.shape[-1])
            return [self._shaped(y[0], rows, zero) for y in (exact_product(read, rows), saturating_product(read, rows))]
        geometry = conv_geometry(self.node, self.codes.shape[2:], transposed=self.layer.op == "ConvTranspose")
        rows, shape = geometry.rows(self.codes), geometry.shape(x[0])
        size = shape.output_size(x.shape[2:])
        every = [patches(one, every_position(size), shape, zero) for one in x]
        numbers = np.broadcast_to(np.arange(rows.shape[-1]).reshape(rows.shape[-1:]), rows.shape)
        laid_out = geometry.weight(numbers, self.codes)
        found = [np.stack([exact_product(read, rows) for read in every])]
        for order in sorted(orders(self.node, self.codes.shape)):
            columns, run = rows_in(order, laid_out, self.node)
            at = columns[0, 0]
            found.append(np.stack([saturating_product(read[..., at], rows[..., at], run) for read in every]))
        return [self._images(y, rows, zero, size) * (1 + self.layer.normalized) for y in found]

    def _shaped(self, y: Array, rows: Array, zero: int) -> Array:
        less = zero * rows[0].sum(-1, dtype=int)
        return (y - less).reshape(*self.layer.data[:-1], -1)

    def _images(self, y: Array, rows: Array, zero: int, size: tuple[int, ...]) -> Array:
        less = zero * rows.sum(-1, dtype=int)  # (G, R); y is (N, G, n, R)
        return np.moveaxis(y - less[:, None], -1, 2).reshape(len(y), -1, *size)


def model_of(layers: Sequence[tuple[Layer, Array]]) -> Model:
    """All of them side by side, each with an input and an output of its own."""
    inputs, outputs, body, constants = [], [], [], {"one": np.float32(1)}
    for i, (layer, codes) in enumerate(layers):
        inputs.append(f"float[{','.join(map(str, layer.data))}] x{i}")
        outputs.append(f"float[{','.join('ABCDE'[axis] + str(i) for axis in range(len(layer.data)))}] y{i}")
        made = f"p{i}" if layer.normalized else f"y{i}"
        axis = {"MatMul": 1, "ConvTranspose": 1}.get(layer.op, 0)
        constants |= {f"z{i}": layer.zero, f"w{i}": codes, f"s{i}": np.ones(codes.shape[axis], np.float32)}
        body.append(
            f"q{i} = QuantizeLinear (x{i}, one, z{i}) d{i} = DequantizeLinear (q{i}, one, z{i})"
            f" v{i} = DequantizeLinear <axis = {axis}> (w{i}, s{i})"
            f" [n{i}] {made} = {layer.op} <{layer.attributes}> (d{i}, v{i})".replace("<>", "")
        )
        if layer.normalized:
            rows = layer.weight[0]
            constants |= {f"two{i}": np.full(rows, 2, np.float32), f"none{i}": np.zeros(rows, np.float32)}
            constants[f"ones{i}"] = np.ones(rows, np.float32)
            body.append(f"y{i} = BatchNormalization <epsilon = 0.0> (p{i}, two{i}, none{i}, none{i}, ones{i})")
    return io.load(text_model(f"g ({', '.join(inputs)}) => ({', '.join(outputs)}) {{ {' '.join(body)} }}", **constants))


def nodes_of(model: Model) -> list[Node]:
    return [node for node in model.graph if (node.name or "").startswith("n")]


@pytest.fixture(scope="module")
def openvino() -> Runtime:
    one = RUNTIMES["openvino"]()
    if isinstance(one, Missing):
        pytest.skip(one.reason)
    return one


@dataclass(frozen=True)
class Ran:
    """Cases by layer and kind of codes, their certificates, and their outputs by kind of processor."""

    cases: dict[tuple[str, str], Case]
    certificates: dict[tuple[str, str], Certificate]
    outputs: dict[str, dict[tuple[str, str], Array]]


@pytest.fixture(scope="module")
def ran(openvino: Runtime) -> Ran:
    plain = dict(zip(LAYERS, nodes_of(model_of([(layer, wild(layer)) for layer in LAYERS.values()])), strict=True))
    codes = {}
    for name, layer in LAYERS.items():
        codes[name, "wild"], codes[name, "safe"] = wild(layer), safe(layer, plain[name])
        if name in SEVERAL_ORDERS:
            codes[name, "seven"] = (wild(layer) // 2).astype(np.int8)
    model = model_of([(LAYERS[name], array) for (name, _), array in codes.items()])
    cases = {key: Case(LAYERS[key[0]], plain[key[0]], array) for key, array in codes.items()}
    feed = {f"x{i}": case.x() for i, case in enumerate(cases.values())}
    outputs = {}
    for kind, beyond in KINDS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(openvino_without_vnni, "LIMITS", (kind,))
            patch.setattr(openvino_without_vnni, "BEYOND", beyond)
            try:
                with openvino.without_vnni(model, [f"y{i}" for i in range(len(cases))]) as run:
                    outputs[kind] = dict(zip(cases, run(feed), strict=True))
            except ModelError as error:
                pytest.skip(str(error))
    certificates = openvino.certify(model)
    return Ran(cases, {key: certificates[f"n{i}"] for i, key in enumerate(cases)}, outputs)


@pytest.mark.parametrize("name", LAYERS)
def test_exact_is_exact_on_every_processor_and_the_rest_is_clipped_in_a_known_order(name: str, ran: Ran) -> None:
    """Codes of 7 bits are exact, wild ones are not, but for depthwise; safe ones where no processor has other pairs."""
    for kind in ("wild", "safe", "seven") if name in SEVERAL_ORDERS else ("wild", "safe"):
        case, certificate = ran.cases[name, kind], ran.certificates[name, kind]
        expected = kind == "seven" or name == "depthwise" or (kind == "safe" and name not in SEVERAL_ORDERS)
        assert certificate.verdict == ("exact" if expected else "may saturate"), kind
        exact, *clipped = case.sums()
        found = [ran.outputs[processor][name, kind] for processor in KINDS]
        for y in found:
            allowed = [exact] if expected else [exact, *clipped]
            assert any(np.array_equal(y, one) for one in allowed), kind
        shows = not name.startswith("one channel") or HAS_AVX512  # AVX2 adds none of these in pairs
        assert expected or not shows or any(not np.array_equal(y, exact) for y in found), kind


MOVED = {
    "as it is": "(w, s) u = Identity (v0)",
    "transposed": "(t, s) u = Transpose <perm = [1, 0]> (v0)",
    "in another shape": "(r, s) u = Reshape (v0, shape)",
}


@pytest.mark.parametrize("how", MOVED)
def test_weights_that_are_moved_are_looked_at(how: str, openvino: Runtime) -> None:
    """The unsafe pair is in the second column; as rows, there would be none."""
    codes = np.zeros((6, 8), np.int8)
    codes[2:4, 1] = 127
    text = f"""g (float[N,6] x) => (float[N,8] y) <float s = {{1}}, uint8 z = {{0}}> {{ q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z) v0 = DequantizeLinear {MOVED[how]} [n] y = MatMul (d, u) }}"""
    forms = {"w": codes, "t": np.ascontiguousarray(codes.T), "r": codes.reshape(6, 2, 4), "shape": np.array([0, 8])}
    read = {name: array for name, array in forms.items() if f"({name}," in MOVED[how] or f" {name})" in MOVED[how]}
    (found,) = openvino.certify(io.load(text_model(text, **read))).values()
    assert found.verdict == "may saturate"
    assert (found.pairs, found.unsafe_pairs, found.rows, found.unsafe_rows) == (24, 1, 8, 1)


def test_products_of_two_activations_are_unknown(openvino: Runtime) -> None:
    """Of uint8 and int8, that is; two of uint8 are multiplied in float."""
    text = """g (float[2,4,8] a, float[2,8,4] b) => (float[2,4,4] y)
        <float s = {1}, uint8 z = {0}, TYPE k = {0}> { q = QuantizeLinear (a, s, z) d = DequantizeLinear (q, s, z)
        r = QuantizeLinear (b, s, k) e = DequantizeLinear (r, s, k) [n] y = MatMul (d, e) }"""
    assert openvino.certify(io.load(text_model(text.replace("TYPE", "int8"))))["n"] == NO_CONSTANT
    assert not openvino.certify(io.load(text_model(text.replace("TYPE", "uint8"))))


NETS = {
    "three channels, and groups of three": "(float[1,3,8,8] x) => (float[1,8,4,4] y)"
    " { h = Conv (x, a) r = Relu (h) y = Conv <group = 2> (r, b) }",
    "one channel, and a transposed one": "(float[1,1,8,8] x) => (float[1,6,8,8] y)"
    " { h = Conv (x, c) r = Relu (h) y = ConvTranspose (r, d) }",
    "matrices": "(float[4,9] x) => (float[4,5] y) { h = Gemm <transB = 1> (x, e) r = Relu (h) y = MatMul (r, f) }",
}
SHAPES = {"a": (6, 3, 3, 3), "b": (8, 3, 3, 3), "c": (6, 1, 3, 3), "d": (6, 6, 3, 3), "e": (7, 9), "f": (7, 5)}


@pytest.mark.parametrize("net", NETS)
def test_what_is_quantized_for_openvino_is_exact_there(net: str, openvino: Runtime) -> None:
    """The twin, rounded freely, may saturate."""
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(-0.2, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    model = graph(NETS[net], **{name: array for name, array in weights.items() if f", {name})" in NETS[net]})
    for how, verdicts in (("auto", {"exact"}), ("off", {"may saturate"})):
        made = quantized(model, target="openvino", per_channel=True, weight_pairs=how)
        found = openvino.certify(made.quantized)
        assert len(found) == 2 and {one.verdict for one in found.values()} == verdicts
