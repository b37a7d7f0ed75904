"""What a runtime would do worse than it is written, kept from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.engine.normalizations_apart import keep_apart
from quark_onnx.engine.runtimes.openvino.lasting_biases import with_lasting_biases
from quark_onnx.graph import Model

Shield = Callable[[Model, Collection[str]], None]


def _from_onnxruntime(quantized: Model, unfit: Collection[str]) -> None:
    keep_apart(quantized)
    shield(quantized, unfit)


SHIELDS: Mapping[str, Shield] = {
    "onnxruntime": _from_onnxruntime,
    "openvino": lambda quantized, unfit: with_lasting_biases(quantized),
}
"""By name of the runtime: changes a quantized model in place, given nodes whose integer kernel would fail."""


def shielded(quantized: Model, runtime: str, unfit: Collection[str]) -> None:
    """Change the model in place so that the runtime computes what is written; the arithmetic stays the same."""
    if runtime in SHIELDS:
        SHIELDS[runtime](quantized, unfit)
