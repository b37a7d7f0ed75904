"""known-dims: parts of shapes whose dimensions are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model

from quark_onnx.stages.prepare import Prepared

TEXT = """g (float[N,4,6] x, int64[1] i) => (int64[A] y, float[N,4,6] r) {
    s = Shape (x) [n] d = PART y = Add (d, one) r = Relu (x) }"""


def parts(part: str, **constants: np.ndarray) -> tuple[onnx.ModelProto, Prepared]:
    proto = text_model(TEXT.replace("PART", part), one=np.array([1]), **constants)
    return proto, prepared(proto)


@pytest.mark.parametrize("index", [1, -1, [1], [2, 1, 1]])
def test_gather(index: int | list[int]) -> None:
    proto, result = parts("Gather (s, k)", k=np.array(index))
    assert applied(result, "known-dims") == ["n"]
    assert ops(result)["Shape"] == 0
    assert_same(proto, result, {"x": normal(2, 4, 6), "i": np.array([1])}, terms=0)


@pytest.mark.parametrize(("start", "end"), [(1, 3), (-2, 2**63 - 1), (-1, 3), (1, 1)])
def test_slice(start: int, end: int) -> None:
    proto, result = parts("Slice (s, a, b)", a=np.array([start]), b=np.array([end]))
    assert applied(result, "known-dims") == ["n"]
    assert_same(proto, result, {"x": normal(2, 4, 6), "i": np.array([1])}, terms=0)


@pytest.mark.parametrize(("attributes", "index"), [("start = 1", 0), ("start = 1, end = 2", 0), ("end = -1", 1)])
def test_part_by_attributes(attributes: str, index: int) -> None:
    text = TEXT.replace("Shape (x)", f"Shape <{attributes}> (x)").replace("PART", "Gather (s, k)")
    proto = text_model(text, one=np.array([1]), k=np.array([index]))
    assert_same(proto, prepared(proto), {"x": normal(2, 4, 6), "i": np.array([1])}, terms=0)


@pytest.mark.parametrize(
    ("part", "constants", "reason"),
    [
        ("Gather (s, k)", {"k": [0]}, "the dimensions are not known"),
        ("Slice (s, k, e)", {"k": [0], "e": [2]}, "the dimensions are not known"),
        ("Gather (s, i)", {}, "which dimensions it takes is not constant"),
        ("Slice (s, i, k)", {"k": [3]}, "which dimensions it takes is not constant"),
        ("Slice (s, k, e, z, t)", {"k": [2], "e": [0], "z": [0], "t": [-1]}, "which dimensions it takes"),
        ("Gather (i, k)", {"k": [0]}, "it is not a part of a shape"),
    ],
)
def test_negative(part: str, constants: dict[str, list[int]], reason: str) -> None:
    proto, result = parts(part, **{name: np.array(value) for name, value in constants.items()})
    assert len(reasons(result, "known-dims")) == 1
    assert reasons(result, "known-dims")[0].startswith(reason)
    assert_same(proto, result, {"x": normal(2, 4, 6), "i": np.array([1])}, terms=0)


def test_a_dimension_that_does_not_exist() -> None:
    _, result = parts("Gather (s, k)", k=np.array([3]))
    assert reasons(result, "known-dims") == ["which dimensions it takes is not constant"]
