"""AIMET's encodings, there and back: export, load into another simulation, and a QDQ model made of the two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from quark_onnx.quantsim import QuantizationSimModel

FILES = ("first.onnx", "first.encodings", "second.encodings", "qdq.onnx")


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    from quark_onnx.quantsim import encodings_to_onnx_qdq, int8, int16
    from quark_onnx.quantsim.quantsim import QuantizationSimModel, load_encodings_to_sim

    sim = QuantizationSimModel(onnx.load(model), param_type=int8, activation_type=int16)
    sim.compute_encodings(inputs=({"input": samples[i : i + 8]} for i in range(0, 24, 8)))
    sim.export("./", "first", export_model=True)
    again = QuantizationSimModel(onnx.load("first.onnx"), param_type="int8", activation_type="int16")
    assert load_encodings_to_sim(again, "./first.encodings", strict=True) == []
    again.export("./", "second", export_model=False)
    onnx.save(encodings_to_onnx_qdq(onnx.load("first.onnx"), "first.encodings"), "qdq.onnx")
    return [folder / name for name in FILES]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    sim = QuantizationSimModel(model, quant_scheme="min_max", default_output_bw=16)
    sim.compute_encodings(samples[i : i + 8] for i in range(0, 24, 8))
    for name in ("first", "second"):
        sim.export(folder, name, export_model=name == "first")
    onnx.save(sim.to_onnx_qdq(), folder / "qdq.onnx")
    return [folder / name for name in FILES]
