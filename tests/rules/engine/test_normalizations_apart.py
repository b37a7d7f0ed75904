"""A sum and the normalization behind it: onnxruntime makes one slow kernel of an Add and it, none of a Sum and it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quantized_models
from quantized_models import executed_kernels

from quark_onnx.engine.normalizations_apart import keep_apart
from quark_onnx.graph import Model, io

HEAD = "(float[2,5,8] x, float[2,5,8] z) => (float[2,5,8] y)"
PLAIN = "s = Add (x, z)  y = LayerNormalization (s, g, b)"
BIASED = "h = MatMul (x, w)  a = Add (h, b)  s = Add (a, z)  n = LayerNormalization (s, g)  y = MatMul (n, w)"


def graph(nodes: str, head: str = HEAD, **arrays: Any) -> Model:
    known = {"g": np.arange(1, 9, dtype=np.float32), "b": np.ones(8, np.float32), "w": np.eye(8, dtype=np.float32)}
    return quantized_models.graph(f"{head} {{ {nodes} }}", **{k: v for k, v in known.items() if k in nodes}, **arrays)


def kept_apart(model: Model) -> Model:
    twin = io.copy(model)
    keep_apart(twin)
    return twin


@pytest.mark.parametrize("nodes", [PLAIN, BIASED, PLAIN.replace("(s, g, b)", "<axis = -1> (s, g)")])
def test_both_kernels_run(nodes: str) -> None:
    model = graph(nodes)
    apart = kept_apart(model)
    feed = quantized_models.feeds(model)[0]
    assert "SkipLayerNormalization" in executed_kernels(model)
    assert {"Sum", "LayerNormalization"} <= executed_kernels(apart).keys()
    assert list(apart.graph.initializers).count("g") == 1
    for one, other in zip(quantized_models.run(model, feed), quantized_models.run(apart, feed), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


TWINS = {
    "the sum is read elsewhere": "s = Add (x, z)  n = LayerNormalization (s, g)  y = Mul (s, n)",
    "a bias": "s = Add (x, b)  y = LayerNormalization (s, g)",
    "nothing is added": "s = Mul (x, z)  y = LayerNormalization (s, g)",
    "γ is computed": "k = Relu (g)  s = Add (x, z)  y = LayerNormalization (s, k)",
    "several axes": "s = Add (x, z)  y = LayerNormalization <axis = 1> (s, gg)",
}


@pytest.mark.parametrize("name", TWINS)
def test_what_stays(name: str) -> None:
    more = {"gg": np.ones((5, 8), np.float32)} if "gg" in TWINS[name] else {}
    model = graph(TWINS[name], **more)
    assert io.fingerprint(kept_apart(model)) == io.fingerprint(model)


def test_layers_that_share_their_scale() -> None:
    nodes = "s = Add (x, z)  n = LayerNormalization (s, g)  t = Add (n, z)  y = LayerNormalization (t, g)"
    apart = kept_apart(graph(nodes))
    kernels = executed_kernels(apart)
    assert (kernels["Sum"], kernels["LayerNormalization"], kernels["SkipLayerNormalization"]) == (2, 2, 0)
