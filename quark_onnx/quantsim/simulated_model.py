"""Where every simulation begins: the user's float model, and the quantizers that a runtime configuration puts on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.settings.aimet_runtime_config import RuntimeConfig, load_runtime_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.opened_model import open_model
from quark_onnx.graph import Model, ModelProto
from quark_onnx.graph.integer_nodes import refuse_quantized
from quark_onnx.graph.opset import operator_types
from quark_onnx.graph.value_info import declare_outputs
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.stages.prepare import prepare
from quark_onnx.stages.simulated_placement import simulated_sites

Source: TypeAlias = "str | Path | ModelProto"
ConfigFile = str | Path | Mapping[str, Any] | None

ALIKE = 0.8
"""How like one another two names are, from 0 to 1, if one is taken for the other misspelt."""


@dataclass(frozen=True, eq=False)
class Start:
    """A model and its quantizers; no range is chosen yet.

    source    the user's model
    model     float; nodes are named, constants are initializers, all other names are the user's
    plan      sites of the quantizers that are on
    off       sites of those that could be switched on
    channels  parameter → axis of its output channels
    ranges    how ranges are chosen
    """

    source: Model
    model: Model
    plan: Plan
    off: Mapping[str, Site]
    channels: Mapping[str, int]
    ranges: QuantizationConfig


def open_float(source: Source, *, biases: bool = False) -> Model:
    """A float model, its names as they are: nothing is folded.

    Args:
        biases: layers without a bias get one of zeros.

    Raises:
        ModelError: it cannot be read, or is quantized already.
    """
    return _prepared(open_model(source), biases)


def _prepared(model: Model, biases: bool) -> Model:
    refuse_quantized(model)
    prepared = prepare(model, opset=Format().opset, optimize=False, biases=biases).model
    declare_outputs(prepared, model)
    return prepared


def begin(
    source: Source,
    config_file: ConfigFile,
    scheme: QuantScheme,
    param_bits: int,
    activation_bits: int,
    *,
    biases: bool = False,
    libraries: Sequence[str] = (),
) -> Start:
    """The quantizers that AIMET would put on a model.

    Args:
        config_file: a runtime configuration, see `load_runtime_config`; None: our default, with weights per channel.
        scheme: how ranges are chosen.
        param_bits, activation_bits: widths, 2..31.
        biases: layers without a bias get one of zeros.
        libraries: files with custom operators of the model.

    Raises:
        ConfigError, ModelError: the configuration or the model cannot be used.
    """
    opened = open_model(source, libraries)
    model = _prepared(opened, biases)
    weight, activation = Format(param_bits, signed=True, symmetric=True), Format(activation_bits, signed=False)
    config = load_runtime_config(config_file)
    _refuse_misspelt(config, model)
    placed = simulated_sites(model, config, activation, weight)
    return Start(opened, model, placed.plan, placed.off, placed.channels, ranging(scheme))


def _refuse_misspelt(config: RuntimeConfig, model: Model) -> None:
    """Raise if an operator type is nearly one of ONNX: a rule for it would do nothing.

    Names that are like none are taken for operators of a target, which other models have.

    Raises:
        ConfigError: it is.
    """
    known = operator_types() | {node.op_type for node in model.graph.all_nodes()}
    said = [(f"op_type.{name}", name) for name in config.op_types]
    said += [(f"supergroups[{i}].op_list", name) for i, chain in enumerate(config.supergroups) for name in chain]
    lower = [name.lower() for name in known]
    for place, name in said:
        if name not in known and get_close_matches(name.lower(), lower, 1, ALIKE):
            raise ConfigError(f"config_file: {place}: there is no operator {name!r}{nearest(name, known)}")


def ranging(scheme: QuantScheme, percentile: float | None = None) -> QuantizationConfig:
    """The configuration that makes `choose_ranges` use a scheme, for weights and activations alike.

    percentile: of post_training_percentile, in percent; None: the default of the option Percentile.
    """
    options: dict[str, Any] = {"WeightCalibrateMethod": scheme.method}
    if percentile is not None:
        options["Percentile"] = percentile
    return QuantizationConfig(calibrate_method=scheme.method, extra_options=options)
