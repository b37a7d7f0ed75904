"""What of Quark's has no counterpart: the values that are taken all the same, and why others are refused.

Taken is what is done anyway, and Quark's default, which says nothing. `Refusal` is both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.checked_fields import flag
from quark_onnx.core.settings.extra_options import UNSUPPORTED
from quark_onnx.ort.extra_options import says

Refusal = tuple[tuple[Any, ...], str]

_EITHER = (True, False)
_PARTS = "say which nodes stay float, in nodes_to_exclude or subgraphs_to_exclude"
_PROVIDER = "everything runs on the CPU provider; leave it out"
_KEPT = "the graph is quantized as it is; leave it out"
_FUSED = "where quantizers are needed is decided by what onnxruntime fuses; leave it out"
_PLAIN = "weights are stored as integers in any case; leave it out"
_SCALES = "scales are float32, float16 or powers of two; use a PowerOfTwoMethod, or leave it out"
_BEFORE = "change the model before it is quantized"
_SHIFTS = "positions of scales are brought near each other as the NPU needs it; leave it out"
_DPU = "operators are kept as they are; leave it out"

FIELDS: dict[str, Refusal] = {
    "input_nodes": (([], ()), _PARTS),
    "output_nodes": (([], ()), _PARTS),
    "execution_providers": ((["CPUExecutionProvider"], ("CPUExecutionProvider",), []), _PROVIDER),
    "convert_nchw_to_nhwc": ((False,), f"{_BEFORE}, or feed it as it is"),
    "include_rotation": ((False,), "the nearest is SmoothQuant: include_sq=True, or SmoothQuantConfig()"),
    "debug_mode": ((False,), "the result's report.ledger says of every node what became of it and why"),
    "crypto_mode": (
        (False,),
        "a model is not encrypted; without model_output it stays in memory, as the result's model",
    ),
}
"""Fields of `QuantizationConfig`."""

OPTIONS: dict[str, Refusal] = {
    "ShapeShifterYaml": ((None,), f"{_BEFORE}; optimize_model does what is needed"),
    "PreprocessYAML": ((None,), f"{_BEFORE}; optimize_model does what is needed"),
    "SimplifyModel": (_EITHER, ""),
    "SimplifyModelOptions": ((None, {}), "optimize_model has no options"),
    "ConvertOpsetVersion": ((None,), "the operator set rises where a type needs it; use onnx.version_converter"),
    "FixShapes": ((None,), "use onnxruntime.tools.make_dynamic_shape_fixed before"),
    "RemoveInputInit": ((True,), "initializers are no inputs afterwards; leave it out"),
    "FoldBatchNorm": ((True,), "set optimize_model=False"),
    "FuseInstanceNorm": (_EITHER, ""),
    "FuseL2Norm": (_EITHER, ""),
    "FuseLayerNorm": (_EITHER, ""),
    "FuseGelu": ((True,), "set optimize_model=False"),
    "FoldRelu": (_EITHER, UNSUPPORTED["FoldRelu"]),
    "ConvertClipToRelu": (_EITHER, ""),
    "ReplaceClip6Relu": ((False,), "equalization looks behind a Clip where that is exact; leave it out"),
    "CopySharedInit": ((None, []), "weights that layers share are parted where they must be; leave it out"),
    "CopyBiasInit": (
        (None, [], ["Conv", "ConvTranspose", "Gemm"]),
        "biases that layers share are parted where they must be; leave it out",
    ),
    "ConvertBNToConv": ((False,), _KEPT),
    "ConvertReduceMeanToGlobalAvgPool": ((False,), _KEPT),
    "SplitLargeKernelPool": ((False,), _KEPT),
    "ConvertSplitToSlice": ((False,), _KEPT),
    "QuantizeAllOpTypes": ((False,), "operators that the target does not know stay float; leave it out"),
    "EnableSubgraph": (_EITHER, ""),
    "AddQDQPairToWeight": ((False,), _PLAIN),
    "DedicatedQDQPair": ((False,), _FUSED),
    "EnableDualQuantNodePairs": ((False,), _FUSED),
    "DedicateDQNode": ((False,), _FUSED),
    "NodesToExcludeOutputQuantization": (([], ()), "use OpTypesToExcludeOutputQuantization"),
    "QDQOpTypePerChannelSupportToAxis": ((None, {}), "give the axis of a weight in TensorQuantOverrides"),
    "RemoveQDQConvClip": ((True,), _FUSED),
    "RemoveQDQConvRelu": ((True,), _FUSED),
    "RemoveQDQConvLeakyRelu": ((True,), _FUSED),
    "RemoveQDQConvPRelu": ((True,), _FUSED),
    "RemoveQDQConvGelu": ((False,), _FUSED),
    "RemoveQDQInstanceNorm": ((False,), _FUSED),
    "RemoveQDQMulAdd": ((False,), _FUSED),
    "RemoveQDQBetweenOps": ((None, []), _FUSED),
    "RemoveFusedQDQ": ((False,), _FUSED),
    "UseQDQContribOps": ((False,), UNSUPPORTED["UseQDQContribOps"]),
    "FillAllValueInfo": ((False,), "use onnx.shape_inference on the model that comes out"),
    "AlignEltwiseQuantType": (_EITHER, ""),
    **dict.fromkeys(("AlignPad", "AlignSlice", "AlignTranspose", "AlignReshape"), (_EITHER, "")),
    "LWPUseHistogram": ((True,), UNSUPPORTED["LWPUseHistogram"]),
    "MinMSEModePof2Scale": (("All",), UNSUPPORTED["MinMSEModePof2Scale"]),
    "MinMSEModeFloatScale": (("All", "Percentile"), UNSUPPORTED["MinMSEModeFloatScale"]),
    "Scenario": (("same",), "it is for the same kind of data; leave it out"),
    "CalibWorkerNum": ((1,), "onnxruntime uses all threads; limit them with OMP_NUM_THREADS"),
    "CalibOptimizeMem": ((True,), UNSUPPORTED["CalibOptimizeMem"]),
    "CalibPassthroughOpTypes": ((None, []), "operators that only move values share one scale anyway; leave it out"),
    "SaveTensorHistFig": ((False,), "use the command quark-onnx histogram"),
    "SaveAndRestore": ((None,), "quark_onnx.ModelQuantizer takes calibration_cache and resume"),
    "TensorsRangeFile": ((None,), "quark_onnx.ModelQuantizer takes calibration_cache"),
    "NodesWithMixedPrecision": ((None, []), "use LayerTypes, or TensorQuantOverrides"),
    "Int16Scale": ((False,), _SCALES),
    "QuantizeFP16": ((None, False), "a float16 model keeps float16 scales by itself; leave it out"),
    "UseFP32Scale": ((None, False), "set convert_fp16_to_fp32=True"),
    "ActivationScaled": ((False,), "types that are floats have no scale; leave it out"),
    "WeightScaled": ((False,), "types that are floats have no scale; leave it out"),
    "AdjustBiasScale": ((True,), "an int32 bias has input scale · weight scale; leave it out"),
    "AdjustWeightScaleForInt32Bias": (_EITHER, ""),
    "BFPAttributes": ((None,), f"{UNSUPPORTED['BFPAttributes']}; the nearest is BF16, or 16-bit integers"),
    "MXAttributes": ((None,), f"{UNSUPPORTED['MXAttributes']}; the nearest is BlockSize with int4 or int8 weights"),
    "RefineBlockAxis": ((True,), "there are no such types here; leave it out"),
    "BF16WithClip": ((False,), "BF16 is a conversion of the whole model; leave it out"),
    "BF16QDQToCast": ((False,), "BF16 is a conversion of the whole model, with Casts at its ends; leave it out"),
    "EnableVaimlBF16": ((False,), "use the preset BF16"),
    "NPULimitationCheck": (_EITHER, ""),
    "MaxLoopNum": ((5,), _SHIFTS),
    "CLEWeightThreshold": ((0.5,), UNSUPPORTED["CLEWeightThreshold"]),
    "CLEScaleUseThreshold": ((True,), UNSUPPORTED["CLEScaleUseThreshold"]),
    "CLEScaleAppendBias": ((True,), UNSUPPORTED["CLEScaleAppendBias"]),
    "CLETotalLayerDiffThreshold": ((1.9e-7,), UNSUPPORTED["CLETotalLayerDiffThreshold"]),
    "RMatrixDim": ((4096,), "the nearest to a rotation is SmoothQuant: include_sq=True, or SmoothQuantConfig()"),
    "UseRandomHad": ((False,), "the nearest to a rotation is SmoothQuant: include_sq=True, or SmoothQuantConfig()"),
    "RConfigPath": ((None,), "the nearest to a rotation is SmoothQuant: include_sq=True, or SmoothQuantConfig()"),
    "TmpDir": ((None,), "set TMPDIR in the environment; only what memory_limit does not hold lies in a file"),
    "EncryptionAlgorithm": ((None,), FIELDS["crypto_mode"][1]),
    "EvalMetrics": (_EITHER, ""),
    "EvalDataReader": ((None,), "the result's report judges on samples that were held out; see also evaluators"),
    "QuantizationPreference": ((None,), "set what is meant: EarlyStop, UpdateBias, MemoryLimit of FastFinetune"),
}
"""Keys of `extra_options`. Those without a reason are taken whatever they say: it is decided tensor by tensor."""

ON_NPU: dict[str, str] = {
    "SimulateDPU": _DPU,
    "ConvertLeakyReluToDPUVersion": _DPU,
    "ConvertSigmoidToHardSigmoid": _DPU,
    "ConvertHardSigmoidToDPUVersion": _DPU,
    "ConvertAvgPoolToDPUVersion": _DPU,
    "ConvertReduceMeanToDPUVersion": _DPU,
    "ConvertSoftmaxToDPUVersion": _DPU,
    "ConvertInstanceNormToDPUVersion": _DPU,
    "ConvertClipToDPUVersion": _DPU,
    "AdjustShiftCut": _SHIFTS,
    "AdjustShiftBias": _SHIFTS,
    "AdjustShiftRead": _SHIFTS,
    "AdjustShiftWrite": _SHIFTS,
    "AdjustHardSigmoid": _SHIFTS,
    "AdjustShiftSwish": _SHIFTS,
}
"""Switches that Quark has on with enable_npu_cnn, and else off."""

TYPES: dict[str, str] = {
    **dict.fromkeys(("QInt32", "QUInt32", "Int32", "UInt32"), "16 bits are the most; the nearest is int16 or uint16"),
    **dict.fromkeys(("QBFP", "BFP16"), "ONNX has no block floating point; the nearest is bfloat16, or int16"),
    **dict.fromkeys(
        ("QMX", "MX4", "MX6", "MX9", "MXInt8", "MXFP4E2M1", "MXFP6E2M3", "MXFP6E3M2", "MXFP8E4M3", "MXFP8E5M2"),
        "ONNX has no type whose neighbours share an exponent; the nearest is int8, int4 with BlockSize, or bfloat16",
    ),
    **dict.fromkeys(("QFLOAT8E4M3FN", "QFLOAT8E5M2"), "8-bit floats are not offered; the nearest is int8 or bfloat16"),
}
"""Types by the name of a member of an enumeration, or of a data type."""


def refuse_fields(values: Mapping[str, Any]) -> None:
    """Nothing, where fields without a counterpart say what is done anyway.

    Raises:
        ConfigError: one says otherwise; with the nearest that there is.
    """
    for name, (taken, reason) in FIELDS.items():
        if not says(values[name], taken):
            raise ConfigError(f"{name}={values[name]!r} is not supported: {reason}")


def without_idle(options: Mapping[str, Any], npu: bool) -> dict[str, Any]:
    """The options that have a counterpart, or that nobody knows.

    Args:
        npu: with enable_npu_cnn, where Quark switches on what it simulates.

    Raises:
        ConfigError: another one says more than Quark's default, and not what is done anyway.
    """
    for key, value in options.items():
        on_npu = ((True,) if npu else (), ON_NPU[key]) if key in ON_NPU else None
        taken, reason = OPTIONS.get(key) or on_npu or ((), "")
        off = key in ON_NPU and value is False and (reason is _DPU or not npu)
        if reason and not (off or says(value, taken)):
            raise ConfigError(f"extra option {key}={value!r} is not supported: {reason}")
        if key in OPTIONS and not reason:
            flag(f"extra option {key}", value)
    return {key: value for key, value in options.items() if key not in OPTIONS and key not in ON_NPU}


def refuse_type(where: str, value: object) -> None:
    """Nothing, unless it is a type that is not offered.

    Raises:
        ConfigError: it is; with the nearest that is.
    """
    name = str(getattr(value, "name", None) or getattr(value, "__name__", value))
    if name in TYPES:
        raise ConfigError(f"{where}: {name} is not supported: {TYPES[name]}")
