"""AutoQuant on a real classifier, with few samples and few images: every step is needed, and the last one is enough."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from quark_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from quark_onnx.quantsim.adaround.adaround_weight import AdaroundParameters
from quark_onnx.quantsim.auto_quant_v2 import AutoQuant

SAMPLES, IMAGES, DROP = 64, 500, 0.01
SETTINGS: dict[str, Any] = {"config_file": "default_per_tensor"}


@pytest.mark.assets
@pytest.mark.slow
def test_four_bits_per_tensor(protocol: ModuleType, tmp_path: Path) -> None:
    """Measured: float .782; as it is .720, folded .740, equalized .746, rounded .792; float weights .784."""
    task = protocol.TASKS["resnet20-cifar10"]
    feeds, data = task.calib(SAMPLES), np.load(protocol.ASSETS / "cifar10.npz")
    x, labels = protocol._cifar(data["test"][:IMAGES]), data["label"][:IMAGES]

    def top_1(session: Any) -> float:
        return float((session.run(None, {"input": x})[0].argmax(1) == labels).mean())

    auto = AutoQuant(task.model, None, feeds, top_1, param_bw=4, results_dir=tmp_path, **SETTINGS)
    auto.set_adaround_params(AdaroundParameters(feeds, SAMPLES, 200))
    model, accuracy, path = auto.optimize(DROP)
    found = {stage.name: stage.accuracy or 0.0 for stage in auto.stages}
    assert list(found)[-4:] == ["w32_evaluation", "batchnorm_folding", "cross_layer_equalization", "adaround"]
    assert auto.applied[-1] == "adaround"
    assert auto.target_met and not auto.w32_below_target
    assert accuracy == found["adaround"] > found["cross_layer_equalization"] + 0.01
    assert found["float"] - DROP <= accuracy
    assert all(op.op_type != "BatchNormalization" for op in model.graph.node)

    sim = QuantizationSimModel(onnx.load(tmp_path / "auto_quant.onnx"), default_param_bw=4, **SETTINGS)
    assert load_encodings_to_sim(sim, path) == []
    assert top_1(sim.session) == accuracy
