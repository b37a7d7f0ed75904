"""What training makes small: a weighted sum of distances from the float model, from labels, or by a graph given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import field, names, optional, real, text


@dataclass(frozen=True)
class Losses:
    """Weights of the terms; one of weight 0 is not computed. Each is a mean over samples.

    kl             KL(float ‖ quantized) of outputs that are probabilities, or of two axes (samples, classes); of other
                   outputs the squared error, as a share of the float output's mean square
    temperature    logits are divided by it first, and the term is multiplied by its square (Hinton et al. 2015)
    features       squared error of `feature_names`, as a share of the float tensor's mean square: mean over the tensors
    feature_names  tensors inside the model; none: what its layers hand on, at most 8 of them, evenly over its depth
    cross_entropy  of the first output against labels, one whole number for each of its rows
    l1, l2         mean absolute, mean squared difference of the first output from labels of its shape
    graph          path of an ONNX model: its inputs are outputs of the model by name, `<output>_float` for those of the
                   float model, and `labels`; its one output is a sum over samples
    graph_weight   of that

    Raises:
        ConfigError: a weight is negative, or none is above 0.
    """

    kl: float = field(1.0, real(0))
    temperature: float = field(1.0, real(above=0))
    features: float = field(0.0, real(0))
    feature_names: tuple[str, ...] = field((), names)
    cross_entropy: float = field(0.0, real(0))
    l1: float = field(0.0, real(0))
    l2: float = field(0.0, real(0))
    graph: str | None = field(None, optional(text))
    graph_weight: float = field(1.0, real(above=0))

    def __post_init__(self) -> None:
        for entry in fields(self):
            checked = entry.metadata["check"](f"losses {entry.name}", getattr(self, entry.name))
            object.__setattr__(self, entry.name, checked)
        if not self.weights:
            raise ConfigError("losses: all weights are 0, so that nothing is learned; give one, e.g. kl=1")
        if self.feature_names and not self.features:
            raise ConfigError("losses: feature_names have no effect without a weight for features; set features=1")

    @property
    def weights(self) -> dict[str, float]:
        """The terms that count, and for how much."""
        found = {name: getattr(self, name) for name in ("kl", "features", "cross_entropy", "l1", "l2")}
        found["graph"] = 0.0 if self.graph is None else self.graph_weight
        return {name: weight for name, weight in found.items() if weight}

    @property
    def needs_labels(self) -> bool:
        """Whether a term compares with labels; whether a graph of the user's does, it says itself."""
        return bool(self.cross_entropy or self.l1 or self.l2)

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults; `from_dict` reads it back to an equal object."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        changed = {e.name: found[e.name] for e in fields(self) if found[e.name] != e.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Losses:
        """The losses in a dictionary; missing keys and None stand for the defaults.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"losses: unknown term {key!r}{nearest(str(key), known)}")
        return cls(**{key: value for key, value in values.items() if value is not None})
