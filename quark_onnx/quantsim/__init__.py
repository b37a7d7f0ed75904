"""AIMET's workflow: simulate, compute encodings, tune, freeze, evaluate, export, on the same stages as the pipeline."""

from quark_onnx.quantsim.quantizer import Quantizer, TensorEncoding
from quark_onnx.quantsim.scheme import QuantScheme
from quark_onnx.quantsim.sim import QuantizationSimModel

__all__ = ["QuantScheme", "QuantizationSimModel", "Quantizer", "TensorEncoding"]
