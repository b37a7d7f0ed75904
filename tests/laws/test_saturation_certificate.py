"""A certificate holds in both directions: exact says that no input clips a pair, the other that one does.

Each row of a weight meets the two inputs that drive its pairs furthest: the highest code wherever its weights have one
sign, and 0 elsewhere. Nothing can be further, so what does not clip there clips nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quark_onnx.engine.runner import Runner
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.engine.saturation_certificate import certify
from quark_onnx.graph import Model, io
from quark_onnx.numerics.saturating_products import exact_product

LARGE = np.array([-128, -127, -100, -65, -64, -63, 0, 1, 63, 64, 65, 100, 127])
CUT = 65
"""Weights of at most 64 are always safe in pairs: a share of the cases is drawn so."""


@dataclass(frozen=True)
class Case:
    """A weight, the groups of a convolution, and for each of its rows the two inputs that drive it furthest."""

    weight: NDArray[np.int8]
    group: int = 1

    def driving(self) -> list[NDArray[np.uint8]]:
        """For a convolution of an input as large as the kernel: (1, C, *kernel)."""
        outputs, channels = self.weight.shape[:2]
        found = []
        for row in range(outputs):
            for sign in (1, -1):
                x = np.zeros((1, channels * self.group, *self.weight.shape[2:]), np.uint8)
                first = row // (outputs // self.group) * channels
                x[0, first : first + channels] = 255 * (sign * self.weight[row].astype(int) > 0)
                found.append(x)
        return found

    def products(self, x: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(outputs, K), in the order (*kernel, channel of the group)."""
        outputs, channels = self.weight.shape[:2]
        seen = np.repeat(x.reshape(self.group, channels, -1), outputs // self.group, 0)
        return (self.weight.reshape(outputs, channels, -1).astype(np.int64) * seen).swapaxes(1, 2).reshape(outputs, -1)


def pairs(products: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of two neighbours; the last of an odd number has none."""
    return products[: len(products) // 2 * 2].reshape(-1, 2).sum(-1)


@st.composite
def weights(draw: st.DrawFn, *shape: int) -> NDArray[np.int8]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = LARGE if draw(st.booleans()) else LARGE[abs(LARGE) < CUT]
    return rng.choice(most, shape).astype(np.int8)


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    group, outputs, channels = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return Case(draw(weights(group * outputs, channels, *kernel)), group)


def initializers(**arrays: np.ndarray | np.generic) -> list[onnx.TensorProto]:
    return [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def model(node: onnx.NodeProto, kind: int, rank: int, out: int, constants: list[onnx.TensorProto]) -> Model:
    info = onnx.helper.make_tensor_value_info
    inputs = [info("x", kind, [f"x{i}" for i in range(rank)])]
    inputs += [info("b", onnx.TensorProto.INT32, ["B"])] * ("b" in node.input)
    y = info("y", out, [f"y{i}" for i in range(rank)])
    graph = onnx.helper.make_graph([node], "g", inputs, [y], constants)
    opsets = [onnx.helper.make_opsetid("", 21)]
    return io.load(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))


def convolution(case: Case) -> Model:
    """Its scales are 1, so that sums, moved near 0 by a bias, show in its codes."""
    one, u8, s8 = np.float32(1), np.uint8(0), np.int8(0)
    constants = initializers(w=case.weight, s=one, xz=u8, wz=s8, yz=np.uint8(128))
    node = onnx.helper.make_node(
        "QLinearConv", ["x", "s", "xz", "w", "s", "wz", "s", "yz", "b"], ["y"], name="n", group=case.group
    )
    return model(node, onnx.TensorProto.UINT8, case.weight.ndim, onnx.TensorProto.UINT8, constants)


@given(convolutions())
@settings(deadline=None, max_examples=40)
def test_convolutions(case: Case) -> None:
    """With a bias of minus the exact sum, a code of 128 says that the sum was exact; what is clipped is at least 128.

    A machine that does not saturate computes what is certified exact; so what would clip is written out here, too.
    """
    outputs = len(case.weight)
    made = convolution(case)
    certificate = certify(made)["n"]
    depthwise = outputs == case.group and case.weight.shape[1] == 1
    clipped = 0
    with without_vnni(made) as run:
        for i, x in enumerate(case.driving()):
            products = case.products(x)
            code = run({"x": x, "b": -products.sum(-1).astype(np.int32)})[0].reshape(outputs)[i // 2]
            clips = not depthwise and bool((abs(pairs(products[i // 2])) > 2**15 - 1).any())
            assert (code != 128) == clips
            clipped += clips
    assert certificate.verdict == ("may saturate" if clipped else "exact")
    assert certificate.unsafe_rows <= clipped <= 2 * certificate.unsafe_rows


@given(st.integers(1, 9).flatmap(lambda k: st.tuples(weights(k, 4), st.booleans())))
@settings(deadline=None, max_examples=40)
def test_matrices(case: tuple[NDArray[np.int8], bool]) -> None:
    """MatMulInteger shows its sums; weights on the right of uint8 inputs, or as uint8 on the left of int8 ones."""
    weight, right = case
    signs = (1, -1)
    if right:
        x = np.stack([255 * (sign * column > 0) for column in weight.astype(int).T for sign in signs]).astype(np.uint8)
        node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="n")
        kind, constants = onnx.TensorProto.UINT8, initializers(w=weight)
        exact = x.astype(np.int64) @ weight.astype(np.int64)
    else:
        left = (weight.astype(int) + 128).astype(np.uint8).T
        x = np.tile(np.array([[127, -128]], np.int8), (len(weight), 1))
        node = onnx.helper.make_node("MatMulInteger", ["w", "x"], ["y"], name="n")
        kind, constants = onnx.TensorProto.INT8, initializers(w=left)
        exact = left.astype(np.int64) @ x.astype(np.int64)
    made = model(node, kind, 2, onnx.TensorProto.INT32, constants)
    with without_vnni(made) as run:
        saturated = run({"x": x})[0]
    verdict = certify(made)["n"].verdict
    assert verdict == ("exact" if (saturated == exact).all() else "may saturate")
    if verdict == "exact":  # then this machine computes it, whichever it is
        np.testing.assert_array_equal(Runner(made)({"x": x})[0], exact)
    with without_vnni(made, multiply=exact_product) as run:
        np.testing.assert_array_equal(run({"x": x})[0], exact)
