"""The judged agreement with aimet-onnx 2.42 on the real models, where it is installed: encodings of either simulation
load strictly into the other, in every version of the format, and the outputs agree.

aimet-onnx needs an environment of its own; with pytest and our dependencies added:

    PYTHONPATH=. python -m pytest -o addopts="" tests/conformance/test_aimet_simulation.py -s

-s shows how close the outputs are. With `exact=True` they are ours to the bit, or nearly; of the fast session 40 dB
cannot be asked for: it rounds ties to even and sums up in another order, and a network of many layers makes one code
that differs into thousands.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from peers import peer
from real_tasks import protocol_module

import quark_onnx
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from quark_onnx.stages.prepare import prepare

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.assets, pytest.mark.slow]

ROOT = Path(quark_onnx.__file__).parent
CONFIG = ROOT / "quantsim" / "default_config.json"
MODELS = ("mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb")
LAYERS = ("mobilenet-imagenet", "resnet20-cifar10")  # with BatchNormalizations, which are folded first
VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
LEAST = 40.0
CALIBRATION, EVALUATION = 12, 8

each_model = pytest.mark.parametrize("name", MODELS)
each_version = pytest.mark.parametrize("version", VERSIONS)

Feeds = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def aimet() -> Iterator[ModuleType]:
    """The simulation of aimet-onnx, or a skip that tells why."""
    module = peer("aimet-onnx", "aimet_onnx.quantsim")
    logging.disable(logging.WARNING)
    yield module
    logging.disable(logging.NOTSET)


@cache
def tasks() -> ModuleType:
    return protocol_module()


@cache
def case(name: str) -> tuple[onnx.ModelProto, Feeds, Feeds]:
    """The float model that both simulate, and samples to calibrate with and to compare at."""
    task = tasks().TASKS[name]
    model = prepare(io.load(str(task.model)), opset=13, optimize=name in LAYERS).model
    feeds = task.calib(CALIBRATION + EVALUATION)
    return io.to_proto(model), feeds[:CALIBRATION], feeds[CALIBRATION:]


@cache
def ours(name: str) -> QuantizationSimModel:
    """Our exact simulation with encodings of its own."""
    proto, calibration, _ = case(name)
    sim = QuantizationSimModel(proto, exact=True)
    sim.compute_encodings(calibration)
    return sim


def theirs(aimet: ModuleType, name: str, model: onnx.ModelProto | None = None) -> Any:
    """AIMET's simulation of the same model and configuration; encodings are still open."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case(name)[0] if model is None else model)
    return aimet.QuantizationSimModel(proto, config_file=str(CONFIG))


@cache
def computed(aimet: ModuleType, name: str) -> Any:
    """The same with encodings of its own."""
    sim = theirs(aimet, name)
    sim.compute_encodings(case(name)[1])
    return sim


def outputs(session: Any, feeds: Feeds) -> np.ndarray:
    return np.concatenate([session.run(None, feed)[0].ravel() for feed in feeds])


def agreement(title: str, name: str, exact: Any, fast: Any, aimet: Any) -> float:
    """dB by which our exact session agrees with AIMET's; it is printed, the fast session's beside it."""
    feeds = case(name)[2]
    want = outputs(aimet, feeds)
    assert np.isfinite(want).all()
    found, quick = (-decibels(outputs(session, feeds), want) for session in (exact, fast))
    print(f"\n{name}, {title}: exact {found:.1f} dB, fast {quick:.1f} dB")
    return found


def decibels(got: np.ndarray, want: np.ndarray) -> float:
    """Noise below the signal; 320 below is the same to the bit."""
    noise = np.square(got.astype(np.float64) - want).mean() / np.square(want, dtype=np.float64).mean()
    return float(10 * np.log10(max(noise, 1e-32)))


@each_version
@each_model
def test_what_we_write_loads_into_aimet(aimet: ModuleType, tmp_path: Path, name: str, version: str) -> None:
    """With strict=True, beside the model that we write; and the simulations agree.

    Without int32 biases: a strict simulation whose biases are float refuses them, also in AIMET's own files.
    """
    ours(name).export(tmp_path, "ours", encoding_version=version, export_int32_bias=False)
    sim = theirs(aimet, name, onnx.load(tmp_path / "ours.onnx"))
    assert aimet.load_encodings_to_sim(sim, str(tmp_path / "ours.encodings"), strict=True) == []
    fast = QuantizationSimModel(case(name)[0])
    assert load_encodings_to_sim(fast, tmp_path / "ours.encodings") == []
    title = f"ours in AIMET, {version}"
    assert agreement(title, name, ours(name).session, fast.session, sim.session) >= LEAST


@each_version
@each_model
def test_what_aimet_writes_loads_into_ours(aimet: ModuleType, tmp_path: Path, name: str, version: str) -> None:
    """With strict=True, and the simulations agree."""
    sim = computed(aimet, name)
    sim.export(str(tmp_path), "aimet", export_model=False, encoding_version=version)
    exact, fast = (QuantizationSimModel(case(name)[0], exact=exact) for exact in (True, False))
    assert load_encodings_to_sim(exact, tmp_path / "aimet.encodings") == []
    assert load_encodings_to_sim(fast, tmp_path / "aimet.encodings") == []
    title = f"AIMET's in ours, {version}"
    assert agreement(title, name, exact.session, fast.session, sim.session) >= LEAST


@each_model
def test_the_simulations_have_the_same_quantizers(aimet: ModuleType, name: str) -> None:
    """On, with the width, the symmetry and the number of scales that AIMET gives them."""
    sim = computed(aimet, name)
    on = {t: q for t, q in sim.qc_quantize_op_dict.items() if q.enabled}
    own = {t: q for t, q in ours(name).qc_quantize_op_dict.items() if q.enabled}
    assert own.keys() == on.keys()
    for tensor, quantizer in own.items():
        found, wanted = quantizer.get_encodings(), on[tensor].get_encodings()
        assert found is not None
        assert (quantizer.bitwidth, len(found)) == (on[tensor].bitwidth, len(wanted)), tensor
        assert quantizer.use_symmetric_encodings == on[tensor].use_symmetric_encodings, tensor
