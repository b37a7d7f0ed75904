"""Simulated placement on the real models: every site gets a range, and the simulation runs."""

from __future__ import annotations

from types import ModuleType

import pytest
from quantized_models import first_outputs

from quark_onnx.core.settings.aimet_runtime_config import load_runtime_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.graph import io
from quark_onnx.stages.prepare import prepare
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.simulated_placement import simulated_sites

SAMPLES = 8

EXPECTED = {  # sites, sites whose values a mask constant rules, least signal-to-noise ratio in dB
    "mobilenet-imagenet": (73, 0, 10.0),
    "resnet20-cifar10": (53, 0, 28.0),
    "minilm-stsb": (212, 9, 5.0),
}


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_every_site_gets_a_range_and_the_simulation_runs(protocol: ModuleType, name: str) -> None:
    """Measured: 11.4, 30.4 and 6.2 dB. Masks of −3.4e38 are refused (decision 005), and what they are added to."""
    sites, masked, least = EXPECTED[name]
    task = protocol.TASKS[name]
    model = prepare(io.load(task.model), opset=13, optimize=name != "minilm-stsb").model
    plan = simulated_sites(model, load_runtime_config()).plan
    assert len(plan.sites) == sites
    feeds = task.calib(SAMPLES)
    statistics = observe(model, feeds, observed_tensors(plan), lambda done: None)
    ranged = choose_ranges(model, plan, statistics, QuantizationConfig())
    assert len(plan.sites) - len(ranged.sites) == masked
    refused = [reason for node, reason in ranged.notes.items() if node not in plan.notes]
    assert all("a mask constant would rule the range" in reason for reason in refused)
    simulation = apply(model, ranged)
    io.check(simulation)
    want, got = (first_outputs(m, feeds) for m in (model, simulation))
    assert protocol.sqnr_db(want, got) >= least
