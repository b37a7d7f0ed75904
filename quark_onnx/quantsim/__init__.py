"""AIMET's workflow: simulate, compute encodings, tune, freeze, evaluate, export, on the same stages as the pipeline."""

from quark_onnx.quantsim.adaround import Adaround, AdaroundParameters
from quark_onnx.quantsim.auto_quant import AutoQuant
from quark_onnx.quantsim.batch_norm_folding import fold_all_batch_norms, fold_all_batch_norms_to_weight
from quark_onnx.quantsim.bias_correction import QuantParams, correct_bias
from quark_onnx.quantsim.equalization import equalize_model, fold_high_biases
from quark_onnx.quantsim.fine_tuning import fine_tune
from quark_onnx.quantsim.protection import protect
from quark_onnx.quantsim.quantizer import Quantizer, TensorEncoding
from quark_onnx.quantsim.scheme import QuantScheme
from quark_onnx.quantsim.sensitivity_analysis import analyze_per_layer_sensitivity, make_psnr_eval_fn
from quark_onnx.quantsim.seq_mse import apply_seq_mse
from quark_onnx.quantsim.sim import QuantizationSimModel

__all__ = [
    "Adaround",
    "AdaroundParameters",
    "AutoQuant",
    "QuantParams",
    "QuantScheme",
    "QuantizationSimModel",
    "Quantizer",
    "TensorEncoding",
    "analyze_per_layer_sensitivity",
    "apply_seq_mse",
    "correct_bias",
    "equalize_model",
    "fine_tune",
    "fold_all_batch_norms",
    "fold_all_batch_norms_to_weight",
    "fold_high_biases",
    "make_psnr_eval_fn",
    "protect",
]
