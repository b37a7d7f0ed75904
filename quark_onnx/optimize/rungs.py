"""The ladder: what costs nothing in the model but time to find, cheapest first; each is kept only if it helps.

one scale per weight → one per channel → biases corrected → weight scales by output error → rounding → protection
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.presets import beginning
from quark_onnx.optimize.records import Objective

ROUNDING: Mapping[str, Any] = {"OptimAlgorithm": "gptq"}
"""Measured on MobileNet and ResNet-20: as good as AdaRound at 8 and at 4 bits, in three quarters of the time."""


DECIDED = (
    *("BiasCorrection", "Protect", "WeightCalibrateMethod", "FastFinetune"),
    *("LayerTypes", "TableBits", "BlockSize", "WeightsOnly"),
)
"""Extra options that rungs and choices of layers set."""


@dataclass(frozen=True)
class Rung:
    """One technique: what it is called, and what it changes; `plain`: scales alone, so that layers can be compared."""

    name: str
    change: Callable[[QuantizationConfig], QuantizationConfig]
    plain: bool = False

    def named(self, below: str) -> str:
        """What a configuration is called that has this and what is below."""
        return f"8 bits, {self.name}" if self.plain else f"{below}, {self.name}"


def bottom(target: str, options: Mapping[str, Any]) -> QuantizationConfig:
    """Plain rounding in 8 bits for a target, one scale per weight; `options` are the user's extra options.

    Raises:
        ConfigError: no such target, or an option does not fit, or is what the search decides.
    """
    if decided := [name for name in options if name in DECIDED]:
        raise ConfigError(f"option {decided[0]!r} is what the search decides; remove it")
    _, start = beginning(None, {"target": target})
    free = {"ForceQuantizeNoInputCheck": False}  # what moves floats rounds nothing, as with protection
    plain = {**start.extra_options, **free, "BiasCorrection": False, "Protect": False, **options}
    return replace(start, target=target, per_channel=False, extra_options=plain)


def rungs(config: QuantizationConfig, objective: Objective) -> list[Rung]:
    """The techniques above the bottom that the target has.

    Layer by layer weights are rounded by output error in any case: for the whole model that is tried only where time
    alone counts, and all of it may stay on integers.
    """
    apart = Rung("one scale per channel", lambda c: replace(c, per_channel=True), plain=True)
    found = [apart] if config.row.per_channel else []
    found.append(Rung("biases corrected", lambda c: _with(c, BiasCorrection=True)))
    if objective == "latency":
        found += [
            Rung("weight scales by output error", lambda c: _with(c, WeightCalibrateMethod="SeqMSE")),
            Rung("rounding by output error", rounded),
        ]
    return [*found, Rung("protected", lambda c: _with(c, Protect=True))]


def rounded(config: QuantizationConfig) -> QuantizationConfig:
    """With weights that are fine-tuned, biases included."""
    options = {k: v for k, v in config.extra_options.items() if k not in ("BiasCorrection", "WeightCalibrateMethod")}
    return replace(config, include_fast_ft=True, extra_options={**options, "FastFinetune": dict(ROUNDING)})


def for_layers(config: QuantizationConfig) -> QuantizationConfig:
    """What mixtures of layers are made with: rounding, and protection from what operators without weights do."""
    return _with(rounded(config), Protect=True)


def _with(config: QuantizationConfig, **options: Any) -> QuantizationConfig:
    return replace(config, extra_options={**config.extra_options, **options})
