"""A loss of the user's: an ONNX graph behind the outputs, in whatever operator set; and what is refused of losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from text_models import text_model
from training_nets import quantized
from training_values import values_of

from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.labels import LABELS
from quark_onnx.stages.train.step import Evaluated, Step
from quark_onnx.stages.train.training_graph import training_graph

SUM = "ReduceSum <keepdims = 0>"
SQUARES = f"""g (float[N, 5] y, float[N, 5] labels) => (float s) {{
    d = Sub (y, labels) p = Mul (d, d) f = Constant <value = float {{0.2}}> () m = Mul (p, f) s = {SUM} (m) }}"""


def losses_of(tmp_path: Path, text: str, opset: int = 17, weight: float = 1.0, kl: float = 0.0) -> Losses:
    path = tmp_path / "loss.onnx"
    onnx.save(text_model(text, opset), path)
    return Losses(kl=kl, graph=str(path), graph_weight=weight)


def run(losses: Losses, labels: np.ndarray | None = None) -> tuple[Evaluated, dict[str, np.ndarray], list[str]]:
    """What a step on a net with four samples says, its gradients, and which tensors of the float model it asked for."""
    made = quantized("convolutions")
    kind = None if labels is None else (str(labels.dtype), labels.ndim)
    graph = training_graph(made.model, made.plan, losses, labels=kind)
    shard = made.shard if labels is None else {**made.shard, LABELS: labels}
    step, values = Step(graph, made.model), values_of(graph, made.model, made.plan)
    return step.evaluate(values, shard), step.gradients(values, shard).of, list(graph.teachers)


LABELLED = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_squares_in_a_graph_are_those_of_l2(tmp_path: Path, opset: int) -> None:
    mine, slopes, teachers = run(losses_of(tmp_path, SQUARES, opset), LABELLED)
    theirs, expected, _ = run(Losses(kl=0, l2=1), LABELLED)
    assert teachers == []
    assert mine.terms["graph"] == pytest.approx(theirs.terms["l2"], rel=1e-6)
    for name, gradient in expected.items():
        np.testing.assert_allclose(slopes[name], gradient, rtol=1e-4, atol=1e-6 * np.abs(gradient).max())


def test_a_graph_compares_with_the_float_model(tmp_path: Path) -> None:
    inputs = "float[N, 5] y_float, float[N, 5] y"
    text = f"g ({inputs}) => (float s) {{ d = Sub (y, y_float) a = Abs (d) s = {SUM} (a) }}"
    found, _, teachers = run(losses_of(tmp_path, text))
    assert teachers == ["y"]
    assert 0 < found.terms["graph"] < 1


def test_means_that_changed_with_operator_sets(tmp_path: Path) -> None:
    """ReduceMean has its axes as an attribute up to opset 17, as an input from 18 on."""
    mean = "ReduceMean <axes = [1], keepdims = 0>"
    text = f"g (float[N, 5] y) => (float s) {{ p = Mul (y, y) m = {mean} (p) s = {SUM} (m) }}"
    found, _, _ = run(losses_of(tmp_path, text, 13))
    assert found.terms["graph"] == pytest.approx(np.square(found.outputs["y"]).mean(1).sum(), rel=1e-5)


def test_a_graph_may_return_a_loss_for_each_sample(tmp_path: Path) -> None:
    text = "g (float[N, 5] y) => (float[N] s) { s = ReduceMax <axes = [1], keepdims = 0> (y) }"
    found, _, _ = run(losses_of(tmp_path, text))
    assert found.terms["graph"] == pytest.approx(found.outputs["y"].max(1).sum(), rel=1e-6)


def test_a_graph_counts_by_its_weight_beside_others(tmp_path: Path) -> None:
    text = "g (float[N, 5] y) => (float s) { p = Mul (y, y) s = ReduceSum <keepdims = 0> (p) }"
    alone, once, _ = run(losses_of(tmp_path, text))
    _, divergence, _ = run(Losses())
    both, slopes, _ = run(losses_of(tmp_path, text, weight=3.0, kl=1.0))
    assert both.terms["graph"] == alone.terms["graph"]
    largest = max(np.abs(gradient).max() for gradient in slopes.values())
    for name, gradient in slopes.items():
        np.testing.assert_allclose(gradient, divergence[name] + 3 * once[name], atol=1e-5 * largest)


def test_what_a_graph_cannot_have_is_refused(tmp_path: Path) -> None:
    unknown = "g (float[N, 5] ys) => (float s) { s = ReduceSum <keepdims = 0> (ys) }"
    with pytest.raises(ModelError, match=r"takes 'ys', and there are y, y_float, labels; did you mean 'y'"):
        run(losses_of(tmp_path, unknown))
    two = (
        "g (float[N, 5] y) => (float s, float t) { s = ReduceSum <keepdims = 0> (y) t = ReduceMean <keepdims = 0> (y) }"
    )
    with pytest.raises(ModelError, match="the loss graph has 2 outputs; it is to return one number"):
        run(losses_of(tmp_path, two))
    with pytest.raises(ConfigError, match="compares with labels, and there are none"):
        run(losses_of(tmp_path, SQUARES))
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        run(Losses(graph=str(tmp_path / "missing.onnx")))


@pytest.mark.parametrize("losses", [Losses(kl=0, cross_entropy=1), Losses(l1=1), Losses(l2=1)])
def test_losses_that_compare_with_labels_need_them(losses: Losses) -> None:
    assert losses.needs_labels
    with pytest.raises(ConfigError, match="compares with labels, and there are none: give labels, or take"):
        run(losses)


def test_features_that_the_model_does_not_have_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no float tensor 'rr' in the model; did you mean 'r'"):
        run(Losses(features=1, feature_names=("rr",)))


def test_settings_of_losses_are_checked() -> None:
    assert Losses.from_dict(Losses(kl=0, features=2, feature_names=("a",)).to_dict()) == Losses(
        kl=0, features=2, feature_names=("a",)
    )
    assert Losses().to_dict() == {}
    assert not Losses().needs_labels
    for wrong, message in (
        ({"kl": 0}, "all weights are 0"),
        ({"kl": -1}, "losses kl"),
        ({"temperature": 0}, "losses temperature"),
        ({"feature_names": ["a"]}, "feature_names have no effect"),
        ({"cross_entropie": 1}, "unknown term 'cross_entropie'; did you mean 'cross_entropy'"),
        ({"graph": ""}, "losses graph"),
    ):
        with pytest.raises(ConfigError, match=message):
            Losses.from_dict(wrong)
