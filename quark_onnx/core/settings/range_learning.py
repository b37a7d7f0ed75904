"""How ranges are learned together with the weights: the settings of the two range-learning schemes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from quark_onnx.core.settings.checked_fields import field, flag, optional, real, subset, whole
from quark_onnx.core.settings.fast_finetune import TUNABLE

LAYERS = tuple(kind for kind in TUNABLE if not kind.endswith("Normalization"))
"""Operator types that ranges are learned at."""


@dataclass(frozen=True)
class RangeLearning:
    """Settings of learned step size quantization (Esser et al. 2020), layer by layer.

    num_iterations  steps of the optimizer per layer
    learning_rate   Adam's first rate for weights, in distances of two codes; it falls to 0 along a cosine
    batch_size      output positions of the layer per step
    positions       output positions of a layer that are kept, over all samples
    target_op_type  learn at these operator types only
    learn_weights   False: ranges (and biases) are learned, weights stay
    update_bias     learn the bias too
    data_size       use at most this many samples; None: all
    holdout         share of the samples that decide whether a layer is kept, and are not trained on
    fixed_seed      of every random choice

    Raises:
        ConfigError: a field is out of its range.
    """

    num_iterations: int = field(400, whole(1))
    learning_rate: float = field(0.01, real(above=0, high=1))
    batch_size: int = field(256, whole(1))
    positions: int = field(20000, whole(2))
    target_op_type: tuple[str, ...] = field(LAYERS, subset(LAYERS))
    learn_weights: bool = field(True, flag)
    update_bias: bool = field(True, flag)
    data_size: int | None = field(None, optional(whole(1)))
    holdout: float = field(0.2, real(0.01, 0.9))
    fixed_seed: int = field(1705472343, whole(0, 2**32 - 1))

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, entry.metadata["check"](entry.name, getattr(self, entry.name)))
