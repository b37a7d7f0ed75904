"""Which outputs are taken for classes, and along which axis labels name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from quantized_models import graph
from text_models import normal
from training_nets import quantized
from tuning_cases import case, draw

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.labels import LABELS
from quark_onnx.graph.output_classes import Classes, classes, labelled_classes
from quark_onnx.stages.train.execution import Values
from quark_onnx.stages.train.guard import Judge
from quark_onnx.stages.train.step import Evaluated, Gradients
from quark_onnx.stages.train.training_graph import training_graph

LAYER = "(float[2,4] x) => (float[2,5] y) <float[4,5] w, float[5] b> { h = MatMul (x, w) "
IMAGE = "(float[2,4,6,6] x) => (float[2,5,6,6] y) <float[5,4,1,1] w> { "
POOLED = "(float[2,4,6,6] x) => (float[2,5] y) <float[5,4,1,1] w> { h = Conv (x, w) "
LOGITS, PROBABILITIES = Classes(1, probabilities=False), Classes(1, probabilities=True)
CASES = {
    LAYER + "y = Add (b, h) }": LOGITS,
    LAYER + "s = Softmax (h) y = Identity (s) }": PROBABILITIES,
    LAYER + "y = Softmax <axis = 0> (h) }": Classes(0, probabilities=True),
    LAYER + "y = LogSoftmax (h) }": LOGITS,
    POOLED + "r = Relu (h) p = GlobalAveragePool (r) y = Flatten (p) }": LOGITS,
    LAYER + "y = Sigmoid (h) }": None,
    LAYER + "y = Relu (h) }": None,
    LAYER + "n = ReduceL2 <axes = [1]> (h) y = Div (h, n) }": None,
    LAYER.replace("5", "1") + "y = Add (h, b) }": None,
    IMAGE + "y = Conv (x, w) }": None,
    IMAGE + "h = Conv (x, w) y = Softmax <axis = 1> (h) }": PROBABILITIES,
}


@pytest.mark.parametrize("text", CASES)
def test_classes_of_outputs(text: str) -> None:
    (output,) = graph(text).graph.outputs
    assert classes(output) == CASES[text]


@pytest.mark.parametrize("quantizing", [{}, {"activation_type": "uint8", "per_channel": True}])
def test_quantizers_hide_nothing(quantizing: dict[str, object]) -> None:
    made = quantized("one bias", **quantizing)
    output = next(value for value in made.graph.forward.graph.outputs if value.name == "y")
    assert classes(output) == PROBABILITIES


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        (IMAGE + "y = Conv (x, w) }", 1),
        ("(float[2,4,6] x) => (float[2,5,6] y) <float[5,4,1] w> { y = Conv (x, w) }", 1),
        ("(float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w> { y = MatMul (x, w) }", 2),
        (LAYER + "y = Relu (h) }", 1),
    ],
)
def test_labels_name_classes_of_channels_or_of_the_last_axis(text: str, axis: int) -> None:
    (output,) = graph(text).graph.outputs
    assert labelled_classes(output) == Classes(axis, probabilities=False)


class Answers:
    """Computes nothing: what each shard gives is told."""

    def __init__(self, output: np.ndarray) -> None:
        self.output = output

    def gradients(self, values: Values, shards: Sequence[Feed]) -> Iterator[Gradients]:
        raise NotImplementedError

    def evaluate(self, values: Values, shards: Sequence[Feed]) -> Iterator[Evaluated]:
        return iter([Evaluated({"kl": 0.0}, len(self.output), {"y": self.output}) for _ in shards])


@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 3, 3), 1), ((2, 3, 5), 2), ((2, 5), 1)])
def test_right_answers_are_counted_along_that_axis(shape: tuple[int, ...], axis: int) -> None:
    output = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    labels = output.argmax(axis)
    labels.ravel()[0] += 1
    point = Judge(Answers(output), [{LABELS: labels}], {"kl": 1.0})({}, 0, None)
    assert point.metric == pytest.approx(1 - 1 / labels.size)


def test_a_layer_alone_is_compared_by_its_output() -> None:
    arrays = {"w": normal(6, 4), "b": normal(4)}
    made = case("g (float[N, 6] x) => (float[N, 4] y) { y = Gemm (x, w, b) }", draw((1, 6), 8), arrays)
    assert list(training_graph(made.model, made.plan, Losses(kl=0, features=1)).teachers) == ["y"]


def test_what_quantization_adds_is_no_feature() -> None:
    made = quantized("tied")
    with pytest.raises(ConfigError, match="no float tensor 'h_dequantized' in the model; known: h, r"):
        training_graph(made.model, made.plan, Losses(features=1, feature_names=("h_dequantized",)))
