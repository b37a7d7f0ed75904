"""`Config`: what `ModelQuantizer` takes; by default the preset that needs no choice."""

from __future__ import annotations

from dataclasses import dataclass, field

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.presets import get_default_config


@dataclass(frozen=True)
class Config:
    """The configuration that holds for the whole model; without one, `get_default_config()`."""

    global_quant_config: QuantizationConfig = field(default_factory=get_default_config)

    def __post_init__(self) -> None:
        if not isinstance(self.global_quant_config, QuantizationConfig):
            raise ConfigError(
                f"global_quant_config must be a QuantizationConfig, e.g. get_default_config('S8S8_AAWS'), "
                f"not {type(self.global_quant_config).__name__}"
            )
