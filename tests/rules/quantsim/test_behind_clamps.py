"""Which values the range of an activation is chosen of: what the Relu or Clip behind it lets through."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import graph
from text_models import normal, text_model

from quark_onnx.quantsim import QuantizationSimModel
from quark_onnx.quantsim.behind_clamps import passed

HEAD = "(float[2,4] x) => (float[2,4] y) <float low = {0.0}, float high = {6.0}, float[4] k>"

PLACES = {  # nodes → where the values of `a` count
    "a = Sin(x) y = Relu(a)": "y",
    "a = Sin(x) c = Clip(a, low, high) y = Sin(c)": "c",
    "a = Sin(x) c = Clip(a, , high) y = Sin(c)": "c",
    "a = Sin(x) r = Relu(a) c = Clip(r, low, high) y = Sin(c)": "c",
    "a = Sin(x) y = LeakyRelu(a)": "a",
    "a = Sin(x) c = Relu(a) y = Add(c, a)": "a",
    "a = Sin(x) h = Abs(k) m = ReduceMax<keepdims=0>(h) c = Clip(a, low, m) y = Sin(c)": "a",
    "a = Sin(x) m = ReduceMax<keepdims=0>(x) c = Clip(m, low, high) y = Add(a, c)": "a",
}


@pytest.mark.parametrize("nodes", PLACES)
def test_where_values_count(nodes: str) -> None:
    model = graph(f"{HEAD} {{ {nodes} }}")
    assert passed(model, ["a", "x"]) == {"a": PLACES[nodes], "x": "x"}


def test_a_bound_that_is_computed_of_the_value_is_no_clip() -> None:
    model = graph(f"{HEAD} {{ s = ReduceSum<keepdims=0>(x) c = Clip(high, low, s) y = Add(x, c) }}")
    assert passed(model, ["s"]) == {"s": "s"}


def test_a_graph_output_counts_as_it_is() -> None:
    model = graph("(float[2,4] x) => (float[2,4] a, float[2,4] y) { a = Sin(x) y = Relu(a) }")
    assert passed(model, ["a"]) == {"a": "a"}


def test_the_simulation_spends_no_codes_on_what_a_clip_cuts_off() -> None:
    """A convolution channel by channel has a quantizer in front of its Clip, and takes nothing away with it."""
    text = "g (float[1,4,6,6] x) => (float[1,4,4,4] y) { d = Conv<group=4>(x, w) y = Clip(d, low, high) }"
    model = text_model(text, w=normal(4, 1, 3, 3) * 20, low=np.float32(0), high=np.float32(6))
    sim = QuantizationSimModel(model)
    sim.compute_encodings([normal(1, 4, 6, 6, seed=i) for i in range(4)])
    grids = [sim.quantizer(tensor).qparams for tensor in ("d", "y")]
    assert grids[0] is not None
    assert grids[1] is not None
    assert grids[0].same(grids[1])
    assert abs(float(grids[0].scale) * 255 - 6) < 1e-3
