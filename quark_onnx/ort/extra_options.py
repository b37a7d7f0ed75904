"""The keys of onnxruntime's `extra_options`, made ours.

Most have our names and pass as they are, as do keys that are ours alone. A key whose mechanism we do not have takes the
value that says what is done anyway; any other value is refused, with what there is instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.number_formats import type_name
from quark_onnx.core.settings.extra_options import OPTIONS, UNSUPPORTED

RENAMED = {"CalibPercentile": "Percentile", "SmoothQuantAlpha": "SmoothAlpha"}
"""Onnxruntime's name → ours."""

_STREAMS = "calibration streams in bounded memory; leave it out"
_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}
"""Axes of output channels, which per_channel means anyway."""

Fixed = tuple[tuple[Any, ...], str]
"""The values that are taken, and what there is instead of others."""

FIXED: dict[str, Fixed] = {
    "extra.Sigmoid.nnapi": ((False,), "there is no target NNAPI; give the output a scale with TensorQuantOverrides"),
    "EnableSubgraph": (
        (True,),
        "bodies of control flow are quantized where that can be; name the If or Loop in nodes_to_exclude",
    ),
    "AddQDQPairToWeight": ((False,), "weights are stored as the integers they become; leave it out"),
    "DedicatedQDQPair": ((False,), "onnxruntime gives each reader a pair of its own when it loads; leave it out"),
    "CalibMaxIntermediateOutputs": ((), _STREAMS),
    "CalibStridedMinMax": ((0,), _STREAMS),
    "SmoothQuantFolding": ((True,), "what divides an activation is folded wherever it can be; leave it out"),
    "UseQDQContribOps": ((False,), "only standard operators are written, in the operator set that has them"),
    "QDQKeepRemovableActivations": (
        (True,),
        "a Relu or Clip stays in the file, and goes at load where its quantizer does the same; leave it out",
    ),
    "QDQDisableWeightAdjustForInt32Bias": (
        (False,),
        "a bias that int32 cannot hold gets a larger weight scale; set QuantizeBias=False to leave biases float",
    ),
    "DefaultTensorType": ((), "types come from the model and a run of it; leave it out"),
}
"""Keys that choose nothing: the values that are taken say what is done anyway."""

_NO_RANGES = "activations have no ranges where they become integers at run time; leave it out, or call quantize_static"
AT_RUN_TIME: dict[str, Fixed] = {
    "MatMulConstBOnly": ((True,), "a product of two activations stays float; leave it out"),
    "ForceQuantizeNoInputCheck": ((False,), "only inputs of layers are quantized; leave it out"),
    "ActivationSymmetric": ((False,), _NO_RANGES),
    "ActivationRestrictedAsymmetric": ((False,), _NO_RANGES),
    "OpTypesToExcludeOutputQuantization": (([], ()), "no output is quantized; leave it out"),
    "CalibPercentile": ((), _NO_RANGES),
    "CalibMovingAverage": ((False,), _NO_RANGES),
}
"""Keys that choose nothing more with `quantize_dynamic`."""

SWITCHES = {
    "FastFinetune": "include_fast_ft",
    "AutoMixprecision": "include_auto_mp",
    "CLESteps": "include_cle",
    "CLEBalanceMethod": "include_cle",
    "HighBiasAbsorption": "include_cle",
}
"""Keys of ours that say how something goes → the field that asks for it: onnxruntime has no such parameter."""

_CHANNELS = "QDQOpTypePerChannelSupportToAxis"
_RESTRICTED = "ActivationRestrictedAsymmetric"
_FORCED = "ForceQuantizeNoInputCheck"
_KNOWN = (*OPTIONS, *RENAMED, *FIXED, _CHANNELS, _RESTRICTED)


def lowered_options(
    given: Mapping[str, Any] | None, activation_type: object, fixed: Mapping[str, Fixed] = FIXED
) -> dict[str, Any]:
    """Our extra options for onnxruntime's; None leaves a key at its default, as with us.

    Args:
        fixed: keys that choose nothing.

    Raises:
        ConfigError: an unknown key, one that has no counterpart, or two that say the same.
    """
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"extra_options must be a dictionary, not {given!r}")
    asked = {key: value for key, value in (given or {}).items() if value is not None}
    for key, value in asked.items():
        _refuse(key, value, asked, fixed)
    chosen = {key: value for key, value in asked.items() if key not in fixed}
    options = {RENAMED.get(key, key): value for key, value in chosen.items() if key not in (_CHANNELS, _RESTRICTED)}
    if options.get("BlockSize") == 0:  # onnxruntime's way to write none
        del options["BlockSize"]
    return options | _restricted(chosen, activation_type) | _forced(chosen)


def says(value: object, taken: tuple[Any, ...]) -> bool:
    """Whether a value is one of those that are taken, in its type, too."""
    return any(type(value) is type(one) and value == one for one in taken)


def _refuse(key: str, value: object, asked: Mapping[str, Any], fixed: Mapping[str, Fixed]) -> None:
    if key not in _KNOWN and key not in UNSUPPORTED:
        raise ConfigError(f"unknown extra option {key!r}{nearest(str(key), _KNOWN)}")
    if RENAMED.get(key) in asked:
        raise ConfigError(f"extra options {key} and {RENAMED[key]} say the same; give one of them")
    taken, instead = fixed.get(key, ((), ""))
    if key in fixed and not says(value, taken):
        raise ConfigError(f"extra option {key} does not take {value!r} here: {instead}")
    if key == _CHANNELS:
        _refuse_axes(value)


def _refuse_axes(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"extra option {_CHANNELS} must be a dictionary, not {value!r}")
    for op_type, axis in value.items():
        if _AXES.get(op_type) != axis:
            raise ConfigError(
                f"extra option {_CHANNELS} does not take {op_type!r}: {axis!r}: per_channel means the output channels; "
                "give single weights an axis with TensorQuantOverrides"
            )


def _restricted(asked: Mapping[str, Any], activation_type: object) -> dict[str, Any]:
    """Zero points of bytes at their middle, or at the low end where no value is negative: our one-sided grid."""
    if not asked.get(_RESTRICTED):
        return {}
    if type_name(activation_type, "activation_type") != "uint8":
        raise ConfigError(f"extra option {_RESTRICTED} is for activation_type=QUInt8; set that, or leave it out")
    if asked.get("ActivationSymmetric"):
        raise ConfigError(f"extra options {_RESTRICTED} and ActivationSymmetric exclude each other; give one of them")
    return {"ActivationSymmetric": True, "UseUnsignedReLU": True}


def _forced(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Operators that only move values are quantized everywhere, which protection does not do."""
    if not asked.get(_FORCED):
        return {}
    if asked.get("Protect"):
        raise ConfigError(f"extra option {_FORCED} quantizes what Protect spares; give one of them")
    return {"Protect": False}
