"""AIMET's workflow: simulate, compute encodings, tune, freeze, evaluate, export, on the same stages as the pipeline.

Names and paths of modules are those of `aimet_onnx`; `docs/porting_aimet.md` lists them.
"""

from quark_onnx.quantsim.adaround.adaround_weight import Adaround, AdaroundParameters, apply_adaround
from quark_onnx.quantsim.auto_quant_v2 import AutoQuant
from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms, fold_all_batch_norms_to_weight
from quark_onnx.quantsim.bias_correction import QuantParams, correct_bias
from quark_onnx.quantsim.common.defs import QuantScheme, float16, float32, int2, int4, int8, int16, qtype
from quark_onnx.quantsim.cross_layer_equalization import equalize_model, fold_high_biases
from quark_onnx.quantsim.encodings_to_qdq import encodings_to_onnx_qdq
from quark_onnx.quantsim.fine_tuning import fine_tune
from quark_onnx.quantsim.protection import protect
from quark_onnx.quantsim.quantizer import Quantizer, TensorEncoding
from quark_onnx.quantsim.quantsim import QuantizationSimModel, compute_encodings, load_encodings_to_sim
from quark_onnx.quantsim.sensitivity_analysis import analyze_per_layer_sensitivity
from quark_onnx.quantsim.sequential_mse.seq_mse import apply_seq_mse
from quark_onnx.quantsim.utils import make_psnr_eval_fn

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
    "apply_adaround",
    "apply_seq_mse",
    "compute_encodings",
    "correct_bias",
    "encodings_to_onnx_qdq",
    "equalize_model",
    "fine_tune",
    "float16",
    "float32",
    "fold_all_batch_norms",
    "fold_all_batch_norms_to_weight",
    "fold_high_biases",
    "int2",
    "int4",
    "int8",
    "int16",
    "load_encodings_to_sim",
    "make_psnr_eval_fn",
    "protect",
    "qtype",
]
