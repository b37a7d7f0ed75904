"""AIMET's CLE notebook and SeqMSE guide: channels evened out, weight scales by output error, a calibrating block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from quark_onnx.quantsim import QuantizationSimModel, apply_seq_mse, equalize_model


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    import quark_onnx.quantsim as aimet_onnx
    from quark_onnx.quantsim.cross_layer_equalization import equalize_model
    from quark_onnx.quantsim.sequential_mse.seq_mse import apply_seq_mse

    onnx_model = onnx.load_model(model)
    equalize_model(onnx_model)
    sim = aimet_onnx.QuantizationSimModel(onnx_model, param_type=aimet_onnx.int4, activation_type=aimet_onnx.int8)
    input_name = onnx_model.graph.input[0].name
    unlabeled_data = [{input_name: samples[i : i + 8]} for i in range(0, 24, 8)]
    apply_seq_mse(sim, unlabeled_data, num_candidates=10)
    with aimet_onnx.compute_encodings(sim):
        for feed in unlabeled_data:
            _ = sim.session.run(None, feed)
    sim.export(path=".", filename_prefix="seq_mse", encoding_version="2.0.0")
    return [folder / "seq_mse.encodings", folder / "seq_mse.onnx"]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    data = [samples[i : i + 8] for i in range(0, 24, 8)]
    sim = QuantizationSimModel(equalize_model(model), quant_scheme="tf", default_param_bw=4)
    apply_seq_mse(sim, data, 10)
    sim.compute_encodings(data)
    sim.export(folder, "seq_mse", encoding_version="2.0.0")
    return [folder / "seq_mse.encodings", folder / "seq_mse.onnx"]
