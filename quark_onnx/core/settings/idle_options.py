"""Options that have nothing to act on: what would be accepted and then ignored is refused, with the way out.

Not refused is what presets set for whatever becomes of them (`CARRIED`): a preset whose method or type is changed keeps
it, and it only says more than is needed; and values that act where they can (`CARRIED_VALUES`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.targets import Target

OF_DATA = (
    "CalibDataSize",
    "SampleMask",
    "CalibImages",
    "UseRandomData",
    "RandomDataReaderInputShape",
    "RandomDataReaderInputDataRange",
)
"""Options that say which data are used."""

OF_MODEL = ("UserCustomOpLibPath",)
"""Options that say what the model is made of."""

CARRIED = (
    "ActivationSymmetric",
    "WeightSymmetric",
    "Percentile",
    "CalibMovingAverage",
    "ForceQuantizeNoInputCheck",
    "MatMulConstBOnly",
    "AlignConcat",
)
"""Options that presets set."""

CARRIED_VALUES = {"BiasCorrection": "auto", "Protect": True, "SmoothQuant": "auto"}
"""Values that presets set: they act where there is something to act on."""

OF_GRAPHS = ("InlineIf",)
"""Options that say what the model computes, whatever becomes of its numbers."""

OF_INTEGERS = tuple(key for key in OPTIONS if key not in (*OF_DATA, *OF_MODEL, *OF_GRAPHS, *CARRIED))
"""Options that a conversion to float16 or bfloat16 has no use for."""

OF_RANGES = (
    "UseUnsignedReLU",
    "CalibTensorRangeSymmetric",
    "CalibMovingAverageConstant",
    "MinimumRealRange",
    "SmoothQuant",
    "SmoothAlpha",
    "AlignPool",
    "QuantizeBias",
    "Int32Bias",
    "Int16Bias",
    "Protect",
)
"""Options about activations that have ranges, and biases, whose scales come from those."""

OF_BIASES = ("QuantizeBias", "Int32Bias", "Int16Bias")
OF_EQUALIZATION = ("CLESteps", "CLEBalanceMethod", "HighBiasAbsorption")
OF_SMOOTHING = ("SmoothQuant", "SmoothAlpha")
OF_ENTROPY = ("NumBins", "NumQuantizedBins")
OF_LAYERWISE = ("PercentileCandidates", "LWPMetric")
OF_RANDOM = ("RandomDataReaderInputShape", "RandomDataReaderInputDataRange")

NO_TUNING = (
    "says how to fine-tune, but nothing asks for it; set include_fast_ft=True, start from a preset such as "
    "S8S8_AAWS_ADAROUND, or remove the option"
)

Rule = tuple[Collection[str], bool, str]
"""Options, whether they have nothing to act on, and the words that follow their name."""


@dataclass(frozen=True)
class Situation:
    """What the rest of a configuration makes of the model.

    conversion     the float type it is converted to; None: it is quantized
    mixes          layers get types by how the outputs like them
    tunes          layers are fine-tuned
    observes       activations have ranges
    methods        range methods in use anywhere
    symmetric      activations, or some of them, have their zero point in the middle
    any_symmetric  activations or weights have
    """

    target: Target
    conversion: str | None
    observes: bool
    per_channel: bool
    include_cle: bool
    mixes: bool
    tunes: bool
    methods: Collection[str]
    symmetric: bool
    any_symmetric: bool


def refuse_idle(options: Mapping[str, Any], situation: Situation) -> None:
    """Nothing, where every option has something to act on.

    Raises:
        ConfigError: one has not, or says the opposite of what the target needs.
    """
    options = {key: value for key, value in options.items() if value != CARRIED_VALUES.get(key, ...)}
    for keys, idle, why in _on(options, situation):
        for key in keys:
            if idle and options.get(key):
                raise ConfigError(f"extra option {key} {why}")
    for keys, idle, why in _off(situation):
        for key in keys:
            if idle and options.get(key) is False:
                raise ConfigError(f"{why}; remove {key}=False, or start from another preset")


def _on(options: Mapping[str, Any], s: Situation) -> tuple[Rule, ...]:
    """Of options that ask for something."""
    random, target = bool(options.get("UseRandomData")), f"target {s.target.name!r}"
    return (
        (
            OF_INTEGERS,
            s.conversion is not None,
            f"is for integers; a model that becomes {s.conversion} has none; remove it",
        ),
        (
            OF_RANGES,
            not s.observes,
            "needs activations with ranges from calibration, and WeightsOnly and use_dynamic_quant leave them and the "
            "biases float; remove it",
        ),
        (("Protect",), s.mixes, "is not for mixed precision, which chooses types itself; use nodes_to_exclude"),
        (("LayerTypes",), s.mixes, "says of layers what include_auto_mp is to find out; leave one of the two out"),
        (("FastFinetune",), not s.tunes, NO_TUNING),
        (OF_EQUALIZATION, not s.include_cle, "is part of equalization; set include_cle=True or remove it"),
        (
            OF_EQUALIZATION,
            s.per_channel,
            "is part of equalization, and with a scale per channel there is nothing to even out; remove it or "
            "per_channel=True",
        ),
        (OF_SMOOTHING, s.target.pow2, f"moves what {target} rounds to powers of two; remove it"),
        (
            ("SmoothAlpha",),
            options.get("SmoothQuant") is False or isinstance(options.get("SmoothQuant"), Mapping),
            "says how much SmoothQuant moves, and SmoothQuant says otherwise; remove one of the two",
        ),
        (OF_ENTROPY, "Entropy" not in s.methods, _unused("Entropy")),
        (OF_LAYERWISE, "LayerwisePercentile" not in s.methods, _unused("LayerwisePercentile")),
        (
            ("CalibMovingAverageConstant",),
            options.get("CalibMovingAverage") is None,  # False only switches it off
            "is a setting of the moving average; set CalibMovingAverage=True or remove it",
        ),
        (
            ("UseUnsignedReLU",),
            not s.symmetric,
            "is for symmetric activations; set ActivationSymmetric=True or remove it",
        ),
        (("StrictSymmetric",), not s.any_symmetric, "is for symmetric grids, and there is none; remove it"),
        (
            ("CalibTensorRangeSymmetric",),
            bool(options.get("UseUnsignedReLU")),
            "gives every range two ends, and UseUnsignedReLU needs one; remove one of the two",
        ),
        (
            ("Int32Bias", "Int16Bias"),
            options.get("QuantizeBias") is False,
            "says how biases are quantized, and QuantizeBias=False that they are not; remove one of the two",
        ),
        (OF_BIASES, s.target.bias_bits is None, f"asks for integer biases, which {target} adds in float; remove it"),
        (("BlockSize",), not s.target.blocks, f"gives a weight many scales, and {target} does not run that; remove it"),
        (("TableBits",), not s.target.on_cpu, f"is about rows that {target} does not look up as integers; remove it"),
        (OF_RANDOM, options.get("UseRandomData") is None, "describes random data; set UseRandomData=True or remove it"),
        (("CalibImages",), random, "is about image files, and UseRandomData=True asks for none; remove one of the two"),
        (("SampleMask",), random, "is about samples, and UseRandomData=True asks for none; remove one of the two"),
    )


def _off(s: Situation) -> tuple[Rule, ...]:
    """Of options that say no to what has to be."""
    target = f"target {s.target.name!r}"
    return (
        (("ActivationSymmetric",), s.target.symmetric, f"{target} needs symmetric activations"),
        (("WeightSymmetric",), s.target.symmetric, f"{target} needs symmetric weights"),
        (("UsePowerOf2Scale",), s.target.pow2, f"{target} needs scales that are powers of two"),
        (("UsePowerOf2Scale",), "NonOverflow" in s.methods, "NonOverflow chooses among powers of two"),
    )


def _unused(method: str) -> str:
    return f"is a setting of {method}, which is chosen nowhere; set calibrate_method={method!r} or remove it"
