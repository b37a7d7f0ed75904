"""How fast training goes: a factor of every learning rate, step by step, and how many steps there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quark_onnx.core.settings.training.qat import QAT


@dataclass(frozen=True)
class Schedule:
    """steps: of all; per_epoch: mini-batches of an epoch."""

    settings: QAT
    steps: int
    per_epoch: int

    @classmethod
    def of(cls, settings: QAT, per_epoch: int) -> Schedule:
        """As many steps as are asked for, or as the epochs have."""
        return cls(settings, settings.steps or settings.epochs * per_epoch, per_epoch)

    def factor(self, step: int) -> float:
        """Of the learning rates at a step, counted from 0."""
        s = self.settings
        warm = round(s.warm_up * self.steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        if s.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))
        if s.schedule == "step":
            return float(s.step_factor ** (step // (s.step_epochs * self.per_epoch)))
        return 1.0

    def checked(self, step: int) -> bool:
        """Whether the held-out samples are looked at when so many steps are done."""
        every = self.settings.check_every or max(self.per_epoch, -(-self.steps // 20))
        return step % every == 0 or step == self.steps
