"""Samples of all kinds that `quantize` takes: float16, random ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx.optimize import Budget, optimize

TEXT = """g (TYPE[N, 8] x) => (TYPE[N, 3] z) { [first] y = MatMul (x, w) [second] z = MatMul (y, v) }"""


def model_of(dtype: type) -> onnx.ModelProto:
    text = TEXT.replace("TYPE", "float16" if dtype is np.float16 else "float")
    return text_model(text, w=normal(8, 6).astype(dtype), v=normal(6, 3).astype(dtype))


@pytest.mark.parametrize("count", [4, 24])
def test_float16_models_are_judged_as_float32(count: int) -> None:
    found = optimize(model_of(np.float16), list(normal(count, 1, 8).astype(np.float16)), Budget(min_sqnr=25))
    assert found.met and found.point.sqnr is not None and found.point.sqnr >= 25
    assert found.samples == ((4, 4) if count == 4 else (20, 4))


def test_random_data_are_drawn_once() -> None:
    found = optimize(model_of(np.float32), None, Budget(min_sqnr=20), options={"UseRandomData": True})
    assert found.met and "RANDOM" in " ".join(found.warnings)
    assert not found.point.configuration.option("UseRandomData")  # of the same samples it makes the same model
