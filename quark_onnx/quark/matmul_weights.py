"""Weights of products alone: Quark's MatMulNBits and GPTQ, as fields and options of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import whole

NBITS = {"Algorithm": "DEFAULT", "GroupSize": 128, "Symmetric": True, "Bits": 4, "AccuracyLevel": 0}
"""MatMulNBitsParams, and Quark's values for what is left out."""

GPTQ = {
    "Bits": 8,
    "BlockSize": 128,
    "GroupSize": -1,
    "PercDamp": None,
    "ActOrder": None,
    "PerChannel": False,
    "MSE": None,
    "WeightSymmetric": True,
}
"""GPTQParams; None: as this package has it."""

_BITS = whole(2, 16)

Changes = tuple[dict[str, Any], dict[str, Any]]
"""Fields and extra options."""

PRODUCTS = ["MatMul", "Gemm"]
"""Preparing makes a Gemm of MatMul and Add."""


def nbits_weights(params: Mapping[str, Any]) -> Changes:
    """What MatMulNBitsParams asks for: weights of few bits in blocks.

    Raises:
        ConfigError: an unknown key, or a value that has no counterpart.
    """
    asked = _merged("MatMulNBitsParams", NBITS, params)
    if asked["AccuracyLevel"] not in (0, 1):
        raise ConfigError(
            f"MatMulNBitsParams AccuracyLevel={asked['AccuracyLevel']!r} is not supported: it is a setting of the "
            "session that runs the model, session.qdq_matmulnbits_accuracy_level"
        )
    algorithm = str(asked["Algorithm"]).upper()
    if algorithm not in ("DEFAULT", "GPTQ", "HQQ"):
        raise ConfigError(f"MatMulNBitsParams Algorithm: unknown value {algorithm!r}; known: DEFAULT, GPTQ, HQQ")
    bits = _BITS("MatMulNBitsParams Bits", asked["Bits"])
    fields = {"weight_type": f"int{bits}", "include_cle": False, "op_types_to_quantize": [*PRODUCTS, "Gather"]}
    options: dict[str, Any] = {"WeightsOnly": True, "BlockSize": asked["GroupSize"]}
    if not asked["Symmetric"]:
        options["WeightSymmetric"] = False
    if algorithm == "HQQ":
        options["WeightCalibrateMethod"] = "HQQ"
    if algorithm == "GPTQ":
        fields["include_fast_ft"], options["FastFinetune"] = True, {"OptimAlgorithm": "gptq"}
    return fields, options


def gptq_weights(params: Mapping[str, Any]) -> Changes:
    """What GPTQParams asks for: weights alone, those of products rounded by GPTQ.

    Raises:
        ConfigError: an unknown key, or a value that has no counterpart.
    """
    asked = _merged("GPTQParams", GPTQ, params)
    if asked["BlockSize"] != 128:
        raise ConfigError(
            f"GPTQParams BlockSize={asked['BlockSize']!r} is not supported: it is how many columns are worked on at a "
            "time, which changes nothing; neighbours with one scale are GroupSize"
        )
    tuned = {"Ridge": asked["PercDamp"], "ActOrder": asked["ActOrder"], "ScaleSearch": asked["MSE"]}
    tuned = {key: value for key, value in tuned.items() if value is not None}
    options = {
        "WeightsOnly": True,
        "WeightSymmetric": asked["WeightSymmetric"],
        "FastFinetune": {"OptimAlgorithm": "gptq", "TargetOpType": PRODUCTS, **tuned},
    }
    if asked["GroupSize"] != -1:
        options["BlockSize"] = asked["GroupSize"]
    bits = _BITS("GPTQParams Bits", asked["Bits"])
    return {"weight_type": f"int{bits}", "per_channel": asked["PerChannel"], "include_fast_ft": True}, options


def _merged(what: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} must be a dictionary, not {given!r}")
    for key in given:
        if key not in known:
            raise ConfigError(f"{what}: unknown key {key!r}{nearest(str(key), known)}")
    return {**known, **given}
