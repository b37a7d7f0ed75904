"""AIMET's runtime configuration: which tensors a target quantizes, symmetric or not, read from JSON.

Six sections, each of which overrides what the ones before it say, key by key:

    defaults       all operators and parameters
    params         parameters by type: weight, bias, …
    op_type        operators by type, their parameters included
    supergroups    chains of operators that run as one: no quantizer inside
    model_input    inputs of the model, and constants that are no parameters
    model_output   what the last operators compute

`supergroup_pass_list` may name patterns of operators that are one operator to the target. True and false are the
strings "True" and "False". Semantics: research/aimet.md §4 (aimet-onnx 2.42).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.json_reading import Entry, read_json, shown, told

SECTIONS = ("defaults", "params", "op_type", "supergroups", "model_input", "model_output")
PARAM_TYPES = ("weight", "bias", "weight_r", "running_mean", "running_var")
PASSES = ("MatmulAdd", "LayerNormalization", "RMSNormalization", "MaskedSoftmax")

SHIPPED = {
    "default": "default_config.json",
    "default_per_channel": "default_config.json",
    "default_per_tensor": "default_config_per_tensor.json",
}
"""Configurations of our own, by the name a user may give instead of a path."""

AIMET_ONLY = (*(f"htp_v{n}" for n in (66, 68, 69, 73, 75, 79, 81, 85)), "enpu_v6", "enpu_v7")
"""Names that AIMET knows; the files are Qualcomm's and come with aimet-onnx."""


@dataclass(frozen=True)
class ParamRule:
    """What is said of parameters; None: nothing."""

    quantized: bool | None = None
    symmetric: bool | None = None


@dataclass(frozen=True)
class Precision:
    """One side of a kernel."""

    bits: int
    floating: bool = False


@dataclass(frozen=True)
class Kernel:
    """Types that a target can run an operator with; they bound the search for mixed precision, nothing else."""

    activation: Precision
    param: Precision | None = None


@dataclass(frozen=True)
class OpRule:
    """What is said of all operators of one type; None: nothing.

    inputs, outputs  whether these activations carry a quantizer (inputs: only True can be said)
    symmetric        of all activations around it
    constraint       output range known beforehand: (lo, hi), or (lo, None) where the upper end is observed
    """

    inputs: bool | None = None
    outputs: bool | None = None
    symmetric: bool | None = None
    params: Mapping[str, ParamRule] = field(default_factory=FrozenDict)
    per_channel: bool | None = None
    constraint: tuple[float, float | None] | None = None
    kernels: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class RuntimeConfig:
    """A whole configuration.

    outputs, symmetric  of activations, and `param` of parameters: the defaults
    strict, unsigned    symmetric grids: without their lowest code; from zero where no value is negative
    per_channel         weights have a scale per output channel, where their operator type says nothing else
    supergroups         operator types of each chain
    passes              names out of PASSES
    """

    outputs: bool = False
    symmetric: bool | None = None
    param: ParamRule = ParamRule()
    strict: bool = False
    unsigned: bool = False
    per_channel: bool = False
    kernels: tuple[Kernel, ...] = ()
    hw_version: str | None = None
    params: Mapping[str, ParamRule] = field(default_factory=FrozenDict)
    op_types: Mapping[str, OpRule] = field(default_factory=FrozenDict)
    supergroups: tuple[tuple[str, ...], ...] = ()
    passes: tuple[str, ...] = ()
    model_input: bool = False
    model_output: bool = False

    def per_channel_of(self, op_type: str) -> bool:
        """Whether the parameters of an operator type have a scale per channel."""
        own = self.op_types.get(op_type, OpRule()).per_channel
        return self.per_channel if own is None else own


def load_runtime_config(source: str | Path | Mapping[str, Any] | None = None) -> RuntimeConfig:
    """The configuration in a file, in a dictionary of the same shape, or of one of the names in SHIPPED.

    Raises:
        ConfigError: there is no such file or name, or an entry is not allowed: the message holds its JSON path.
    """
    if isinstance(source, Mapping):
        return _config(Entry(source, "runtime configuration"))
    if source is not None and not isinstance(source, (str, Path)):
        raise ConfigError(f"config_file must be a path, a name or a dictionary, not {shown(source)}")
    return _config(read_json(path_of("default" if source is None else source), "config_file"))


def path_of(source: str | Path) -> Path:
    """The file of a path, or of a name in SHIPPED.

    Raises:
        ConfigError: there is none.
    """
    if str(source) in SHIPPED:
        return Path(__file__).parents[2] / "quantsim" / SHIPPED[str(source)]
    path = Path(source)
    if path.is_file():
        return path
    if str(source) in AIMET_ONLY:
        folder = "aimet_onnx/common/quantsim_config"
        file = f"{str(source).replace('_', '_quantsim_config_')}.json"
        raise ConfigError(
            f"config_file {str(source)!r} is a configuration of Qualcomm's that we do not ship; pass the path of the "
            f"file instead: with aimet-onnx installed it is {folder}/{file} in its site-packages"
        )
    if path.suffix or path.parent != Path("."):
        raise ConfigError(f"config_file {str(source)!r} does not exist; known names: {', '.join(SHIPPED)}")
    raise ConfigError(f"config_file: no file and no name {str(source)!r}{nearest(str(source), SHIPPED)}")


def _config(document: Entry) -> RuntimeConfig:
    entries = document.object((*SECTIONS, "supergroup_pass_list"), SECTIONS)
    known = ("ops", "params", "strict_symmetric", "unsigned_symmetric", "per_channel_quantization")
    defaults = entries["defaults"].object((*known, "supported_kernels", "hw_version"), ("ops", "params"))
    ops = defaults["ops"].object(("is_output_quantized", "is_symmetric", "is_input_quantized"))
    if "is_input_quantized" in ops:
        ops["is_input_quantized"].wrong("is no default of AIMET's; say it under op_type, or under model_input")
    passes = told(entries, "supergroup_pass_list", lambda entry: entry.list()) or []
    return RuntimeConfig(
        outputs=bool(told(ops, "is_output_quantized", lambda e: e.only_true("turn outputs off under op_type"))),
        symmetric=told(ops, "is_symmetric", Entry.flag),
        param=_param_rule(defaults["params"]),
        strict=bool(told(defaults, "strict_symmetric", Entry.flag)),
        unsigned=bool(told(defaults, "unsigned_symmetric", Entry.flag)),
        per_channel=bool(told(defaults, "per_channel_quantization", Entry.flag)),
        kernels=told(defaults, "supported_kernels", lambda e: _kernels(e, ("activation", "param"))) or (),
        hw_version=told(defaults, "hw_version", Entry.text),
        params=_param_rules(entries["params"]),
        op_types=FrozenDict({name: _op_rule(entry) for name, entry in entries["op_type"].object().items()}),
        supergroups=tuple(_supergroup(entry) for entry in entries["supergroups"].list()),
        passes=tuple(entry.choice(PASSES) for entry in passes),
        model_input=_end(entries["model_input"], "is_input_quantized"),
        model_output=_end(entries["model_output"], "is_output_quantized"),
    )


def _end(entry: Entry, key: str) -> bool:
    """`model_input` or `model_output`."""
    return bool(told(entry.object((key,)), key, lambda e: e.only_true("leave the key out")))


def _param_rule(entry: Entry) -> ParamRule:
    entries = entry.object(("is_quantized", "is_symmetric"))
    return ParamRule(*(told(entries, key, Entry.flag) for key in ("is_quantized", "is_symmetric")))


def _param_rules(entry: Entry) -> Mapping[str, ParamRule]:
    return FrozenDict({name: _param_rule(rule) for name, rule in entry.object(PARAM_TYPES).items()})


def _op_rule(entry: Entry) -> OpRule:
    flags = ("is_output_quantized", "is_symmetric", "per_channel_quantization")
    others = ("is_input_quantized", "params", "supported_kernels", "encoding_constraints")
    entries = entry.object((*flags, *others))
    outputs, symmetric, per_channel = (told(entries, key, Entry.flag) for key in flags)
    return OpRule(
        inputs=told(entries, "is_input_quantized", lambda e: e.only_true("turn off the outputs of what is in front")),
        outputs=outputs,
        symmetric=symmetric,
        params=told(entries, "params", _param_rules) or FrozenDict(),
        per_channel=per_channel,
        constraint=told(entries, "encoding_constraints", _constraint),
        kernels=told(entries, "supported_kernels", lambda e: _kernels(e, ("activation",))) or (),
    )


def _constraint(entry: Entry) -> tuple[float, float | None]:
    entries = entry.object(("min", "max"), ("min",))
    low, high = entries["min"].number(), told(entries, "max", Entry.number)
    if high is not None and high <= low:
        entry.wrong(f"is no range: max {high:g} is not above min {low:g}")
    return low, high


def _supergroup(entry: Entry) -> tuple[str, ...]:
    entries = entry.object(("op_list",), ("op_list",))
    return tuple(name.text() for name in entries["op_list"].list(2, "operator types"))


def _kernels(entry: Entry, needed: Collection[str]) -> tuple[Kernel, ...]:
    kernels = []
    for kernel in entry.list(1, "kernel"):
        entries = kernel.object(("activation", "param"), needed)
        kernels.append(Kernel(_precision(entries["activation"]), told(entries, "param", _precision)))
    return tuple(kernels)


def _precision(entry: Entry) -> Precision:
    entries = entry.object(("bitwidth", "dtype"), ("bitwidth", "dtype"))
    bits, dtype = entries["bitwidth"], entries["dtype"].choice(("int", "float"))
    allowed = (4, 8, 16, 32) if dtype == "int" else (16, 32)
    if not isinstance(bits.value, int) or bits.value not in allowed:
        bits.wrong(f"must be one of {', '.join(map(str, allowed))} for dtype {dtype!r}, not {shown(bits.value)}")
    return Precision(bits.value, dtype == "float")
