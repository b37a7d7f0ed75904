"""Automatic mixed precision: which layers may change their types, and how it is judged what that costs.

The settings of `include_auto_mp`. Names are those of AMD Quark (`MetricThreshold` in its dictionaries is
`metric_threshold` here). One of two directions follows from the types: TargetLayerConfig has fewer bits than the
configuration (layers move to it while the outputs allow it), or more (layers move to it until the outputs are good
enough).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.number_formats import FLOATS, TYPES, type_name
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.settings.checked_fields import choice, field, optional, real, subset, whole
from quark_onnx.core.settings.fast_finetune import quark_key

METRICS = {
    "sqnr": "signal to noise in dB, of the worst slice where one is worse than the whole",
    "psnr": "largest value to noise in dB",
    "cosine": "cosine of the angle between float and quantized output, 1 is best",
    "l2": "Euclidean distance, mean over samples, 0 is best",
    "kl": "Kullback-Leibler divergence of the distributions along the last axis (softmax of outputs that are none), "
    "0 is best",
}
"""What outputs can be judged by."""

LESS_IS_BETTER = ("l2", "kl")

AUTO = "auto"
"""MetricThreshold that is chosen from what the wider types reach, see `limit`."""

GOALS = {"sqnr": 25.0, "psnr": 35.0, "cosine": 1 - 10**-2.5 / 2}
"""What `AUTO` asks for, by metric: noise of 1/300 of the signal's power, where the peak is 10 dB above the signal. The
cosine of an error e, as a part of the signal's power, is 1 − e / 2."""

LOSS = 3.0
"""dB that may be lost where the wider types do not reach as much: the narrower ones double the noise."""


def _names(name: str, value: Any) -> tuple[str, ...]:
    listed = not isinstance(value, str) and isinstance(value, Sequence) and all(isinstance(v, str) for v in value)
    if not listed:
        raise ConfigError(f"{name} must be a list of node names, globs or regular expressions (^…), not {value!r}")
    return tuple(value)


def _threshold(name: str, value: Any) -> float | str | None:
    if isinstance(value, str):
        return str(choice((AUTO,))(name, value))
    return None if value is None else float(real()(name, value))


def _types(name: str, value: Any) -> FrozenDict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{name} must be a dictionary {{"activation_type": …, "weight_type": …}}, not {value!r}')
    found = {}
    for key, entry in value.items():
        if key not in INT8:
            raise ConfigError(f"{name}: unknown key {key!r}{nearest(str(key), INT8)}")
        found[key] = type_name(entry, f"{name}[{key!r}]")
        if found[key] in FLOATS:
            raise ConfigError(f"{name}[{key!r}]: layers move to integer types, not to {found[key]!r}")
    return FrozenDict(INT8 | found)


INT8 = {"activation_type": "int8", "weight_type": "int8"}
"""The default of TargetLayerConfig."""


@dataclass(frozen=True)
class Mixing:
    """Settings of automatic mixed precision.

    target_layer_config  types that layers move to, {"activation_type": …, "weight_type": …}; what is left out is int8
    metric_default       how outputs are judged, one of `METRICS`
    metric_threshold     what the outputs must keep, in units of the metric: at least so much, of `LESS_IS_BETTER` at
                         most; "auto": see `limit`; None: layers are ranked, and nothing is moved
    metric_output_index  the output that counts; None: the worst of all
    data_size            calibration samples that are judged by
    target_op_type       only these operator types move
    include_layers       only these nodes move: names, globs (`layer3/*`) or regular expressions (`^conv`); empty: all
    exclude_layers       these nodes never move; as above

    Raises:
        ConfigError: a field is out of its range.
    """

    target_layer_config: Mapping[str, str] | None = field(None, optional(_types))
    metric_default: str = field("sqnr", choice(tuple(METRICS)))
    metric_threshold: float | str | None = field(AUTO, _threshold)
    metric_output_index: int | None = field(None, optional(whole(0)))
    data_size: int = field(32, whole(1))
    target_op_type: tuple[str, ...] = field(LAYERS, subset(LAYERS))
    include_layers: tuple[str, ...] = field((), _names)
    exclude_layers: tuple[str, ...] = field((), _names)

    def __post_init__(self) -> None:
        for entry in fields(self):
            name = f"AutoMixprecision {quark_key(entry.name)}"
            object.__setattr__(self, entry.name, entry.metadata["check"](name, getattr(self, entry.name)))
        if self.metric_threshold == AUTO and self.metric_default not in GOALS:
            raise ConfigError(
                f"AutoMixprecision MetricDefault {self.metric_default!r} has no natural limit: give MetricThreshold, "
                "or None to see in the report what each layer costs"
            )

    @property
    def more_is_better(self) -> bool:
        """Which way the metric goes."""
        return self.metric_default not in LESS_IS_BETTER

    @property
    def types(self) -> tuple[str, str]:
        """Activation and weight type that layers move to."""
        wanted = self.target_layer_config or INT8
        return wanted["activation_type"], wanted["weight_type"]

    def limit(self, best: float) -> float | None:
        """The score that is asked for when all layers in the wider types have `best`; None: nothing is moved.

        AUTO asks for that of `GOALS`, or for twice the noise of `best` where that is less.
        """
        if self.metric_threshold != AUTO:
            return None if self.metric_threshold is None else float(self.metric_threshold)
        noisier = 1 - (1 - best) * 10 ** (LOSS / 10) if self.metric_default == "cosine" else best - LOSS
        return min(GOALS[self.metric_default], noisier)

    def narrows(self, activation_type: str, weight_type: str) -> bool:
        """Whether layers move to fewer bits than those of the configuration.

        Raises:
            ConfigError: no type changes, or one gets wider and the other one narrower.
        """
        own = activation_type, weight_type
        steps = [TYPES[there][0] - TYPES[here][0] for here, there in zip(own, self.types, strict=True)]
        told = f"layers are {' / '.join(own)} (activations / weights) and would move to {' / '.join(self.types)}"
        if not any(steps):
            raise ConfigError(f"include_auto_mp: {told}: give other types, or another TargetLayerConfig")
        if min(steps) < 0 < max(steps):
            raise ConfigError(f"include_auto_mp: {told}: both types must get narrower, or both wider")
        return min(steps) < 0

    def to_dict(self) -> dict[str, Any]:
        """Quark's dictionary, with what differs from the default; `mixing_from_quark` reads it back."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {quark_key(name): list(v) if isinstance(v, tuple) else v for name, v in changed.items()}


_MOST = "the most layers that meet MetricThreshold are moved; set that"
_ALONE = "tensors between layers are decided with the layers, and have one type; leave it out"
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "SubgraphJson": ((), "layers are ranked one by one; choose them with IncludeLayers and ExcludeLayers"),
    "MetricDistanceFn": ((), f"a configuration holds no functions; MetricDefault is one of {', '.join(METRICS)}"),
    "MetricEvaluateFn": ((), f"a configuration holds no functions; MetricDefault is one of {', '.join(METRICS)}"),
    "MetricOptimizeObject": ((), _MOST),
    "SensitivityCacheFile": ((), "the ranking is in the report, `mixed`; leave it out"),
    "WorkerNum": ((1,), "onnxruntime uses all threads for one layer after the other; limit them with OMP_NUM_THREADS"),
    "DualQuantNodes": ((False,), _ALONE),
    "NoInputQDQShared": ((False,), _ALONE),
    "SharedParamMode": ((), "a weight that layers share changes its type when all of them do; leave it out"),
}
"""Keys of Quark that choose nothing here: the values that say what is done anyway, and why others are refused."""


def mixing_from_quark(values: Mapping[str, Any]) -> Mixing:
    """The settings in Quark's dictionary; missing keys stand for the defaults, and so does None, but for the threshold.

    Raises:
        ConfigError: an unknown key, one that is not supported, or a bad value.
    """
    names = {quark_key(entry.name): entry.name for entry in fields(Mixing)}
    for key, value in values.items():
        accepted, reason = UNSUPPORTED.get(key, ((), ""))
        if key not in names and key not in UNSUPPORTED:
            raise ConfigError(f"unknown AutoMixprecision key {key!r}{nearest(str(key), [*names, *UNSUPPORTED])}")
        if reason and value is not None and not any(value == one and type(value) is type(one) for one in accepted):
            raise ConfigError(f"AutoMixprecision {key} = {value!r} is not supported: {reason}")
    given = {names[k]: v for k, v in values.items() if k in names and (v is not None or k == "MetricThreshold")}
    return Mixing(**given)
