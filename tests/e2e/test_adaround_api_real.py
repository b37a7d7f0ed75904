"""AIMET's workflow with AdaRound on mobilenet: fold, equalize, round, simulate with frozen encodings, score."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from quark_onnx.numerics.quant import dequantize
from quark_onnx.quantsim import QuantizationSimModel
from quark_onnx.quantsim.adaround import Adaround, AdaroundParameters
from quark_onnx.quantsim.equalization import equalize_model
from quark_onnx.quantsim.fold import fold_all_batch_norms

PRESET = 0.580
"""Top-1 of S8S8_AAWS_ADAROUND on this task, 8 bits per tensor; float: .591."""


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "config", "least"),
    [(8, "default_per_tensor", PRESET - 0.005), (4, None, 0.525)],
    ids=["8 bits per tensor", "4 bits per channel"],
)
def test_mobilenet(protocol: ModuleType, tmp_path: Path, bits: int, config: str | None, least: float) -> None:
    """Measured: .580 and .535; rounded to nearest .149 and .001."""
    task = protocol.TASKS["mobilenet-imagenet"]
    feeds = task.calib(200)
    params = AdaroundParameters(feeds, num_batches=len(feeds))
    model = fold_all_batch_norms(task.model) if config is None else equalize_model(task.model, feeds)
    model = Adaround.apply_adaround(
        model, feeds[0], params, tmp_path, "m", default_param_bw=bits, default_config_file=config
    )
    sim = QuantizationSimModel(model, default_param_bw=bits, config_file=config)
    sim.set_and_freeze_param_encodings(tmp_path / "m.encodings")
    sim.compute_encodings(feeds)
    simulated = tmp_path / "simulated.onnx"
    onnx.save(sim.model, simulated)
    assert task.score(simulated, False)["score"] >= least
    plan, given = sim.plan, {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    frozen = [tensor for tensor in plan.codes if sim.quantizer(tensor).is_encoding_frozen()]
    assert len(frozen) == 28
    for tensor in frozen:
        held = dequantize(plan.codes[tensor].codes, plan.qparams_of(tensor), plan.sites[tensor].format)
        np.testing.assert_array_equal(held, given[tensor])
