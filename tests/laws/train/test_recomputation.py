"""A step in pieces has the gradients of a step as a whole, and holds less at a time."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import normal, text_model
from training_nets import NETS, Quantized, quantized
from training_values import values_of

from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.graph import io
from quark_onnx.graph.gradient.pieces import cuts
from quark_onnx.stages.train.step import Gradients, Step
from quark_onnx.stages.train.training_graph import TrainingGraph, in_memory

ROUNDINGS = 64
"""Of float32 in which gradients may differ: onnxruntime fuses other nodes where a graph is cut."""


def gradients(net: Quantized, graph: TrainingGraph) -> Gradients:
    return Step(graph, net.model).gradients(values_of(net.graph, net.model, net.plan), net.shard)


@pytest.mark.parametrize("name", NETS)
def test_pieces_have_the_gradients_of_the_whole(name: str) -> None:
    net = quantized(name, Losses(kl=1.0, l2=0.0, features=0.5))
    whole, size = in_memory(net.graph, 2**40, 4)
    cut, least = in_memory(net.graph, 1, 4)
    assert whole.cuts == ()
    assert len(cut.cuts) > 1
    assert least < size
    one, other = gradients(net, whole), gradients(net, cut)
    assert other.terms == pytest.approx(one.terms, rel=1e-6)
    assert other.of.keys() == one.of.keys()
    for key, gradient in one.of.items():
        bound = ROUNDINGS * np.finfo(np.float32).eps * np.linalg.norm(gradient)
        assert np.linalg.norm(other.of[key] - gradient) <= bound, key


DEEP = " ".join(f"a{n} = Conv <pads = [1, 1, 1, 1]> ({f'a{n - 1}' if n else 'x'}, w) " for n in range(16))


def test_as_few_pieces_as_the_limit_asks_for() -> None:
    """Sixteen tensors of 4 kB for each sample: what is kept falls to the borders and one piece."""
    text = f"g (float[N, 4, 16, 16] x) => (float[N, 4, 16, 16] y) {{ {DEEP} y = Relu (a15) }}"
    model = io.load(text_model(text, w=normal(4, 4, 3, 3)))
    kilobytes = [cuts(model, limit << 10, 2).size >> 10 for limit in (200, 100, 70, 1)]
    counts = [len(cuts(model, limit << 10, 2).anchors) for limit in (200, 100, 70, 1)]
    assert kilobytes[0] == 17 * 8
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert all(size <= limit for size, limit in zip(kilobytes, (200, 100, 70), strict=False))
    assert kilobytes[-1] <= 70


def test_no_cut_leaves_codes_on_a_border() -> None:
    text = """g (float[2, 4] x) => (float[2, 4] y) { [q] q = QuantizeLinear (x, s, z) [d] d = DequantizeLinear (q, s, z)
        [e] e = Exp (d) [f] f = QuantizeLinear (e, s, z) [y] y = DequantizeLinear (f, s, z) }"""
    model = io.load(text_model(text, 21, 10, s=np.float32(0.1), z=np.int8(0)))
    assert cuts(model, 1, 1).anchors == ("e", "f")
