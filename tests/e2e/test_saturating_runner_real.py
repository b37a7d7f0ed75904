"""Whole models by the numpy arithmetic of integer kernels: onnxruntime's outputs to the bit, whichever kind this is."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from saturation import kernels_saturate

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.engine.runner import Runner
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.numerics.saturating_products import exact_product, saturating_product

pytestmark = [pytest.mark.assets, pytest.mark.slow]


@pytest.mark.parametrize("task", ["mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb"])
def test_real_models(protocol: ModuleType, task: str) -> None:
    job = protocol.TASKS[task]
    feeds = job.calib(3)
    made = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(job.model, None, feeds).evidence.quantized
    multiply = saturating_product if kernels_saturate() else exact_product
    with without_vnni(made, multiply=multiply) as run:
        found = run(feeds[0])
    for expected, got in zip(Runner(made)(feeds[0]), found, strict=True):
        np.testing.assert_array_equal(got, expected)
