"""strides-in-front: a pool of one position passes over what convolutions of one position pass over."""

from __future__ import annotations

import onnx
import pytest
from openvino_installed import needs_openvino
from quantized_models import graph, quantized, settings
from text_models import applied, assert_same, normal, ops, prepared, text_model

from quark_onnx.engine.runtimes.openvino.cpu import certify
from quark_onnx.graph import io
from quark_onnx.opened_job import open_job

HEAD = "g (float[1,4,7,7] x) => (float[A,B,C,D] y{}) {{ h = Relu (x) "
ALONE = HEAD.format("") + "y = Conv <strides=[2,3]> (h, w) }"
TWO = HEAD.format("") + "a = Conv <strides=[2,2]> (h, w) b = Conv <strides=[2,2]> (h, v) y = Add (a, b) }"
TWINS = {
    "three positions": HEAD.format("") + "y = Conv <strides=[2,2]> (h, k) }",
    "no strides": HEAD.format("") + "y = Conv (h, w) }",
    "pads": HEAD.format("") + "y = Conv <strides=[2,2], pads=[1,1,1,1]> (h, w) }",
    "another reader": HEAD.format(", float[E,F,G,H] z") + "y = Conv <strides=[2,2]> (h, w) z = Conv (h, v) }",
    "other strides": HEAD.format(", float[E,F,G,H] z")
    + "y = Conv <strides=[2,2]> (h, w) z = Conv <strides=[3,3]> (h, v) }",
    "shown": HEAD.format(", float[E,F,G,H] h") + "y = Conv <strides=[2,2]> (h, w) }",
}


def model(text: str) -> onnx.ModelProto:
    return text_model(text, w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1), k=normal(4, 4, 3, 3))


@pytest.mark.parametrize("text", [ALONE, TWO])
def test_one_pool_passes_over_for_all(text: str) -> None:
    proto = model(text)
    result = prepared(proto, apart=True)
    assert ops(result)["MaxPool"] == len(applied(result, "strides-in-front")) == 1
    assert_same(proto, result, {"x": normal(1, 4, 7, 7)}, terms=4)


@pytest.mark.parametrize("text", TWINS.values(), ids=TWINS)
def test_twins(text: str) -> None:
    assert "MaxPool" not in ops(prepared(model(text), apart=True))
    assert "MaxPool" not in ops(prepared(model(ALONE)))


BLOCK = (
    "(float[1,16,8,8] x) => (float[A,B,C,D] y) <float[16,16,1,1] w, float[32,16,1,1] v, float[32,16,1,1] u>"
    " { [a] h = Conv (x, w) [b] f = Conv <strides=[2,2]> (h, v)"
    " [c] g = Conv <strides=[2,2]> (h, u) [e] y = Add (f, g) }"
)


@needs_openvino
@pytest.mark.parametrize("apart", [True, False])
def test_openvino_computes_integers_behind_the_pool(apart: bool) -> None:
    """And floats where it moves the strides itself."""
    model = io.to_proto(graph(BLOCK))
    made = quantized(prepared(model, apart=apart).model, target="openvino", per_channel=True)
    assert certify(made.quantized).keys() == ({"a", "b", "c"} if apart else {"a"})


def test_it_is_done_for_openvino() -> None:
    for target in ("openvino", "cpu"):
        job = open_job(io.to_proto(graph(BLOCK)), settings(target=target))
        assert any(node.op_type == "MaxPool" for node in job.prepared.graph) is (target == "openvino")
