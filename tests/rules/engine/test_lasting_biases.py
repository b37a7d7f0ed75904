"""Integer convolutions without a bias get one where OpenVINO would lose what they compute, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from openvino_installed import needs_openvino
from quantized_models import feeds, graph, quantized, run

from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.openvino.lasting_biases import LASTING, with_lasting_biases
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant, input_at

GATED = "c = {} g = GlobalAveragePool (c) s = Sigmoid (g) y = Mul (c, s)"
CONV, TRANSPOSED, BIASED = "Conv (x, w)", "ConvTranspose (r, w)", "Conv (x, w, b)"
LOST = {
    "squeeze and excite": GATED.format(CONV),
    "read twice by one": f"c = {CONV} y = Mul (c, c)",
    "also an output": f"y = {CONV} g = GlobalAveragePool (y) z = Relu (g)",
    "scaled": f"a = {CONV} c = Mul (a, two) g = GlobalAveragePool (c) y = Mul (c, g)",
    "zeros for a bias": GATED.format("Conv (x, w, none)"),
    "depthwise": GATED.format("Conv <group = 4> (x, v)"),
    "transposed": "r = Relu (x) " + GATED.format(TRANSPOSED),
}
FINE = {
    "a bias": GATED.format(BIASED),
    "one reader": f"c = {CONV} y = Relu (c)",
    "a function in between": f"a = {CONV} " + GATED.format("Relu (a)"),
}


def made(nodes: str, batch: str = "N", **fields: str) -> tuple[Model, Model]:
    outputs = f"float[{batch},4,6,6] y" + (f", float[{batch},4,1,1] z" if "z =" in nodes else "")
    text = f"(float[{batch},4,6,6] x) => ({outputs}) <float[4,4,1,1] w, float[4,1,1,1] v, float[4] b> {{ {nodes} }}"
    arrays = {"two": np.float32(2), "none": np.zeros(4, np.float32)}
    model = graph(text, **{name: array for name, array in arrays.items() if name in nodes})
    found = quantized(model, target="openvino", per_channel=True).quantized
    with_lasting_biases(found)
    return model, found


def biases(model: Model) -> list[np.ndarray | None]:
    return [constant(input_at(node, 2)) for node in model.graph if node.op_type.startswith("Conv")]


@needs_openvino
@pytest.mark.parametrize("nodes", LOST.values(), ids=LOST)
def test_what_would_be_lost_is_kept(nodes: str) -> None:
    """As run it is as close to the float model as it is written, for all it was 0 (a fault of 2026.4)."""
    model, found = made(nodes)
    (bias,) = biases(found)
    assert bias is not None and bias.tolist() == [LASTING] * 4
    (feed,) = feeds(model, 1)
    runtime = runtime_of(TARGETS["openvino"])
    for ran, written in zip(runtime.load(found)(feed), run(found, feed), strict=True):
        assert np.abs(written).max() > 0.1
        np.testing.assert_allclose(ran, written, atol=0.02 * np.abs(written).max())  # a code or two of inputs behind


@pytest.mark.parametrize("nodes", FINE.values(), ids=FINE)
def test_others_stay_as_they_are(nodes: str) -> None:
    (bias,) = biases(made(nodes)[1])
    assert bias is None or np.abs(bias).max() > 0.1


def test_with_known_dimensions_nothing_is_lost() -> None:
    assert biases(made(LOST["squeeze and excite"], batch="1")[1]) == [None]
