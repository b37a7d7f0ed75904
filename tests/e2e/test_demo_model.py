"""The demo model as shipped: its accuracy, its operators, its names, and what happens without scikit-learn."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from quark_onnx.core.errors import DataError
from quark_onnx.demo import MODEL, digits

MEASURED = 592  # right answers of 599 where the model was trained; another machine's rounding may cost one


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    return onnx.load(MODEL)


def test_split_is_every_third_sample() -> None:
    from sklearn.datasets import load_digits

    train_x, train_y, test_x, test_y = digits()
    data = load_digits()
    assert (train_x.shape, test_x.shape) == ((1198, 1, 8, 8), (599, 1, 8, 8))
    assert (train_x.dtype, train_y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(test_y, data.target[::3])
    np.testing.assert_array_equal(test_x[:, 0], data.images[::3] / 8 - 1)
    np.testing.assert_array_equal(train_x[:2, 0], data.images[1:3] / 8 - 1)
    np.testing.assert_array_equal(train_y[:4], data.target[[1, 2, 4, 5]])
    assert (train_x.min(), train_x.max()) == (-1, 1)


def test_float_accuracy(session: ort.InferenceSession) -> None:
    _, _, images, labels = digits()
    (logits,) = session.run(["logits"], {"input": images})
    assert (logits.argmax(1) == labels).sum() >= MEASURED - 1


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_is_dynamic(session: ort.InferenceSession, batch: int) -> None:
    images = digits()[2][:7]
    (whole,) = session.run(None, {"input": images})
    (part,) = session.run(None, {"input": images[:batch]})
    assert part.shape == (batch, 10)
    np.testing.assert_allclose(part, whole[:batch], rtol=1e-4, atol=1e-4)


def test_interface(session: ort.InferenceSession) -> None:
    ((source,), (target,)) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape) == ("input", "tensor(float)", ["batch", 1, 8, 8])
    assert (target.name, target.type, target.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_graph(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto, full_check=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert Counter(node.op_type for node in proto.graph.node) == {
        "Conv": 9,
        "BatchNormalization": 9,
        "Clip": 9,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    convs = {node.name: {a.name: a for a in node.attribute} for node in proto.graph.node if node.op_type == "Conv"}
    blocks = [f"block{index}.{part}.conv" for index in range(1, 5) for part in ("dw", "pw")]
    assert list(convs) == ["stem.conv", *blocks]
    assert [name for name, attributes in convs.items() if attributes["group"].i > 1] == blocks[::2]
    assert [name for name, attributes in convs.items() if attributes["strides"].ints[0] == 2] == ["block2.dw.conv"]
    assert 100_000 < MODEL.stat().st_size < 350_000


def test_without_scikit_learn_the_error_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'quark-onnx\[demo\]'"):
        digits()
