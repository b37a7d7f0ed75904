"""How a quantized model is trained: what of it, by which losses, how fast and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import choice, field, flag, optional, real, text, whole
from quark_onnx.core.settings.training.losses import Losses

ROUNDINGS = ("straight_through", "soft")


USUAL, FINE = (5e-3, 2e-3), (1e-3, 3e-4)
"""Learning rates of weights and of scales, below 8 bits and from there on."""


def _losses(name: str, value: Any) -> Losses:
    """Losses, or their fields by name."""
    if isinstance(value, Mapping):
        return Losses.from_dict(value)
    if not isinstance(value, Losses):
        raise ConfigError(f"{name} must be a dictionary of losses and their weights, not {value!r}")
    return value


@dataclass(frozen=True)
class QAT:
    """Settings of training; as `extra_options["QAT"]`, True or a dictionary of those that differ.

    weights              train weights
    biases               train biases
    weight_scales        train the scales of weights (learned step size quantization, Esser et al. 2020)
    activation_ranges    train the scales of activations, likewise; zero points stay
    rounding             "straight_through": weights move freely, and are rounded where they are used;
                         "soft": each goes to one of the two codes beside it, as AdaRound learns it, of the whole model
    losses               a `Losses`, or its fields, e.g. {"kl": 1.0, "cross_entropy": 0.5}; None: see `losses_for`
    epochs               passes of the data
    steps                the same in mini-batches; None: as many as the epochs have
    batch_size           samples in a mini-batch
    shard                samples of it that are computed together; sums over shards are in their order
    optimizer            "adam", or "sgd" with momentum
    momentum             of either: what is left of the last direction
    learning_rate        of weights, in root mean squares of each weight, and of biases, in about what their layer's
                         output varies by; None: see `rates`
    scale_learning_rate  of logarithms of scales: 0.001 moves a scale by a thousandth; None: see `rates`
    weight_decay         of weights: the share that is taken off in a step at learning rate 1
    warm_up              share of the steps in which rates grow from 0
    schedule             rates afterwards: "constant", "cosine" to 0, or "step"
    step_epochs          of "step": epochs between two of them
    step_factor          of "step": what rates are multiplied by
    flip, crop           other pictures made of the samples, see `stages.train.augmentation`
    holdout              share of the samples that judges, and is not trained on; 0: the data that train judge
    check_every          steps between two looks at these; None: an epoch, at least a twentieth of all steps
    patience             checks without a gain after which training ends; None: never
    checkpoint           a file that keeps all there is at every check; training goes on from there if it is interrupted
    seed                 of every random choice
    time_limit           seconds after which training ends; None: when it is done
    memory_limit         bytes of activations of a shard, each core having one at a time: what lies between a few
                         cuts is computed twice where more would be needed; None: as many as it takes

    Raises:
        ConfigError: a field is out of its range, or nothing is to be trained.
    """

    weights: bool = field(True, flag)
    biases: bool = field(True, flag)
    weight_scales: bool = field(True, flag)
    activation_ranges: bool = field(True, flag)
    rounding: str = field("straight_through", choice(ROUNDINGS))
    losses: Losses | None = dataclasses.field(default=None, metadata={"check": optional(_losses)})
    epochs: int = field(20, whole(1))
    steps: int | None = field(None, optional(whole(1)))
    batch_size: int = field(32, whole(1))
    shard: int = field(8, whole(1))
    optimizer: str = field("adam", choice(("adam", "sgd")))
    momentum: float = field(0.9, real(0, below=1))
    learning_rate: float | None = field(None, optional(real(above=0)))
    scale_learning_rate: float | None = field(None, optional(real(above=0)))
    weight_decay: float = field(0.0, real(0))
    warm_up: float = field(0.05, real(0, below=1))
    schedule: str = field("cosine", choice(("constant", "cosine", "step")))
    step_epochs: int = field(5, whole(1))
    step_factor: float = field(0.1, real(above=0, high=1))
    flip: bool = field(False, flag)
    crop: float = field(0.0, real(0))
    holdout: float = field(0.1, real(0, 0.9))
    check_every: int | None = field(None, optional(whole(1)))
    patience: int | None = field(None, optional(whole(1)))
    checkpoint: str | None = field(None, optional(text))
    seed: int = field(1705472343, whole(0, 2**32 - 1))
    time_limit: float | None = field(None, optional(real(above=0)))
    memory_limit: int | None = field(None, optional(whole(2**20)))

    def __post_init__(self) -> None:
        for entry in fields(self):
            checked = entry.metadata["check"](f"QAT {entry.name}", getattr(self, entry.name))
            object.__setattr__(self, entry.name, checked)
        if not (self.weights or self.biases or self.weight_scales or self.activation_ranges):
            raise ConfigError("QAT trains nothing: leave one of weights, biases, weight_scales, activation_ranges on")
        if self.rounding == "soft" and not self.weights:
            raise ConfigError("QAT rounding 'soft' is about weights, and weights=False keeps them; leave one out")

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults; `from_dict` reads it back to an equal object."""
        found = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if getattr(self, entry.name) != entry.default
        }
        return found | ({} if self.losses is None else {"losses": self.losses.to_dict()})

    def rates(self, bits: int) -> tuple[float, float]:
        """Learning rates of weights and biases, and of scales, where so many bits are the fewest in the model: what
        8 bits lose is little, which large steps do not find.
        """
        usual = USUAL if bits < 8 else FINE
        return self.learning_rate or usual[0], self.scale_learning_rate or usual[1]

    def losses_for(self, labels: str | None) -> Losses:
        """Those that are named; else the float model's outputs, and with them labels of an element type, if there are
        any: by cross-entropy where they are classes, else by their squared error.
        """
        if self.losses is not None:
            return self.losses
        return Losses(cross_entropy=float(labels == "int64"), l2=float(labels == "float32"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QAT:
        """The settings in a dictionary; missing keys and None stand for the defaults.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"QAT: unknown setting {key!r}{nearest(str(key), known)}")
        return cls(**{key: value for key, value in values.items() if value is not None})


def plain_qat(value: bool | Mapping[str, Any] | QAT) -> bool | dict[str, Any]:
    """The option QAT as it is kept: off, on, or on with what differs from the defaults.

    Raises:
        ConfigError: an unknown key, or a bad value.
    """
    if isinstance(value, bool):
        return value
    settings = value if isinstance(value, QAT) else QAT.from_dict(value)
    return settings.to_dict() or True
