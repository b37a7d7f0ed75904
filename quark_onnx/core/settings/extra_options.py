"""The keys of `extra_options`: their types, defaults and meaning, and Quark's keys that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.core.settings.training.qat import QAT


@dataclass(frozen=True)
class Option:
    """One key of `extra_options`: its type, its default (None: decided elsewhere) and what it means."""

    type: type | tuple[type, ...]
    default: Any
    meaning: str


OPTIONS: dict[str, Option] = {
    "ActivationSymmetric": Option(bool, None, "activations have their zero point in the middle; default: the target's"),
    "WeightSymmetric": Option(bool, None, "weights have zero point 0; default: yes for signed types"),
    "StrictSymmetric": Option(bool, None, "symmetric signed types leave out their lowest code; default: above 4 bits"),
    "UseUnsignedReLU": Option(
        bool, False, "symmetric activations without negative values have their zero point at the low end"
    ),
    "UsePowerOf2Scale": Option(bool, None, "scales are powers of two; default: the target's"),
    "BlockSize": Option(int, None, "one weight scale for so many neighbours along the input axis of MatMul and Gemm"),
    "TableBits": Option(int, 8, "bits of tables that a Gather looks up: 8 with a scale per row, or 4 in blocks"),
    "QuantizeBias": Option(bool, None, "quantize biases; default: the target's"),
    "Int32Bias": Option(
        bool, None, "biases are int32 at input scale · weight scale; False: int8 with a scale of their own"
    ),
    "Int16Bias": Option(bool, False, "biases are int16 with a scale of their own"),
    "TensorQuantOverrides": Option(
        dict,
        None,
        "settings of single tensors: "
        "{tensor: [{quant_type, symmetric, axis, scale, zero_point, rmin, rmax, calibrate_method, …}]}",
    ),
    "OpTypeQuantOverrides": Option(
        dict,
        None,
        "settings by operator type: {type: {input, weight, output: {quant_type, symmetric, calibrate_method, …}}}",
    ),
    "LayerTypes": Option(
        dict,
        None,
        "types of single layers: {name or pattern: {activation_type, weight_type, symmetric, per_channel, BlockSize}}; "
        "activation_type 'float': the weight alone is quantized",
    ),
    "Percentile": Option((int, float), 99.999, "part of the values, in percent, that the Percentile methods keep"),
    "PercentileCandidates": Option(
        (list, tuple), (99.99, 99.999, 99.99999), "percentages that LayerwisePercentile chooses from"
    ),
    "LWPMetric": Option(str, "mae", "what LayerwisePercentile makes small: mae or mse"),
    "NumBins": Option(int, 2048, "bins of the histogram that Entropy looks at"),
    "NumQuantizedBins": Option(int, 128, "levels that Entropy tells a candidate from"),
    "CalibTensorRangeSymmetric": Option(
        bool,
        None,
        "ranges of activations are the same on both sides of 0; of the Percentile methods, which do so unless this is "
        "False, one threshold on |x|, and no end beyond what was seen",
    ),
    "CalibMovingAverage": Option(
        bool,
        False,
        "MinMax averages the extremes of the feeds instead of taking the widest; their order and batch size count",
    ),
    "CalibMovingAverageConstant": Option((int, float), 0.01, "weight of a new feed in the moving average"),
    "WeightCalibrateMethod": Option(str, None, "how ranges of weights are chosen; default: MinMax"),
    "MinimumRealRange": Option(
        (int, float), None, "no range of an activation is narrower than this; default: the target's"
    ),
    "CalibDataSize": Option(int, None, "use at most this many items of the calibration data"),
    "ForceQuantizeNoInputCheck": Option(
        bool, False, "quantize operators that only pass values on whatever their neighbours are; needs Protect=False"
    ),
    "MatMulConstBOnly": Option(bool, False, "leave MatMul of two activations float"),
    "WeightsOnly": Option(bool, False, "quantize weights only; activations and biases stay float"),
    "AlignConcat": Option(bool, None, "inputs and output of a Concat share one scale; default: the target's"),
    "AlignPool": Option(bool, None, "input and output of an average pool share one scale; default: the target's"),
    "OpTypesToExcludeOutputQuantization": Option(
        (list, tuple), (), "outputs of these operator types get no quantizer of their own"
    ),
    "SampleMask": Option(
        (str, bool),
        None,
        "name of the model input, or of what feeds hold besides, that is 0 at positions which do not count, such as "
        "padding; False: all count; default: the padding mask that the graph shows",
    ),
    "CalibImages": Option(
        dict, None, "how image files become inputs: {size, layout, mean, std, scale, color, crop}, see ImageOptions"
    ),
    "UseRandomData": Option(bool, False, "calibrate on random numbers; for smoke tests only, accuracy is meaningless"),
    "RandomDataReaderInputShape": Option(dict, None, "{input name: shape} of the random data"),
    "RandomDataReaderInputDataRange": Option(dict, None, "{input name: [low, high]} of the random data"),
    "UserCustomOpLibPath": Option(
        (list, tuple), (), "paths of shared libraries with operators of the model that onnxruntime has not"
    ),
    "CLESteps": Option(int, -1, "sweeps of cross-layer equalization; -1: until nothing moves, at most 20"),
    "CLEBalanceMethod": Option(str, "max", "how cross-layer equalization measures a channel; 'max' is the only way"),
    "SmoothQuant": Option(
        (bool, str, dict),
        "auto",
        "move range from the channels of what products read into their weights (SmoothQuant); auto: on targets "
        "with a runtime, where products gain by it on samples that nothing was learned of; or Quark's "
        "SmoothQuantConfig, {alpha: 0.5}",
    ),
    "SmoothAlpha": Option(
        (int, float), None, "how much of the range SmoothQuant moves, above 0 and up to 1; default: the best for each"
    ),
    "HighBiasAbsorption": Option(bool, False, "move what a ReLU always lets through into the next layer's bias"),
    "BiasCorrection": Option(
        (bool, str),
        False,
        "correct biases by the mean output error of their layer; auto: kept where samples that taught nothing say that "
        "the worst output gains; nothing is done where activations have no ranges or layers are fine-tuned",
    ),
    "Protect": Option(
        (bool, list, tuple),
        True,
        "what 8 bits would ruin stays out of the plan; a list of names of nodes and tensors (globs and ^regular "
        "expressions, too) asks for them to stay float, and those behind a '!' are left alone",
    ),
    "FastFinetune": Option(
        (dict, FastFinetune), None, "an AdaRound or AdaQuant, or its settings under Quark's names, see `from_quark`"
    ),
    "QAT": Option(
        (bool, dict, QAT),
        False,
        "train the quantized model as a whole, by its outputs or by labels: True, or settings, {epochs, learning_rate, "
        "losses, batch_size, flip, crop, checkpoint, …}, see `QAT`",
    ),
    "InlineIf": Option(
        dict,
        None,
        "{name of an If: then or else}: the branch that is taken on all inputs; the other one is left out of the model",
    ),
    "AutoMixprecision": Option(
        dict,
        None,
        "settings of include_auto_mp: {TargetLayerConfig, MetricDefault, MetricThreshold, DataSize, IncludeLayers, …}",
    ),
}
"""Every key that `extra_options` takes."""

_SMALL = "all channels are equalized, however small; remove it"
_STANDARD = "only standard ONNX operators are written; remove it"
_ONCE = "calibration streams in bounded memory; remove it"
UNSUPPORTED = {
    "CLEWeightThreshold": _SMALL,
    "CLEScaleUseThreshold": _SMALL,
    "CLEScaleAppendBias": "channels are measured by their weights alone; remove it",
    "CLETotalLayerDiffThreshold": "sweeps end when nothing moves; limit their number with CLESteps",
    "BFPAttributes": "ONNX has no block floating point type",
    "MXAttributes": "ONNX has no microscaling type",
    "CalibOptimizeMem": _ONCE,
    "CalibWorkerNum": _ONCE,
    "LWPUseHistogram": "the histogram is all that is kept of the data; remove it",
    "MinMSEModePof2Scale": "MinMSE looks at all values; remove it",
    "MinMSEModeFloatScale": "MinMSE looks at all values; remove it",
    "UseQDQContribOps": _STANDARD,
    "UseMatMulNBits": "start from the preset MATMUL_NBITS or one of its variants; onnxruntime makes MatMulNBits of it",
    "MatMulNBitsParams": (
        "Algorithm is the ending of the preset, as in MATMUL_NBITS_GPTQ, GroupSize is BlockSize, Symmetric is "
        "WeightSymmetric, Bits is part of weight_type, and AccuracyLevel a setting of the session that runs the model"
    ),
    "AlignSlice": "operators that only move values share one scale anyway; remove it",
    "AlignPad": "operators that only move values share one scale anyway; remove it",
    "AlignTranspose": "operators that only move values share one scale anyway; remove it",
    "AlignReshape": "operators that only move values share one scale anyway; remove it",
    "FoldRelu": "a Relu is absorbed where that is exact; remove it",
    "AlignEltwiseQuantType": "constants of elementwise operators have the type of activations anyway; remove it",
}
"""Keys of Quark and onnxruntime that are refused, and why."""
