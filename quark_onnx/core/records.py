"""What a stage did to each layer, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quark_onnx.core.plan import Plan


@dataclass(frozen=True)
class LayerRecord:
    """One layer of fine-tuning or bias correction.

    loss_before, loss_after   mean squared error of the layer's output behind its activation, summed over channels by
                              their importance, on the samples that taught; without tuning, and with what was chosen
    held_before, held_after   the same on the held-out samples, which decide
    choice       raw: left as it was; untuned: the bias alone; nearest: scale and bias; tuned: all
    accepted     whether anything was changed
    iterations   of the optimizer
    """

    node: str
    op_type: str
    choice: str
    accepted: bool
    iterations: int
    seconds: float
    loss_before: float
    loss_after: float
    held_before: float
    held_after: float


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was done: the plan, a record per layer, the layers left out with the reason, and whether all were done."""

    plan: Plan
    records: tuple[LayerRecord, ...]
    reasons: Mapping[str, str]
    interrupted: bool


@dataclass(frozen=True)
class MixRecord:
    """One layer of automatic mixed precision.

    score  of the model with this layer alone in the narrower types, by the configured metric
    moved  whether the layer has the types of TargetLayerConfig
    """

    node: str
    op_type: str
    score: float
    moved: bool
