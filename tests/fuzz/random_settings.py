"""Configurations in rotation: every preset, every target, and options that go with them; simulations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quark_onnx import PRESETS, ConfigError, QuantizationConfig
from quark_onnx.core.settings.presets import beginning
from quark_onnx.core.settings.range_methods import METHODS
from quark_onnx.core.settings.targets import TARGETS

SPELLED = ("S4S4_ASWS", "U8S4_AAWS", "S16S16_ASWS", "U8S8_AAWA", "S8S8_ASWS", "U16S4_AAWS")
"""Presets that have no place in the list."""

SIMULATION = "simulation"
"""Stands for a preset: AIMET's workflow, whose arguments are in `fields`."""

SCHEMES = ("post_training_tf_enhanced", "post_training_tf", "post_training_percentile")

SHORT = {"NumIterations": 12}
"""Fine-tuning that is over soon."""

FIELDS: dict[str, tuple[Any, ...]] = {
    "per_channel": (True, False),
    "optimize_model": (False,),
    "include_cle": (False, True),
    "weight_pairs": ("safe", "uint8", "off"),
    "calibrate_method": tuple(METHODS),
    "activation_type": ("uint8", "int8", "uint16", "int16"),
    "weight_type": ("int8", "uint8", "int4", "int16"),
    "op_types_to_quantize": (("Conv", "MatMul", "Gemm"), ("MatMul", "Add")),
    "nodes_to_exclude": (("*1*",),),
    "use_external_data_format": (True,),
}
OPTIONS: dict[str, tuple[Any, ...]] = {
    "ActivationSymmetric": (True, False),
    "WeightSymmetric": (True, False),
    "StrictSymmetric": (True, False),
    "UseUnsignedReLU": (True,),
    "UsePowerOf2Scale": (True,),
    "BlockSize": (16, 4),
    "QuantizeBias": (False,),
    "Int32Bias": (False, True),
    "Int16Bias": (True,),
    "CalibMovingAverage": (True,),
    "CalibTensorRangeSymmetric": (True, False),
    "WeightCalibrateMethod": ("MinMSE", "Percentile", "Entropy", "SeqMSE"),
    "MinimumRealRange": (0.01,),
    "MatMulConstBOnly": (True,),
    "WeightsOnly": (True,),
    "AlignConcat": (True, False),
    "AlignPool": (True, False),
    "OpTypesToExcludeOutputQuantization": (("Conv",), ("MatMul", "Add")),
    "HighBiasAbsorption": (True,),
    "BiasCorrection": (True, "auto", False),
    "Protect": (True, False),
    "ForceQuantizeNoInputCheck": (True, False),
    "OpTypeQuantOverrides": (
        {"Conv": {"output": {"quant_type": "QUInt16"}}},
        {"MatMul": {"weight": {"quant_type": "QInt4"}}},
    ),
}


@dataclass(frozen=True)
class Settings:
    """What a configuration is made of, as plain values."""

    preset: str
    target: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> QuantizationConfig:
        """The configuration.

        Raises:
            ConfigError: these do not go together.
        """
        if self.preset == SIMULATION:
            return QuantizationConfig()
        asked = {} if self.target is None else {"target": self.target}
        _, start = beginning(self.preset, asked)
        options = {**start.extra_options, **self.options}
        if start.finetune is not None and start.finetune.steps(4):  # GPTQ has none
            options["FastFinetune"] = {**start.option("FastFinetune"), **SHORT}
        return replace(start, **asked, **self.fields, extra_options=options)

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"preset": self.preset, "target": self.target, "fields": self.fields, "options": self.options}


def random_settings(seed: int) -> Settings:
    """The settings of that seed; what cannot be combined is left out."""
    rng = np.random.default_rng([seed, 5])
    plain = [name for name, config in PRESETS.items() if not config.include_fast_ft]
    names = [*PRESETS, *SPELLED, *plain, *[SIMULATION] * 4]  # fine-tuning takes time
    settings = Settings(names[seed % len(names)])
    if settings.preset == SIMULATION:
        arguments = {"quant_scheme": str(rng.choice(SCHEMES)), "default_output_bw": int(rng.choice([8, 16]))}
        return replace(settings, fields=arguments)
    if rng.random() < 0.4:
        target = str(rng.choice(list(TARGETS)))
        fitting = replace(settings, preset="INT8_PROTECTED") if rng.random() < 0.7 else settings
        settings = _possible(replace(fitting, target=target)) or settings
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        key = str(rng.choice([*FIELDS, *OPTIONS]))
        values = (FIELDS | OPTIONS)[key]
        value = values[int(rng.integers(len(values)))]
        part = "fields" if key in FIELDS else "options"
        settings = _possible(replace(settings, **{part: {**getattr(settings, part), key: value}})) or settings
    return settings


def _possible(settings: Settings) -> Settings | None:
    try:
        _ = settings.config
    except ConfigError:
        return None
    return settings
