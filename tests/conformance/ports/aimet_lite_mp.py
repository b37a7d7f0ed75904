"""AIMET's guide to manual mixed precision: sensitivity of the layers, a share of them at 16 bits, encodings anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from quark_onnx.quantsim import (
    QuantizationSimModel,
    analyze_per_layer_sensitivity,
    fold_all_batch_norms,
    make_psnr_eval_fn,
)


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    from quark_onnx.quantsim import analyze_per_layer_sensitivity, compute_encodings, int8, int16
    from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms_to_weight
    from quark_onnx.quantsim.lite_mp import flip_layers_to_higher_precision
    from quark_onnx.quantsim.quantsim import QuantizationSimModel
    from quark_onnx.quantsim.utils import make_psnr_eval_fn

    onnx_model = onnx.load(model)
    fold_all_batch_norms_to_weight(onnx_model)
    fp_session = ort.InferenceSession(onnx_model.SerializeToString(), providers=["CPUExecutionProvider"])
    sim = QuantizationSimModel(onnx_model, param_type=int8, activation_type=int8, providers=["CPUExecutionProvider"])
    input_name = sim.session.get_inputs()[0].name
    with compute_encodings(sim):
        _ = sim.session.run(None, {input_name: samples})
    psnr_eval_fn = make_psnr_eval_fn(fp_session, [{input_name: samples[:4]}])
    layer_sensitivity_dict = analyze_per_layer_sensitivity(sim, eval_fn=psnr_eval_fn)
    flip_layers_to_higher_precision(sim, layer_sensitivity_dict, 10, int16)
    with compute_encodings(sim):
        _ = sim.session.run(None, {input_name: samples})
    sim.export(path=".", filename_prefix="mixed")
    return [folder / "mixed.encodings"]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    folded = fold_all_batch_norms(model)
    sim = QuantizationSimModel(folded, quant_scheme="min_max")
    sim.compute_encodings([samples])
    scores = analyze_per_layer_sensitivity(sim, make_psnr_eval_fn(folded, [samples[:4]]))
    for node in sorted(scores, key=lambda name: scores[name])[: -(-len(scores) // 10)]:
        inputs, outputs, parameters = sim.get_op_quantizers(node)
        for quantizer in (*inputs, *outputs, *parameters.values()):
            if quantizer.enabled:
                quantizer.bitwidth = 16
    sim.compute_encodings([samples])
    sim.export(folder, "mixed")
    return [folder / "mixed.encodings"]
