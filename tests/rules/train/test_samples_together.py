"""Which samples may run together in training: of open batches, where a model makes the same of each as alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx.engine.kept_feeds import keep
from quark_onnx.graph import io
from quark_onnx.stages.train.batches import run_together

BRANCH = """g (float[N,4] x, float[N,1] c) => (float[N,4] y) {
    m = ReduceMax <keepdims = 0> (c) d = Cast <to = 9> (m)
    y = If (d) <
        then_branch = a () => (float[N,4] p) { p = Relu (x) }, else_branch = b () => (float[N,4] q) { q = Abs (x) }
    >
}"""


def together(text: str, rows: int = 1, more: Any = None, **arrays: Any) -> bool:
    model = io.load(text_model(text, **arrays))
    return run_together(model, keep([{"x": normal(rows, 4, seed=i), **(more or {})} for i in range(3)]))


def test_open_batches_run_together() -> None:
    assert together("g (float[N,4] x) => (float[N,4] y) { m = MatMul (x, w) y = Relu (m) }", w=normal(4, 4))
    assert together("g (float[N,4] x) => (float[N,4] y) { y = Softmax (x) }", rows=5)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }",
        "g (float[N,4] x) => (float[1,4] y) { y = ReduceMean <axes = [0]> (x) }",
        "g (float[N,4] x) => (float[N,4] y) { m = ReduceMax <axes = [0]> (x) y = Div (x, m) }",
        "g (float[N,4] x) => (float[1,4] y) <int64[2] s = {1, 4}> { y = Reshape (x, s) }",
    ],
)
def test_twin_others_do_not(text: str) -> None:
    assert not together(text)


def test_twin_nor_do_models_with_branches() -> None:
    assert not together(BRANCH, more={"c": np.ones((1, 1), np.float32)})
