"""AIMET's AdaRound guide (2.8 and on): 4-bit weights rounded in the simulation, then encodings of the activations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from quark_onnx import AdaRound
from quark_onnx.quantsim import QuantizationSimModel, fine_tune, fold_all_batch_norms


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    import quark_onnx.quantsim as aimet_onnx
    from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms_to_weight
    from quark_onnx.quantsim.common.defs import QuantScheme
    from quark_onnx.quantsim.quantsim import QuantizationSimModel

    onnx_model = onnx.load(model)
    _ = fold_all_batch_norms_to_weight(onnx_model)
    input_name = onnx_model.graph.input[0].name
    onnx_data = [{input_name: samples[i : i + 8]} for i in range(0, 24, 8)]
    sim = QuantizationSimModel(
        onnx_model,
        quant_scheme=QuantScheme.min_max,
        param_type=aimet_onnx.int4,
        activation_type=aimet_onnx.int8,
        providers=["CPUExecutionProvider"],
    )
    aimet_onnx.apply_adaround(sim, onnx_data, num_iterations=20)
    sim.compute_encodings(onnx_data)
    sim.export(path=".", filename_prefix="adaround")
    onnx.save(sim.to_onnx_qdq(), "qdq.onnx")
    return [folder / "adaround.encodings", folder / "adaround.onnx", folder / "qdq.onnx"]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    data = [samples[i : i + 8] for i in range(0, 24, 8)]
    sim = QuantizationSimModel(fold_all_batch_norms(model), quant_scheme="tf", default_param_bw=4, default_output_bw=8)
    sim.compute_encodings(data)
    fine_tune(sim, data, AdaRound(num_iterations=20, target_op_type=("Conv", "ConvTranspose", "Gemm", "MatMul")))
    sim.compute_encodings(data)
    sim.export(folder, "adaround")
    onnx.save(sim.to_onnx_qdq(), folder / "qdq.onnx")
    return [folder / "adaround.encodings", folder / "adaround.onnx", folder / "qdq.onnx"]
