"""Quark's first configuration becomes ours: names are carried over, what has no counterpart is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings import config as settings
from quark_onnx.core.settings.checked_fields import flag, names, optional, whole
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.ort.extra_options import says
from quark_onnx.quark.enums import PowerOfTwoMethod
from quark_onnx.quark.matmul_weights import PRODUCTS, gptq_weights, nbits_weights
from quark_onnx.quark.mixed_types import mixed
from quark_onnx.quark.presets import untouched
from quark_onnx.quark.quantization_config import QuantizationConfig
from quark_onnx.quark.without_counterpart import ON_NPU, refuse_fields, refuse_type, without_idle
from quark_onnx.quark.without_counterpart import OPTIONS as IDLE

FIELDS = {
    "OptimizeModel": "optimize_model",
    "ConvertFP16ToFP32": "convert_fp16_to_fp32",
    "ConvertNCHWToNHWC": "convert_nchw_to_nhwc",
    "OpTypesToQuantize": "op_types_to_quantize",
    "NodesToQuantize": "nodes_to_quantize",
    "ExtraOpTypesToQuantize": "extra_op_types_to_quantize",
    "InputNodes": "input_nodes",
    "OutputNodes": "output_nodes",
    "ExecutionProviders": "execution_providers",
    "EnableNPUCnn": "enable_npu_cnn",
    "SpecificTensorPrecision": "specific_tensor_precision",
    "CryptoMode": "crypto_mode",
    "DebugMode": "debug_mode",
    "PrintSummary": "print_summary",
    "IgnoreWarnings": "ignore_warnings",
    "LogSeverityLevel": "log_severity_level",
}
"""Options that are fields under another name."""

OWN = ("SkipPreprocess", "MixedPrecisionTensor", "UseMatMulNBits", "MatMulNBitsParams", "UseGPTQ", "GPTQParams")
"""Options that are read here."""

KNOWN = (*OPTIONS, *FIELDS, *OWN, *IDLE, *ON_NPU)
"""Every option that is known, refused or not."""

_CARRIED = tuple(
    field.name for field in fields(settings.QuantizationConfig) if field.name not in ("target", "weight_pairs")
)
"""Fields that both configurations have."""


@dataclass(frozen=True)
class Lowered:
    """A configuration of ours, and how talkative the call is.

    print_summary       what came out is printed
    ignore_warnings     Python's warnings (of readers, of other packages) are not shown meanwhile
    log_severity_level  onnxruntime's number of the least severe message that is logged; None: as logging is set up
    """

    config: settings.QuantizationConfig
    print_summary: bool = True
    ignore_warnings: bool = True
    log_severity_level: int | None = None


def lowered(config: QuantizationConfig) -> Lowered:
    """The same as ours has it.

    Raises:
        ConfigError: a name that is not known, a value that has no counterpart, or that cannot be combined.
    """
    values, options = _unfolded(config)
    refuse_fields(values)
    npu = flag("enable_npu_cnn", values["enable_npu_cnn"])
    for part in (_products, _tensors, _smoothed, mixed, _switched_off):
        part(values, options)
    options = _counting(without_idle(_steps(options), npu))
    carried = {name: values[name] for name in _CARRIED if name != "extra_options"}
    for name in ("activation_type", "weight_type"):
        refuse_type(name, carried[name])
    carried["calibrate_method"] = _method(carried["calibrate_method"], npu)
    if str(getattr(carried["quant_format"], "name", carried["quant_format"])) == "QOperator":
        raise ConfigError("quant_format QOperator is not supported: use QDQ, which onnxruntime fuses to the same")
    target = "vitisai" if npu else "cpu"
    if flag("enable_npu_transformer", values["enable_npu_transformer"]):
        carried["op_types_to_quantize"] = carried["op_types_to_quantize"] or PRODUCTS
        options.setdefault("MatMulConstBOnly", True)
    carried["op_types_to_quantize"] = _op_types(target, carried["op_types_to_quantize"], values)
    return Lowered(
        settings.QuantizationConfig(target=target, extra_options=options, **carried),
        flag("print_summary", values["print_summary"]),
        flag("ignore_warnings", values["ignore_warnings"]),
        values["log_severity_level"],
    )


def dictionary(options: Any, name: str = "extra_options") -> Mapping[str, Any]:
    """Options as they are.

    Raises:
        ConfigError: they are no dictionary.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"{name} must be a dictionary, not {options!r}")
    return options


def _unfolded(config: QuantizationConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and options, those in the other's place moved to it."""
    values = dict(vars(config))
    options = dictionary(values.pop("extra_options"))
    for key in options:
        if key not in KNOWN:
            raise ConfigError(f"unknown extra option {key!r}{nearest(str(key), KNOWN)}")
    values |= {name: options[key] for key, name in FIELDS.items() if key in options}
    options = {key: value for key, value in options.items() if key not in FIELDS}
    if flag("extra option SkipPreprocess", options.pop("SkipPreprocess", False)):
        values["optimize_model"] = False
    optional(whole(0, 4))("log_severity_level", values["log_severity_level"])
    return values, options


def _products(values: dict[str, Any], options: dict[str, Any]) -> None:
    """MatMulNBits and GPTQ."""
    for switch, key, read in (
        ("UseMatMulNBits", "MatMulNBitsParams", nbits_weights),
        ("UseGPTQ", "GPTQParams", gptq_weights),
    ):
        params = options.pop(key, None)
        if not flag(f"extra option {switch}", options.pop(switch, False)):
            if params is not None:
                raise ConfigError(f"extra option {key} needs {switch}=True; set that or remove this")
            continue
        if values["include_fast_ft"]:
            raise ConfigError(f"extra option {switch} and include_fast_ft exclude each other; leave one of them out")
        changes, more = read(params or {})
        changes["op_types_to_quantize"] = values["op_types_to_quantize"] or changes.get("op_types_to_quantize", [])
        values |= changes
        options |= more


def _tensors(values: dict[str, Any], options: dict[str, Any]) -> None:
    """MixedPrecisionTensor, {type: [tensors]}, is TensorQuantOverrides the other way round."""
    switched = flag("specific_tensor_precision", values["specific_tensor_precision"])
    if switched and "MixedPrecisionTensor" not in options:
        raise ConfigError(
            "specific_tensor_precision=True needs the extra option MixedPrecisionTensor, {type: [tensors]}"
        )
    asked = options.pop("MixedPrecisionTensor", None) or {}
    if not isinstance(asked, Mapping):
        raise ConfigError(f"extra option MixedPrecisionTensor must be a dictionary {{type: [tensors]}}, not {asked!r}")
    if asked and not switched:
        raise ConfigError("extra option MixedPrecisionTensor needs specific_tensor_precision=True; set that too")
    for kind in asked:
        refuse_type("extra option MixedPrecisionTensor", kind)
    overrides = {name: [{"quant_type": kind}] for kind, found in asked.items() for name in names(str(kind), found)}
    if overrides:
        own = dictionary(options.get("TensorQuantOverrides") or {}, "extra option TensorQuantOverrides")
        options["TensorQuantOverrides"] = {**overrides, **own}


def _smoothed(values: dict[str, Any], options: dict[str, Any]) -> None:
    """include_sq with SmoothAlpha is our option SmoothQuant."""
    asked = values["include_sq"]
    if asked is not None and options.get("SmoothQuant") is not None:
        raise ConfigError("include_sq and the extra option SmoothQuant say the same; leave one of them out")
    if asked is True:
        alpha = options.pop("SmoothAlpha", None)
        options["SmoothQuant"] = {"alpha": 0.5 if alpha is None else alpha}
    elif asked is not None:
        options["SmoothQuant"] = flag("include_sq", asked)
    if asked is not True and not says(options.pop("SmoothAlpha", None), (None, 0.5)):
        raise ConfigError("extra option SmoothAlpha needs include_sq=True; set that or remove this")


def _switched_off(values: dict[str, Any], options: dict[str, Any]) -> None:
    """Settings of fine-tuning as a preset has them say nothing where it is switched off."""
    if values["include_fast_ft"] is False and untouched(options.get("FastFinetune")):
        options.pop("FastFinetune")


def _steps(options: dict[str, Any]) -> dict[str, Any]:
    """What ends an adaptive run of equalization says nothing of so many steps."""
    if not says(options.get("CLESteps"), (None, -1)):
        options.pop("CLETotalLayerDiffThreshold", None)
    return options


def _counting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say more than our default; members of enumerations by their names."""
    found = {
        key: value.name if isinstance(value, Enum) else value
        for key, value in options.items()
        if value is not None and not _is_default(key, value)
    }
    if isinstance(found.get("UserCustomOpLibPath"), str):
        found["UserCustomOpLibPath"] = [found["UserCustomOpLibPath"]]
    return found


def _is_default(key: str, value: Any) -> bool:
    default = OPTIONS[key].default
    value = tuple(value) if isinstance(value, list) else value
    return type(value) is type(default) and value == default


def _method(value: Any, npu: bool) -> Any:
    if type(value).__name__ == "Int16Method":
        raise ConfigError("calibrate_method Int16Method is not supported: scales are floats, or powers of two")
    if not npu:
        return value
    name = str(getattr(value, "name", value))
    if name not in PowerOfTwoMethod.__members__:
        raise ConfigError(
            f"enable_npu_cnn needs scales that are powers of two, and calibrate_method is {value}: use "
            "PowerOfTwoMethod.MinMSE or NonOverflow, or set enable_npu_cnn=False"
        )
    return name


def _op_types(target: str, asked: Any, values: Mapping[str, Any]) -> Any:
    """The operator types with those that come on top; all that the target knows are quantized anyway."""
    more, known = names("extra_op_types_to_quantize", values["extra_op_types_to_quantize"]), TARGETS[target].ops
    for op_type in more:
        if op_type not in known:
            raise ConfigError(
                f"extra_op_types_to_quantize: target {target!r} does not quantize {op_type!r}{nearest(op_type, known)}"
            )
    return [*names("op_types_to_quantize", asked), *more] if asked else asked
