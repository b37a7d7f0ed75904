"""AIMET's workflow: simulate, compute encodings, tune, freeze, evaluate, export, on the same stages as the pipeline."""

from quark_onnx.quantsim.scheme import QuantScheme

__all__ = ["QuantScheme"]
