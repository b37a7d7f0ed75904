"""AIMET's tools for the float model on real ones: outputs stay, and the simulation gets better step by step."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import onnx
import pytest

from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms
from quark_onnx.quantsim.bias_correction import QuantParams, correct_bias
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.cross_layer_equalization import equalize_model
from quark_onnx.quantsim.simulated_model import begin
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

pytestmark = pytest.mark.assets

SAMPLES = 20
PER_TENSOR = "default_per_tensor"


def outputs(model: Model, feeds: list[Feed]) -> np.ndarray:
    runner = Runner(model, threads=1, fuse=False)
    return np.concatenate([runner(feed)[0] for feed in feeds])


def simulated(model: onnx.ModelProto, feeds: list[Feed]) -> Model:
    start = begin(model, PER_TENSOR, QuantScheme.post_training_tf_enhanced, 8, 8)
    statistics = observe(start.model, feeds, observed_tensors(start.plan), lambda done: None)
    return apply(start.model, choose_ranges(start.model, start.plan, statistics, start.ranges))


@pytest.mark.parametrize("name", ["mobilenet-imagenet", "resnet20-cifar10"])
def test_folding_keeps_outputs(protocol: ModuleType, name: str) -> None:
    """Measured: 112 and 130 dB."""
    task = protocol.TASKS[name]
    model, feeds = fold_all_batch_norms(task.model), task.calib(8)
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    layers = {node.name: node for node in onnx.load(task.model).graph.node if node.op_type == "Conv"}
    assert all(layers[node.name].output == node.output for node in model.graph.node if node.op_type == "Conv")
    assert protocol.sqnr_db(outputs(io.load(task.model), feeds), outputs(io.load(model), feeds)) >= 100


@pytest.mark.slow
def test_every_step_helps_mobilenet(protocol: ModuleType) -> None:
    """8 bits per tensor, signal-to-noise ratio on other images; measured: −0.1, 2.7 and 8.6 dB."""
    task = protocol.TASKS["mobilenet-imagenet"]
    feeds, others = task.calib(SAMPLES), task.calib(140)[100:]
    want = outputs(io.load(task.model), others)
    model = fold_all_batch_norms(task.model)
    ratios = [protocol.sqnr_db(want, outputs(simulated(model, feeds), others))]
    equalize_model(model, feeds)
    same = outputs(io.load(task.model), feeds), outputs(io.load(model), feeds)
    assert protocol.sqnr_db(*same) >= 80
    ratios.append(protocol.sqnr_db(want, outputs(simulated(model, feeds), others)))
    correct_bias(model, QuantParams(config_file=PER_TENSOR), SAMPLES, feeds, SAMPLES)
    ratios.append(protocol.sqnr_db(want, outputs(simulated(model, feeds), others)))
    assert ratios[1] > ratios[0] + 1
    assert ratios[2] > ratios[1] + 4
