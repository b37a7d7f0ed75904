"""The configuration: frozen, strict, the same in Python and JSON.

Field and option names are those of AMD Quark and onnxruntime, so that a user can carry them over. A name that we do
not know is an error that says which known one is nearest; nothing is accepted and then ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.finetune import AdaQuant, AdaRound, FastFinetune, from_quark
from quark_onnx.core.formats import TYPES, Format, type_name
from quark_onnx.core.frozen import FrozenDict

METHODS = ("MinMax", "Percentile")


@dataclass(frozen=True)
class Option:
    """One key of `extra_options`: its type, its default (None: decided elsewhere) and what it means."""

    type: type | tuple[type, ...]
    default: Any
    meaning: str


OPTIONS: dict[str, Option] = {
    "ActivationSymmetric": Option(bool, False, "activations have their zero point in the middle of the range"),
    "WeightSymmetric": Option(bool, None, "weights have zero point 0; default: yes for signed types"),
    "Percentile": Option((int, float), 99.999, "part of the values, in percent, that the Percentile method keeps"),
    "CalibTensorRangeSymmetric": Option(
        bool, True, "Percentile cuts |x| at one threshold; False cuts half of the rest at either end"
    ),
    "CalibDataSize": Option(int, None, "use at most this many items of the calibration data"),
    "ForceQuantizeNoInputCheck": Option(
        bool, False, "quantize operators that only pass values on also where no neighbour is quantized"
    ),
    "MatMulConstBOnly": Option(bool, False, "leave MatMul of two activations float"),
    "AlignConcat": Option(bool, False, "inputs and output of a Concat share one scale"),
    "CalibImages": Option(
        dict, None, "how image files become inputs: {size, layout, mean, std, scale, color, crop}, see ImageOptions"
    ),
    "UseRandomData": Option(bool, False, "calibrate on random numbers; for smoke tests only, accuracy is meaningless"),
    "RandomDataReaderInputShape": Option(dict, None, "{input name: shape} of the random data"),
    "RandomDataReaderInputDataRange": Option(dict, None, "{input name: [low, high]} of the random data"),
    "CLESteps": Option(int, -1, "sweeps of cross-layer equalization; -1: until nothing moves, at most 20"),
    "CLEBalanceMethod": Option(str, "max", "how cross-layer equalization measures a channel; 'max' is the only way"),
    "HighBiasAbsorption": Option(bool, False, "move what a ReLU always lets through into the next layer's bias"),
    "BiasCorrection": Option(bool, False, "correct biases by the mean output error of their layer"),
    "FastFinetune": Option(
        (dict, FastFinetune), None, "an AdaRound or AdaQuant, or its settings under Quark's names, see `from_quark`"
    ),
}
"""Every key that `extra_options` takes."""

UNSUPPORTED = {
    "CLEWeightThreshold": "all channels are equalized, however small; remove it",
    "CLEScaleUseThreshold": "all channels are equalized, however small; remove it",
    "CLEScaleAppendBias": "channels are measured by their weights alone; remove it",
    "CLETotalLayerDiffThreshold": "sweeps end when nothing moves; limit their number with CLESteps",
}
"""Keys of Quark that are refused, and why."""

_FLAGS = (
    "per_channel",
    "reduce_range",
    "optimize_model",
    "include_cle",
    "include_fast_ft",
    "use_external_data_format",
)
_CLE_OPTIONS = ("CLESteps", "CLEBalanceMethod", "HighBiasAbsorption")


@dataclass(frozen=True)
class QuantizationConfig:
    """What to quantize and how. Variants by `dataclasses.replace`.

    calibrate_method      "MinMax" or "Percentile"
    quant_format          "QDQ": standard QuantizeLinear and DequantizeLinear nodes, the only format there is
    activation_type       "int8", "uint8", "int16", "uint16", or onnxruntime's / Quark's QuantType spelling
    weight_type           as above, and "int4", "uint4"
    per_channel           one scale per output channel of a weight
    reduce_range          weights use 7 of 8 bits, for processors without VNNI
    op_types_to_quantize  only these operator types; empty: all that the target knows
    nodes_to_quantize     only these nodes; each entry a name, a glob (`layer3/*`) or a regular expression (`^conv`)
    nodes_to_exclude      never these nodes; entries as above
    subgraphs_to_exclude  pairs ([start nodes], [end nodes]): everything on a path from a start to an end stays float
    optimize_model        fold BatchNorm, constants and neighbours before quantizing
    include_cle           cross-layer equalization: even out the ranges of channels between layers; nothing to do, and
                          nothing done, with per_channel
    include_fast_ft       tune weights layer by layer after quantizing, see `finetune`
    use_external_data_format  write weights beside the model, as is always done above 2 GB
    extra_options         see `OPTIONS`

    Raises:
        ConfigError: a value that is unknown or cannot be combined with another one.
    """

    calibrate_method: str = "MinMax"
    quant_format: str = "QDQ"
    activation_type: str = "int8"
    weight_type: str = "int8"
    per_channel: bool = False
    reduce_range: bool = False
    op_types_to_quantize: tuple[str, ...] = ()
    nodes_to_quantize: tuple[str, ...] = ()
    nodes_to_exclude: tuple[str, ...] = ()
    subgraphs_to_exclude: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    optimize_model: bool = True
    include_cle: bool = True
    include_fast_ft: bool = False
    use_external_data_format: bool = False
    extra_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # frozen: written once, here
        put("calibrate_method", _choice(self.calibrate_method, METHODS, "calibrate_method"))
        put("quant_format", _choice(self.quant_format, ("QDQ",), "quant_format"))
        put("activation_type", type_name(self.activation_type, "activation_type"))
        put("weight_type", type_name(self.weight_type, "weight_type"))
        for name in ("op_types_to_quantize", "nodes_to_quantize", "nodes_to_exclude"):
            put(name, _names(getattr(self, name), name))
        put("subgraphs_to_exclude", _subgraphs(self.subgraphs_to_exclude))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, not {getattr(self, name)!r}")
        put("extra_options", _options(self.extra_options))
        self._check_combination()

    def _check_combination(self) -> None:
        if TYPES[self.activation_type][0] == 4:
            raise ConfigError(f"activation_type {self.activation_type!r}: activations need 8 or 16 bits")
        if self.reduce_range and TYPES[self.weight_type][0] != 8:
            raise ConfigError(f"reduce_range is for 8-bit weights, not {self.weight_type!r}; leave one of the two out")
        if self.activation_type == "int8" and self.weight_type == "uint8":
            raise ConfigError(
                "onnxruntime has no kernel for int8 activations with uint8 weights; use weight_type='int8'"
            )

        for key in _CLE_OPTIONS:
            if self.extra_options.get(key) and not self.include_cle:
                raise ConfigError(f"extra option {key} is part of equalization; set include_cle=True or remove it")
        if self.extra_options.get("FastFinetune") is not None and not self.include_fast_ft:
            raise ConfigError(
                "extra option FastFinetune says how to fine-tune, but nothing asks for it; set include_fast_ft=True, "
                "start from a preset such as S8S8_AAWS_ADAROUND, or remove the option"
            )

    def option(self, key: str) -> Any:
        """The value of an extra option; its default where it is absent or None."""
        value = self.extra_options.get(key)
        return OPTIONS[key].default if value is None else value

    @property
    def activation(self) -> Format:
        """Format of activations."""
        bits, signed = TYPES[self.activation_type]
        return Format(bits, signed, bool(self.option("ActivationSymmetric")))

    @property
    def weight(self) -> Format:
        """Format of weights, per-tensor; placement adds the axis where `per_channel` asks for it."""
        bits, signed = TYPES[self.weight_type]
        symmetric = self.option("WeightSymmetric")
        return Format(bits - self.reduce_range, signed, signed if symmetric is None else symmetric)

    @property
    def finetune(self) -> AdaRound | AdaQuant | None:
        """Method and settings of fast fine-tuning; None without `include_fast_ft`."""
        return from_quark(self.option("FastFinetune") or {}) if self.include_fast_ft else None

    @property
    def tunes(self) -> bool:
        """Whether biases may change after quantizing: by fine-tuning or bias correction."""
        return self.include_fast_ft or bool(self.option("BiasCorrection"))

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal configuration."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> QuantizationConfig:
        """Read a configuration; unknown keys are errors.

        Raises:
            ConfigError: not JSON, an unknown key, or a bad value.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the configuration is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ConfigError("the configuration must be a JSON object of fields")
        return cls.from_dict(document)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantizationConfig:
        """Build from field names and values; unknown names are errors."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown field {key!r}{nearest(str(key), known)}")
        return cls(**values)


@dataclass(frozen=True)
class Config:
    """What `ModelQuantizer` takes: the configuration that holds for the whole model."""

    global_quant_config: QuantizationConfig

    def __post_init__(self) -> None:
        if not isinstance(self.global_quant_config, QuantizationConfig):
            raise ConfigError(
                f"global_quant_config must be a QuantizationConfig, e.g. get_default_config('S8S8_AAWS'), "
                f"not {type(self.global_quant_config).__name__}"
            )


def _choice(value: object, known: tuple[str, ...], name: str) -> str:
    """One of `known`, in any case, from a string or an enum member of onnxruntime or Quark."""
    text = str(getattr(value, "name", value)).rsplit(".", 1)[-1]
    for choice in known:
        if text.lower() == choice.lower():
            return choice
    raise ConfigError(f"{name}: unknown value {text!r}{nearest(text, known)}")


def _names(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} must be a list of names, not {value!r}")
    for entry in value:
        if not isinstance(entry, str):
            raise ConfigError(f"{name} must hold strings, not {entry!r}")
    return tuple(value)


def _subgraphs(value: object) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"subgraphs_to_exclude must be a list of pairs ([start nodes], [end nodes]), not {value!r}")
    return tuple(_subgraph(pair) for pair in value)


def _subgraph(pair: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ConfigError(f"subgraphs_to_exclude must hold pairs ([start nodes], [end nodes]), not {pair!r}")
    start, end = pair
    return _names(start, "subgraphs_to_exclude"), _names(end, "subgraphs_to_exclude")


def _options(values: object) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"extra_options must be a dictionary, not {values!r}")
    for key, value in values.items():
        if key in UNSUPPORTED:
            raise ConfigError(f"extra option {key} is not supported: {UNSUPPORTED[key]}")
        if key not in OPTIONS:
            raise ConfigError(f"unknown extra option {key!r}{nearest(str(key), OPTIONS)}")
        expected = OPTIONS[key].type
        wrong_bool = isinstance(value, bool) and expected is not bool
        if value is not None and (wrong_bool or not isinstance(value, expected)):
            raise ConfigError(f"extra option {key} does not take {value!r}: {OPTIONS[key].meaning}")
    percentile = values.get("Percentile")
    if percentile is not None and not 50 < percentile <= 100:
        raise ConfigError(f"extra option Percentile must be above 50 and at most 100, not {percentile}")
    size = values.get("CalibDataSize")
    if size is not None and size < 1:
        raise ConfigError(f"extra option CalibDataSize must be at least 1, not {size}")
    steps = values.get("CLESteps")
    if steps is not None and steps != -1 and steps < 1:
        raise ConfigError(f"extra option CLESteps must be at least 1, or -1 for as many as it takes, not {steps}")
    method = values.get("CLEBalanceMethod")
    if method not in (None, "max"):
        raise ConfigError(f"extra option CLEBalanceMethod must be 'max', not {method!r}")
    plain = FrozenDict({key: _plain(value) for key, value in values.items()})
    from_quark(plain.get("FastFinetune") or {})  # refused now rather than after calibration
    return plain


def _plain(value: Any) -> Any:
    """The value as JSON would give it back: lists for tuples and arrays."""
    if isinstance(value, FastFinetune):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return FrozenDict({str(key): _plain(entry) for key, entry in value.items()})
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
