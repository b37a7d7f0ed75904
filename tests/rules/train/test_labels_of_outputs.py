"""Labels that a loss cannot read are refused, with the way out; a graph would take most of them without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.labels import LABELS, opened_labels
from quark_onnx.graph import io
from quark_onnx.stages.train.labels_of_outputs import refuse_misfit

CLASSES = "g (float[N,4] x) => (int64[1] n, float[N,3] y) { n = Size (x) y = MatMul (x, w) }"
TOKENS = "g (float[N,5,4] x) => (float[N,5,3] y) { y = MatMul (x, w) }"
PIXELS = "g (float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Softmax <axis = 1> (x) }"
IDS = np.array([0, 1, 2, 0])
HOT = np.eye(3, dtype=np.float32)[IDS]


def fits(labels: Any, losses: Losses, text: str = CLASSES, shape: tuple[int, ...] = (4,)) -> None:
    found = None if labels is None else opened_labels(labels)
    feeds = [{"x": normal(2, *shape)} | ({} if found is None else {LABELS: found[k : k + 2]}) for k in (0, 2)]
    refuse_misfit(io.load(text_model(text, w=normal(4, 3))), keep(feeds), found, losses)


@pytest.mark.parametrize(
    ("labels", "losses", "text", "shape"),
    [
        (None, Losses(), CLASSES, (4,)),
        (IDS, Losses(cross_entropy=1), CLASSES, (4,)),
        (HOT, Losses(l2=1), CLASSES, (4,)),
        (HOT, Losses(l1=1, kl=0), CLASSES, (4,)),
        (IDS, Losses(graph="loss.onnx"), CLASSES, (4,)),
        (np.ones((4, 5), int), Losses(cross_entropy=1), TOKENS, (5, 4)),
        (np.ones((4, 4, 4), int), Losses(cross_entropy=1), PIXELS, (3, 4, 4)),
    ],
)
def test_what_fits(labels: Any, losses: Losses, text: str, shape: tuple[int, ...]) -> None:
    fits(labels, losses, text, shape)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            IDS + 1,
            r"1 of 4 labels are no class, first 3 of sample 2: output 'y' .* 0 … 2; they count from 1: pass labels",
        ),
        (IDS - 1, r"2 of 4 labels are no class, first -1 of sample 0: .*; leave such samples out"),
        (IDS * 5, r"2 of 4 labels are no class, first 5 of sample 1"),
        (
            IDS[:, None],
            r"3 classes along axis 1 of \(N, 3\), and the labels have the shape \(N, 1\): pass one for each of",
        ),
        (HOT.astype(int), r"the labels have the shape \(N, 3\): pass labels.argmax\(-1\)"),
        (HOT, r"cross_entropy takes class ids, .* float32: pass labels.argmax\(-1\)"),
        (IDS.astype(float), r"cross_entropy takes class ids, .* float32: pass labels.astype\('int64'\)"),
        (IDS + 0.5, "cross_entropy takes class ids, .* another loss, l2 say"),
    ],
)
def test_class_ids(labels: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        fits(labels, Losses(cross_entropy=1))


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (IDS, "takes numbers that output 'y' is to become, and the labels are int64: pass .* or take cross_entropy"),
        (IDS + 0.5, r"like output 'y', \(N, 3\), and they have the shape \(N\): .* class ids are whole numbers"),
        (HOT[:, :2], r"and they have the shape \(N, 2\): reshape them$"),
    ],
)
def test_numbers(labels: Any, loss: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        fits(labels, Losses(**{loss: 1}))


def test_positions_of_pictures_need_their_classes_where_a_softmax_is() -> None:
    with pytest.raises(
        DataError, match=r"3 classes along axis 1 of \(N, 3, 4, 4\), and the labels have the shape \(N\)"
    ):
        fits(IDS, Losses(cross_entropy=1), PIXELS, (3, 4, 4))


@pytest.mark.parametrize("loss", ["cross_entropy", "l1", "l2"])
def test_losses_that_need_labels(loss: str) -> None:
    with pytest.raises(ConfigError, match=f"the loss {loss} compares with labels, and there are none; pass labels"):
        fits(None, Losses(**{loss: 1}))


def test_labels_that_no_loss_reads() -> None:
    with pytest.raises(ConfigError, match="none of the losses reads them: add cross_entropy"):
        fits(IDS, Losses(kl=1, features=1))


def test_labels_of_positions_that_do_not_count_may_be_anything() -> None:
    """Feeds hold what is left of them."""
    labels = np.array([[0, 1, -100], [2, -100, -100]])
    model = io.load(text_model("g (float[N,T,4] x) => (float[N,T,3] y) { y = MatMul (x, w) }", w=normal(4, 3)))
    cut = [{"x": normal(1, 2, 4), LABELS: labels[:1, :2]}, {"x": normal(1, 1, 4), LABELS: labels[1:, :1]}]
    refuse_misfit(model, keep(cut), labels, Losses(cross_entropy=1))
    whole = [{"x": normal(2, 3, 4), LABELS: labels}]
    with pytest.raises(DataError, match="3 of 6 labels are no class, first -100 of sample 0"):
        refuse_misfit(model, keep(whole), labels, Losses(cross_entropy=1))
