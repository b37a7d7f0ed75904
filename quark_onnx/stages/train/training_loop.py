"""The loop: mini-batches, gradients, a step of the optimizer; now and then the held-out samples, and the best kept.

batch ─ shards ─▶ Σ gradients / samples ─▶ slopes of the state ─▶ next state
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Training
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.tuning_pace import TOLD, about
from quark_onnx.stages.train.batches import Batches
from quark_onnx.stages.train.checkpoint import Checkpoint, Reached
from quark_onnx.stages.train.execution import Execution
from quark_onnx.stages.train.guard import Judge, better
from quark_onnx.stages.train.optimizers import Momenta, Optimizer
from quark_onnx.stages.train.parameters import WEIGHT, Parameters
from quark_onnx.stages.train.schedules import Schedule

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """The plan, the very one that was given where nothing is better, and how it went."""

    plan: Plan
    record: Training


@dataclass(frozen=True, eq=False)
class Trainer:
    """A training that is set up.

    weights  of the terms of the loss
    tell     called as `tell(text, steps done, steps)`
    """

    parameters: Parameters
    batches: Batches
    execution: Execution
    weights: Mapping[str, float]
    settings: QAT
    schedule: Schedule
    checkpoint: Checkpoint
    tell: Tell

    def train(self) -> Trained:
        """Train to the end, or until time, patience or the user's Ctrl-C end it; the best state is what counts.

        Raises:
            ConfigError: the checkpoint is of another training.
        """
        begin, ended = perf_counter(), ""
        reached = self.checkpoint.reached() or self._begun()
        first = reached.step
        try:
            for now in self._steps(reached):
                reached = now
                self._told(reached, first, perf_counter() - begin)
                if ended := self._why(reached, perf_counter() - begin):
                    break
            self.checkpoint.keep(reached)
            if ended and not self.schedule.checked(reached.step):
                reached = self._looked(reached)
        except KeyboardInterrupt:
            ended = "Ctrl-C ended it"
            self.checkpoint.keep(reached)
        plan = self.parameters.planned(reached.best) if reached.best_at.step else self.parameters.plan
        counts = reached.step, self.schedule.steps, self.batches.samples, self.batches.judges
        return Trained(plan, Training(reached.curve, reached.best_at, *counts, ended))

    def _begun(self) -> Reached:
        state = self.parameters.start()
        point = self._judge(self.parameters.values(state), 0, None)
        return Reached(state, Momenta(), state, point, (point,))

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.execution, self.batches.held_out, self.weights)

    def _steps(self, reached: Reached) -> Iterator[Reached]:
        """One after the other, from where it is."""
        while reached.step < self.schedule.steps:
            epoch, first = divmod(reached.step, len(self.batches))
            for batch in self.batches.epoch(epoch, first):
                reached = self._stepped(reached, batch)
                if self.schedule.checked(reached.step):
                    reached = self._looked(reached)
                    self.checkpoint.keep(reached)
                yield reached
                if reached.step == self.schedule.steps:
                    return

    def _stepped(self, reached: Reached, batch: Sequence[Feed]) -> Reached:
        """After a mini-batch; where its loss is no number, no step is made."""
        state, step = reached.state, reached.step
        values = self.parameters.values(state, final=False)
        sums: dict[str, Array] = {}
        loss, samples = 0.0, 0
        for found in self.execution.gradients(values, batch):
            loss += sum(weight * found.terms[name] for name, weight in self.weights.items())
            samples += found.samples
            for name, slope in found.of.items():
                sums[name] = sums[name] + slope if name in sums else slope
        losses = reached.losses[0] + loss, reached.losses[1] + samples
        if not math.isfinite(loss):
            return replace(reached, losses=losses)
        of = {name: np.asarray(total / np.float32(samples), np.float32) for name, total in sums.items()}
        slopes = self.parameters.slopes(state, of, step / self.schedule.steps)
        rates = self._rates(self.schedule.factor(step))
        decays = {key: self.settings.weight_decay for key in slopes if key.startswith(WEIGHT)}
        optimizer = Optimizer(self.settings.optimizer, self.settings.momentum)
        after, past = optimizer.step(state, slopes, rates, decays, reached.past)
        return replace(reached, state=after, past=past, losses=losses)

    def _rates(self, factor: float) -> dict[str, float]:
        rates = {key: factor * self.settings.learning_rate * unit for key, unit in self.parameters.units().items()}
        return defaultdict(lambda: factor * self.settings.scale_learning_rate, rates)

    def _looked(self, reached: Reached) -> Reached:
        """With the point of the held-out samples; their best state is kept."""
        total, samples = reached.losses
        point = self._judge(self.parameters.values(reached.state), reached.step, total / samples)
        found = replace(reached, curve=(*reached.curve, point), losses=(0.0, 0))
        return replace(found, best=reached.state, best_at=point) if better(point, reached.best_at) else found

    def _why(self, reached: Reached, seconds: float) -> str:
        """Why training ends here; empty: it goes on, or is done."""
        s, last = self.settings, reached.curve[-1]
        if not math.isfinite(reached.losses[0]) or not math.isfinite(last.held):
            return "the loss is no number any more; a smaller learning_rate may help"
        if s.time_limit is not None and seconds > s.time_limit and reached.step < self.schedule.steps:
            return f"its time limit of {s.time_limit:g} s"
        since = sum(point.step > reached.best_at.step for point in reached.curve)
        if s.patience is not None and since >= s.patience and reached.step < self.schedule.steps:
            return f"{since} looks at the held-out samples brought nothing"
        return ""

    def _told(self, reached: Reached, first: int, seconds: float) -> None:
        """The loss, what the held-out samples said last, and how long the rest will take."""
        last, steps = reached.curve[-1], self.schedule.steps
        total, samples = reached.losses
        now = total / samples if samples else last.loss
        parts = [] if now is None else [f"loss {now:.4g}"]
        parts.append(f"held out {last.held:.4g}")
        parts += [] if last.metric is None else [f"{last.metric:.1%} right"]
        left = seconds / max(reached.step - first, 1) * (steps - reached.step)
        text = " · ".join(parts) + (f", {about(left)} left" if left >= TOLD else "")
        self.tell(text, reached.step, steps)
