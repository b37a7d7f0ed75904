"""Encodings files between us and aimet-onnx 2.42, where it is installed: theirs read and written again, ours loaded
with strict=True, and the outputs of both simulations.

aimet-onnx needs an environment of its own; with pytest and our dependencies added:

    PYTHONPATH=. python -m pytest tests/conformance/test_aimet_encodings.py -s

-s shows how close the outputs are.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_text import parse_model
from peers import peer

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.encodings import adapted, document, from_plan, into_plan, losses, read, write
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.passes import infer_shapes, lift_constants, name_nodes
from quark_onnx.stages.place import place
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

pytestmark = pytest.mark.filterwarnings("ignore")

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
each_version = pytest.mark.parametrize("version", VERSIONS)

TEXT = """<ir_version: 10, opset_import: ["": 21]> g (float[1, 3, 8, 8] x) => (float[1, 4] y)
<int64[2] sh = {1, 8}, float[4, 3, 3, 3] w, float[4] b, float[4, 2, 2, 2] wt, float[8, 6] fc, float[6] fcb,
 float[6, 4] mm>
{
    c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (c)
    t = ConvTranspose <strides = [2, 2]> (r, wt)
    g = GlobalAveragePool (t)
    k = Concat <axis = 1> (g, g, g, g)
    f = Reshape (k, sh)
    h = Gemm (f, fc, fcb)
    y = MatMul (h, mm)
}"""
SHAPES = {"w": (4, 3, 3, 3), "b": (4,), "wt": (4, 2, 2, 2), "fc": (8, 6), "fcb": (6,), "mm": (6, 4)}
AXES = {"w": (0, 1), "wt": (1, 0), "fc": (1, 0), "mm": (-1, -2)}


@pytest.fixture(scope="module")
def aimet() -> ModuleType:
    """The simulation of aimet-onnx, or a skip that tells why."""
    module = peer("aimet-onnx", "aimet_onnx.quantsim")
    logging.disable(logging.WARNING)
    return module


def proto() -> onnx.ModelProto:
    model = parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        numbers = rng.standard_normal(shape).astype(np.float32) * (0.1 if len(shape) == 1 else 0.5)
        model.graph.initializer.append(onnx.numpy_helper.from_array(numbers, name))
    onnx.checker.check_model(model, full_check=True)
    return model


FEEDS = [{"x": np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)} for seed in range(16)]


def simulation(aimet: ModuleType, config: str = "htp_v81", blocks: bool = False) -> Any:
    sim = aimet.QuantizationSimModel(proto(), config_file=config)
    if blocks:
        layers = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
        aimet.set_blockwise_quantization_for_weights(sim, layers, 4, True, 2)
    return sim


def exported(sim: Any, folder: Path, version: str) -> Path:
    sim.export(str(folder), "aimet", export_model=False, encoding_version=version)
    return folder / "aimet.encodings"


def by_name(content: dict[str, Any]) -> dict[str, Any]:
    """A document whose lists of entries are compared whatever their order."""
    lists = {key: {e["name"]: e for e in value} for key, value in content.items() if isinstance(value, list)}
    return content | lists


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(b**2) / max(np.mean((a - b) ** 2), 1e-30)))


def told(title: str, ours: Model, sim: Any) -> float:
    """How well the outputs of both simulations agree, over all feeds; it is printed.

    Ours adds biases of 32 bits, AIMET's float ones: now and then a code differs by one.
    """
    runner = Runner(ours, optimized=False, threads=1)
    pairs = [(runner(feed)[0], sim.session.run(None, feed)[0]) for feed in FEEDS]
    found = decibels(*(np.stack(outputs) for outputs in zip(*pairs, strict=True)))
    print(f"\n{title}: {found:.1f} dB")
    return found


def ours(**fields: Any) -> tuple[Model, Plan]:
    """The float model and a plan with ranges."""
    model = io.load(proto())
    lift_constants(model)
    infer_shapes(model)
    name_nodes(model)
    config = QuantizationConfig(activation_type="uint8", weight_type="int8", **fields)
    plan = place(model, config)
    return model, choose_ranges(model, plan, observe(model, FEEDS, observed_tensors(plan), lambda done: None), config)


STRICT = {
    "defaults": {
        "ops": {"is_output_quantized": "True", "is_symmetric": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "strict_symmetric": "True",
        "unsigned_symmetric": "True",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {},
}


@each_version
@pytest.mark.parametrize("kind", ["channels", "blocks", "strict"])
def test_what_aimet_writes_is_written_again(aimet: ModuleType, tmp_path: Path, version: str, kind: str) -> None:
    """Every field and every digit."""
    path = tmp_path / "strict.json"
    path.write_text(json.dumps(STRICT), encoding="utf-8")
    sim = simulation(aimet, str(path) if kind == "strict" else "htp_v81", kind == "blocks")
    sim.compute_encodings(FEEDS)
    file = read(exported(sim, tmp_path, version))
    assert losses(file) == []
    assert by_name(document(file)) == by_name(json.loads((tmp_path / "aimet.encodings").read_text("utf-8")))


@each_version
@pytest.mark.parametrize("per_channel", [False, True])
def test_aimet_loads_what_we_write(aimet: ModuleType, tmp_path: Path, version: str, per_channel: bool) -> None:
    """With strict=True, where the same tensors are quantized; then both simulations agree."""
    model, plan = ours(per_channel=per_channel)
    file = adapted(from_plan(plan, SHAPES), relaxed=True, unsigned=True, biases=False, without=["f"])
    write(file, tmp_path / "ours.encodings", version)
    sim = simulation(aimet)
    for name, quantizer in sim.qc_quantize_op_dict.items():
        quantizer.enabled = name in file.all
        if name in file.parameters and not per_channel:
            quantizer.enable_per_channel_quantization(False)
    assert file.all.keys() <= sim.qc_quantize_op_dict.keys()
    assert aimet.load_encodings_to_sim(sim, str(tmp_path / "ours.encodings"), strict=True) == []
    assert told(f"ours in AIMET, {version}, per channel {per_channel}", apply(model, plan), sim) >= 40


@each_version
@pytest.mark.parametrize("blocks", [False, True])
def test_we_load_what_aimet_writes(aimet: ModuleType, tmp_path: Path, version: str, blocks: bool) -> None:
    """Into a plan of other ranges, and with blocks other formats."""
    if blocks and version == "0.6.1":
        pytest.skip("0.6.1 has no blocks")
    sim = simulation(aimet, blocks=blocks)
    sim.compute_encodings(FEEDS)
    model, plan = ours(per_channel=True)
    file = read(exported(sim, tmp_path, version), SHAPES)
    merged = into_plan(plan, file, SHAPES, AXES)
    assert (merged.missing, merged.foreign) == ((), ())
    assert [loss.tensors for loss in merged.losses] == [("fcb",)] * blocks  # AIMET cuts no kernels with 3 inputs
    assert told(f"AIMET's in ours, {version}, blocks {blocks}", apply(model, merged.plan), sim) >= 40
