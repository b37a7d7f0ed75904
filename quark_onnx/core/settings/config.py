"""The configuration: frozen, strict, the same in Python and JSON.

Field and option names are those of AMD Quark and onnxruntime, so that a user can carry them over. A name that we do
not know is an error that says which known one is nearest; nothing is accepted and then ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest, reading
from quark_onnx.core.json_reading import json_of
from quark_onnx.core.number_formats import FLOATS, TYPES, Format, ScaleType, type_name
from quark_onnx.core.settings.checked_fields import flag, named, names, subgraphs
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.extra_options_check import checked_options
from quark_onnx.core.settings.fast_finetune import FastFinetune, Method, Nearest, from_quark
from quark_onnx.core.settings.idle_options import Situation, refuse_idle
from quark_onnx.core.settings.layer_types import OPTION as LAYER_TYPES
from quark_onnx.core.settings.layer_types import fields_of_layer
from quark_onnx.core.settings.mixed_precision import Mixing, mixing_from_quark
from quark_onnx.core.settings.protection import Protection
from quark_onnx.core.settings.range_methods import ALIASES, METHODS, WEIGHT_ONLY, Ranging, ranging_of
from quark_onnx.core.settings.smoothing import Smoothing
from quark_onnx.core.settings.targets import PAIRS, TARGETS, Target
from quark_onnx.core.settings.tensor_overrides import Override, asked_for, tensor_overrides, type_overrides
from quark_onnx.core.settings.training.qat import QAT

_INTEGERS_ONLY = ("per_channel", "reduce_range", "include_fast_ft", "use_dynamic_quant")
"""Fields that a conversion to float16 or bfloat16 has no use for."""


@dataclass(frozen=True)
class QuantizationConfig:
    """What to quantize and how. Variants by `dataclasses.replace`.

    target                what runs the model: one of `TARGETS`
    calibrate_method      how ranges of activations are chosen: one of `METHODS` in `core.settings.range_methods`; no
                          effect where they have none (WeightsOnly, use_dynamic_quant, conversions)
    quant_format          "QDQ": standard QuantizeLinear and DequantizeLinear nodes, the only format there is
    activation_type       "int8", "uint8", "int16", "uint4", … 2 to 16 bits, or onnxruntime's / Quark's QuantType
                          spelling; "float16" and "bfloat16", for weights too, convert the model instead
    weight_type           as activation_type
    per_channel           one scale per output channel of a weight
    reduce_range          weights use 7 of 8 bits, for processors without VNNI
    weight_pairs          how int8 weights keep from saturating on x64 without VNNI: one of `PAIRS`
    op_types_to_quantize  only these operator types; empty: all that the target knows
    nodes_to_quantize     only these nodes; each entry a name, a glob (`layer3/*`) or a regular expression (`^conv`)
    nodes_to_exclude      never these nodes; entries as above
    subgraphs_to_exclude  pairs ([start nodes], [end nodes]): everything on a path from a start to an end stays float
    optimize_model        fold BatchNorm, constants and neighbours before quantizing
    include_cle           cross-layer equalization: even out the ranges of channels between layers; nothing to do, and
                          nothing done, with per_channel
    include_fast_ft       tune weights layer by layer after quantizing, see `finetune`
    include_auto_mp       move layers to int8 where the outputs allow it, see the option AutoMixprecision
    use_dynamic_quant     inputs of layers become uint8 at run time, all else stays float; for CPUs, needs no data
    convert_fp16_to_fp32  a float16 model becomes a float32 one; otherwise its scales and float parts stay float16
    use_external_data_format  write weights beside the model, as is always done above 2 GB
    extra_options         see `OPTIONS`

    Raises:
        ConfigError: a value that is unknown or cannot be combined with another one.
    """

    target: str = "cpu"
    calibrate_method: str = "MinMax"
    quant_format: str = "QDQ"
    activation_type: str = "int8"
    weight_type: str = "int8"
    per_channel: bool = False
    reduce_range: bool = False
    weight_pairs: str = "auto"
    op_types_to_quantize: tuple[str, ...] = ()
    nodes_to_quantize: tuple[str, ...] = ()
    nodes_to_exclude: tuple[str, ...] = ()
    subgraphs_to_exclude: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    optimize_model: bool = True
    include_cle: bool = True
    include_fast_ft: bool = False
    include_auto_mp: bool = False
    use_dynamic_quant: bool = False
    convert_fp16_to_fp32: bool = False
    use_external_data_format: bool = False
    extra_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # frozen: written once, here
        put("target", _choice(self.target, tuple(TARGETS), "target"))
        pow2 = type(self.calibrate_method).__name__ == "PowerOfTwoMethod"  # Quark's; its members are named as others
        if str(self.calibrate_method) in WEIGHT_ONLY:
            raise ConfigError(
                f"calibrate_method: unknown value {self.calibrate_method!r} here; it is for WeightCalibrateMethod"
            )
        put("calibrate_method", _choice(self.calibrate_method, tuple(METHODS), "calibrate_method"))
        put("quant_format", _choice(self.quant_format, ("QDQ",), "quant_format"))
        put("weight_pairs", _choice(self.weight_pairs, tuple(PAIRS), "weight_pairs"))
        put("activation_type", type_name(self.activation_type, "activation_type"))
        put("weight_type", type_name(self.weight_type, "weight_type"))
        for name in ("op_types_to_quantize", "nodes_to_quantize", "nodes_to_exclude"):
            put(name, names(name, getattr(self, name)))
        put("subgraphs_to_exclude", subgraphs("subgraphs_to_exclude", self.subgraphs_to_exclude))
        for name in (entry.name for entry in fields(self) if entry.type == "bool"):
            put(name, flag(name, getattr(self, name)))
        put("extra_options", checked_options(self.extra_options))
        if pow2:
            put("extra_options", checked_options({"UsePowerOf2Scale": True, **self.extra_options}))
        self._check_combination()

    def _check_combination(self) -> None:
        self._check_types()
        for name in _INTEGERS_ONLY:
            if self.conversion and getattr(self, name):
                raise ConfigError(f"{name} is for integers; a model that becomes {self.conversion} has none; remove it")
        refuse_idle(self.extra_options, self._situation)
        if self.moving_average is not None and self.calibrate_method != "MinMax":
            raise ConfigError("CalibMovingAverage is a way of MinMax; remove it, or set calibrate_method='MinMax'")
        self._check_mixing()
        self._check_run_time()

    def _check_mixing(self) -> None:
        if not self.include_auto_mp:
            if self.extra_options.get("AutoMixprecision") is not None:
                raise ConfigError("extra option AutoMixprecision needs include_auto_mp=True; set that or remove this")
            return
        if self.conversion or self.use_dynamic_quant:
            how = f"a model that becomes {self.conversion}" if self.conversion else "use_dynamic_quant"
            raise ConfigError(f"include_auto_mp chooses among integer types with scales, and {how} has none; remove it")
        self.mixing.narrows(self.activation_type, self.weight_type)
        _ = self.moved  # its types are refused now rather than after calibration

    def _check_types(self) -> None:
        target, types = self.row, (self.activation_type, self.weight_type)
        if self.conversion is None and set(types) & set(FLOATS):
            raise ConfigError(f"activation_type {types[0]!r} with weight_type {types[1]!r}: convert both, or neither")
        if self.conversion is None:
            target.refuse_types(*types)
        if self.per_channel:
            target.refuse_per_channel()
        if self.reduce_range and TYPES.get(self.weight_type, (8,))[0] != 8:
            raise ConfigError(f"reduce_range is for 8-bit weights, not {self.weight_type!r}; leave one of the two out")
        target.refuse_pairs(self.weight_pairs, self.weight_type)
        if types == ("int8", "uint8") and not self.option("WeightsOnly"):
            raise ConfigError(
                "onnxruntime has no kernel for int8 activations with uint8 weights; use weight_type='int8'"
            )
        if self.option("Int16Bias") and self.option("Int32Bias"):
            raise ConfigError("extra options Int16Bias and Int32Bias exclude each other; remove one")

    def _check_run_time(self) -> None:
        if not self.use_dynamic_quant:
            return
        if self.option("WeightsOnly"):
            raise ConfigError("use_dynamic_quant and WeightsOnly exclude each other; leave one of them out")
        if not self.row.on_cpu:
            raise ConfigError(f"target {self.target!r} needs scales beforehand; remove use_dynamic_quant=True")
        if self.activation_type not in ("uint8", "int8") or self.option("ActivationSymmetric"):
            raise ConfigError(
                "use_dynamic_quant: activations become asymmetric uint8, the only format that ONNX computes at run "
                "time; use activation_type='uint8', without ActivationSymmetric"
            )

    @property
    def _situation(self) -> Situation:
        overrides = asked_for(self.tensor_overrides, self.type_overrides)
        methods = {self.option("WeightCalibrateMethod") or "MinMax", *([self.calibrate_method] * self.observes)}
        grids = [] if self.conversion else [self.weight, *([self.activation] * self.observes)]
        layers = [] if self.conversion else [layer.weight for layer in self.layers.values()]
        told = any(one.symmetric for one in overrides)
        return Situation(
            self.row,
            self.conversion,
            self.observes,
            self.per_channel,
            self.include_cle,
            self.include_auto_mp,
            self.include_fast_ft,
            methods | {one.method for one in overrides if one.method is not None},
            told or any(grid.symmetric for grid in grids[1:]),
            told or any(grid.symmetric for grid in (*grids, *layers)),
        )

    @property
    def tensor_overrides(self) -> dict[str, Override]:
        """What is asked of single tensors, by name."""
        return tensor_overrides(self.option("TensorQuantOverrides") or {})

    @property
    def type_overrides(self) -> dict[str, dict[str, Override]]:
        """What is asked of the "input", "weight" and "output" of operator types."""
        return type_overrides(self.option("OpTypeQuantOverrides") or {})

    def option(self, key: str) -> Any:
        """The value of an extra option; its default where it is absent or None."""
        value = self.extra_options.get(key)
        return OPTIONS[key].default if value is None else value

    @property
    def row(self) -> Target:
        """The target."""
        return TARGETS[self.target]

    @property
    def conversion(self) -> str | None:
        """The float type that the model is converted to; None: it is quantized."""
        return self.activation_type if self.activation_type == self.weight_type in FLOATS else None

    @property
    def activation(self) -> Format:
        """Format of activations."""
        bits, signed = TYPES[self.activation_type]
        symmetric = self.row.symmetric or bool(self.option("ActivationSymmetric"))
        return Format(
            bits,
            signed,
            symmetric,
            scale=self._scale,
            strict=self._strict,
            one_sided=symmetric and self.option("UseUnsignedReLU"),
        )

    @property
    def weight(self) -> Format:
        """Format of weights, per-tensor; placement adds the axis, and the block, where it is asked for."""
        bits, signed = TYPES[self.weight_type]
        symmetric = self.option("WeightSymmetric")
        reduced = bits == 8 and (self.reduce_range or self.row.reduce_range)
        scale: ScaleType = "pow2" if self.option("WeightCalibrateMethod") == "NonOverflow" else self._scale
        return Format(
            bits - reduced, signed, signed if symmetric is None else symmetric, scale=scale, strict=self._strict
        )

    @property
    def bias_bits(self) -> int | None:
        """32: int32 at input scale · weight scale; 8 or 16: with a scale of its own; None: float."""
        if self.option("QuantizeBias") is False or self.option("WeightsOnly") or self.use_dynamic_quant:
            return None
        if self.option("Int16Bias"):
            return 16
        wide = self.option("Int32Bias")
        return self.row.bias_bits if wide is None else 32 if wide else 8

    @property
    def _scale(self) -> ScaleType:
        asked = self.option("UsePowerOf2Scale")
        pow2 = self.row.pow2 or self.calibrate_method == "NonOverflow" if asked is None else asked
        return "pow2" if pow2 else "float"

    @property
    def _strict(self) -> bool | None:
        asked = self.option("StrictSymmetric")
        return False if asked is None and self._scale == "pow2" else asked

    @property
    def activation_ranging(self) -> Ranging:
        """How ranges of activations are chosen."""
        return self.ranging(self.calibrate_method)

    @property
    def moving_average(self) -> float | None:
        """The weight of a new feed in the moving average of extremes; None: their widest count."""
        return float(self.option("CalibMovingAverageConstant")) if self.option("CalibMovingAverage") else None

    @property
    def weight_ranging(self) -> Ranging:
        """How ranges of weights are chosen; SeqMSE starts from MinMax."""
        method = self.option("WeightCalibrateMethod") or "MinMax"
        return self.ranging("MinMax" if method == "SeqMSE" else method, observed=False)

    def ranging(self, method: str, *, observed: bool = True) -> Ranging:
        """A range method with the settings of this configuration.

        observed: of an activation. Weights and other constants are known exactly: no range of theirs is widened.
        """
        return ranging_of(method, self.option, observed=observed)

    @property
    def finetune(self) -> Method | None:
        """Method and settings of fast fine-tuning; None without `include_fast_ft`."""
        return from_quark(self.option("FastFinetune") or {}) if self.include_fast_ft else None

    @property
    def tuning(self) -> FastFinetune | None:
        """What is done layer by layer after quantizing: fine-tuning, or bias correction and scales by output error."""
        if (chosen := self.finetune) is not None:
            return replace(chosen, scale_search=True) if self.searches_scales else chosen
        judged, searched = self.option("BiasCorrection") == "auto", self.searches_scales
        return Nearest(scale_search=searched, update_bias=self.corrects, judged=judged) if self.tunes else None

    @property
    def smoothing(self) -> Smoothing:
        """Settings of SmoothQuant."""
        return Smoothing.of(self.option("SmoothQuant"), self.option("SmoothAlpha"))

    @property
    def mixing(self) -> Mixing:
        """Settings of automatic mixed precision."""
        return mixing_from_quark(self.option("AutoMixprecision") or {})

    @property
    def moved(self) -> QuantizationConfig:
        """What layers move to with `include_auto_mp`: the same, with the types of TargetLayerConfig."""
        (activation, weight), options = self.mixing.types, {**self.extra_options, "AutoMixprecision": None}
        return replace(
            self, activation_type=activation, weight_type=weight, include_auto_mp=False, extra_options=options
        )

    @property
    def layers(self) -> dict[str, LayerConfig]:
        """The configurations of layers that have types of their own, by name or pattern."""
        found = {}
        for pattern, asked in (self.option(LAYER_TYPES) or {}).items():
            try:
                found[pattern] = LayerConfig(**fields_of_layer(vars(self), asked))
            except ConfigError as error:
                raise ConfigError(f"{LAYER_TYPES}[{pattern!r}]: {error}") from error
        return found

    @property
    def tunes(self) -> bool:
        """Whether layers are walked after quantizing: fine-tuning, bias correction, or scales by output error."""
        return self.include_fast_ft or self.corrects or self.searches_scales

    @property
    def moves_biases(self) -> bool:
        """Whether biases may change, so that every layer needs one."""
        return self.include_fast_ft or self.corrects or self.training is not None

    @property
    def training(self) -> QAT | None:
        """How the quantized model is trained as a whole; None: it is not."""
        asked = self.option("QAT")
        return None if asked is False else QAT.from_dict({} if asked is True else asked)

    @property
    def corrects(self) -> bool:
        """Whether biases are corrected; those of "auto" where activations have ranges, so that there are data."""
        return self.observes if (asked := self.option("BiasCorrection")) == "auto" else bool(asked)

    @property
    def protection(self) -> Protection:
        """What protection may do, and what it must; it has nothing to do where activations have no ranges."""
        return Protection.of(self.option("Protect")) if self.observes else Protection(on=False)

    @property
    def needs_data(self) -> bool:
        """Whether ranges of activations, or what is tuned, come from calibration data."""
        return self.observes or self.tunes or self.include_auto_mp or self.training is not None

    @property
    def observes(self) -> bool:
        """Whether activations have ranges."""
        return not (self.conversion or self.use_dynamic_quant or self.option("WeightsOnly"))

    @property
    def searches_scales(self) -> bool:
        """Whether weight scales are chosen by the output error of their layer."""
        return bool(self.option("WeightCalibrateMethod") == "SeqMSE")

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal configuration."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> QuantizationConfig:
        """Read a configuration; unknown keys are errors.

        Raises:
            ConfigError: not JSON, an unknown key, or a bad value.
        """
        with reading("the configuration", ConfigError, "mend it there", "is not JSON"):
            document = json_of(text)
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


class LayerConfig(QuantizationConfig):
    """The configuration as it is for one layer: what others need of it is none of its business, and not checked."""

    def _check_combination(self) -> None:
        self._check_types()
        refuse_idle({key: self.extra_options.get(key) for key in ("BlockSize", "WeightSymmetric")}, self._situation)


def _choice(value: object, known: tuple[str, ...], name: str) -> str:
    return named(value, known, name, ALIASES)
