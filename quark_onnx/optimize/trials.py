"""Trials: a configuration is quantized, judged, and remembered, so that it is never tried twice."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quark_onnx.clock import Progress
from quark_onnx.core.errors import QuarkError, ResourceError
from quark_onnx.core.records import Measured, worst_of
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.budget_excess import excess
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.engine.output_judge import OutputJudge, run_of
from quark_onnx.engine.result_wording import STOPPED
from quark_onnx.engine.runtimes.known import own_runtime
from quark_onnx.evaluators import Evaluator, EvaluatorError, Score, score
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.optimize.budget_ratio import budget_ratio
from quark_onnx.optimize.layer_damage import Measure, damage_of
from quark_onnx.optimize.layer_table import CONVOLUTIONS, estimated_time
from quark_onnx.optimize.records import Point
from quark_onnx.optimize.trial_store import TrialStore
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Result
from quark_onnx.stages.protect.integer_work import Work

logger = logging.getLogger("quark_onnx")

TRIAL = "trial"

WORD = 16
"""Bits of activations that accelerators have beside 8."""

TIMED = 2
"""Samples that are run to see how long that takes."""


class Stopped(BaseException):
    """The search ends here, wherever that is: Ctrl-C, or there is no time left. Its text says which.

    As KeyboardInterrupt it is no error, and passes by all who look for one.
    """


@dataclass(frozen=True)
class Task:
    """What is tried on what.

    source    the user's model: never modified
    taught    samples for the pipeline
    judge     has the others
    measure   see `layer_damage.damage_of`
    evaluate  the user's evaluator; None: there is none
    home      folder that its module is looked for in
    before    its score of the float model
    latency   milliseconds of the float model in kernels; None: the runtime of the target is not here
    """

    source: str | Path | ModelProto
    taught: Kept
    judge: OutputJudge
    measure: Measure
    budget: Budget
    float_size: int
    evaluate: Evaluator | None = None
    home: Path = field(default_factory=Path)
    before: Score | None = None
    latency: float | None = None


def milliseconds(model: Model, feeds: Sequence[Feed], target: Target) -> float | None:
    """That all kernels take for one run, on one thread, in the runtime of the target; None: it is not here."""
    runtime = own_runtime(target)
    return None if runtime is None else in_milliseconds(runtime.kernel_times(model, feeds[:TIMED]))


def in_milliseconds(times: Mapping[str, float]) -> float:
    """Milliseconds of kernels that take so many microseconds."""
    return round(sum(times.values()) / 1000, 4)


@dataclass
class Trials:
    """All that were made, in order. `best`: the configuration whose model is worth holding."""

    task: Task
    store: TrialStore
    progress: Progress
    deadline: float | None
    begun: Callable[[int, str], None]
    work: Work
    points: list[Point] = field(default_factory=list)
    ratios: dict[int, float] = field(default_factory=dict)
    kept: dict[str, Result] = field(default_factory=dict)
    longest: float = 0.0
    best: str = ""

    def run(
        self,
        name: str,
        step: Literal["ladder", "layers"],
        config: QuantizationConfig,
        choices: Mapping[str, str] | None = None,
        predicted: float | None = None,
    ) -> Point:
        """Try one configuration; what is known of it is not measured again.

        Raises:
            Stopped: there is no time, or Ctrl-C.
            ResourceError: memory, disk or open files have run out.
        """
        text = config.to_json()
        found = self.store.get(TRIAL, text)
        if found is None:
            if self.points and self.deadline is not None and time.monotonic() + self.longest > self.deadline:
                raise Stopped("the time limit")
            self.begun(len(self.points) + 1, name)
            found = self._tried(config, text)
        self.longest = max(self.longest, float(found["seconds"]))
        number, seconds = len(self.points) + 1, float(found["seconds"])
        point = Point(number, name, step, text, choices or {}, predicted=predicted, seconds=seconds)
        point = self._point(point, found)
        self.points.append(point)
        return point

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Progress, of which the user is told.

        Raises:
            Stopped: the time is over, and there is a model.
        """
        self.progress(stage, done, total)
        if self.points and self.deadline is not None and time.monotonic() > self.deadline:
            raise Stopped("the time limit")

    def result(self, config: QuantizationConfig) -> Result:
        """The model of a configuration, made again where it is not held."""
        text = config.to_json()
        if text not in self.kept:
            self._quantized(config, text)
        return self.kept[text]

    def _quantized(self, config: QuantizationConfig, text: str) -> Result:
        """Held are the last one and, of models that are not large, the best.

        Raises:
            Stopped: Ctrl-C, where that leaves a model half tuned.
        """
        self.kept = {known: one for known, one in self.kept.items() if known == self.best}
        done = ModelQuantizer(config, self.tell).quantize_model(self.task.source, None, self.task.taught)
        if any(warning.startswith(STOPPED) for warning in done.report.warnings):
            raise Stopped("Ctrl-C")
        if io.is_heavy(done.evidence.model):
            self.kept.clear()
        self.kept[text] = done
        return done

    def _tried(self, config: QuantizationConfig, text: str) -> dict[str, Any]:
        """What was measured, and kept, or why there is nothing: an evaluator's failure may be gone the next time."""
        start, lasts = time.perf_counter(), True
        try:
            found = self._measured(self._quantized(config, text), config.row)
        except ResourceError:
            raise
        except QuarkError as error:
            logger.warning("%s", error)
            found, lasts = {"error": str(error)}, not isinstance(error, EvaluatorError)
        found |= {"seconds": round(time.perf_counter() - start, 3)}
        if lasts:
            self.store.put(TRIAL, text, found)
        return found

    def _measured(self, result: Result, target: Target) -> dict[str, Any]:
        quantized = result.evidence.quantized
        outputs = self.task.judge.measured(run_of(quantized, fuse=False)).outputs
        found: dict[str, Any] = {
            "outputs": outputs,
            "size": result.report.stored["quantized"],
            **_kernels(result, target),
            "latency": self._latency(quantized, target),
            "error": "",
        }
        if self.task.evaluate is not None:
            with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
                path = written(result, Path(folder) / "model.onnx", result.evidence.model)
                self.tell("evaluate", 0, None)
                said = score(self.task.evaluate, self.task.home, path)
            found |= {"score": said.value, "samples": None if said.samples is None else said.samples.tolist()}
        return found

    def _latency(self, quantized: Model, target: Target) -> list[float] | None:
        """Milliseconds in kernels, float and quantized: told, and nothing is chosen by it."""
        taken = milliseconds(quantized, self.task.judge.feeds, target)
        return None if self.task.latency is None or taken is None else [self.task.latency, taken]

    def _point(self, point: Point, found: Mapping[str, Any]) -> Point:
        """The point with what was measured."""
        if found["error"]:
            self.ratios[point.number] = math.inf
            return replace(point, error=found["error"])
        task, budget = self.task, self.task.budget
        outputs = {n: o if isinstance(o, Measured) else Measured.from_dict(o) for n, o in found["outputs"].items()}
        before, after = task.before, None
        if "score" in found:
            samples = None if found["samples"] is None else np.asarray(found["samples"], np.float64)
            after = Score(float(found["score"]), samples)
        both = (before, after) if before is not None and after is not None else None
        worth: dict[str, Any] = {
            "sqnr": worst_of(outputs),
            "kl": max((o.kl for o in outputs.values() if o.kl is not None), default=None),
            "agreement": min((o.agreement for o in outputs.values() if o.agreement is not None), default=None),
            "drop": None if both is None else both[0].value - both[1].value,
        }
        allowed = None if before is None else budget.drop_from(before.value)
        self.ratios[point.number] = budget_ratio(budget, allowed_drop=allowed, **worth)
        return replace(
            point,
            size=found["size"],
            time=estimated_time(self.work, found["integers"], found["alone"], found["wide"]),
            integers=self.work.on_integers(found["integers"]) / max(1, sum(self.work.products.values())),
            score=None if after is None else after.value,
            noise=None if both is None else both[0].noise_of_drop(both[1]),
            latency=None if found["latency"] is None else (found["latency"][0], found["latency"][1]),
            damage=damage_of(outputs, task.measure),
            over=excess(budget, outputs, *(None if one is None else one.value for one in (before, after))),
            **worth,
        )


def _kernels(result: Result, target: Target) -> dict[str, list[str]]:
    """Nodes on integers, with 16-bit activations, convolutions with weights alone; kernels where the runtime is."""
    plan, ledger = result.plan, result.report.ledger
    sites = {node: [plan.sites[tensor] for tensor in tensors] for node, tensors in plan.nodes.items()}
    alone = {node for node, found in sites.items() if all(site.role == "weight" for site in found)}
    integers, wide = sites.keys() - alone, set[str]()
    if own_runtime(target) is not None:
        integers &= {row.node for row in ledger if row.status != "float"}
    else:
        wide = {node for node in integers if any(s.role == "activation" and s.format.bits == WORD for s in sites[node])}
    alone &= {row.node for row in ledger if row.op_type in CONVOLUTIONS}
    return {"integers": sorted(integers), "wide": sorted(wide), "alone": sorted(alone)}


def written(result: Result, path: Path, source: Model) -> Path:
    """The model of a result as a file; source: the user's."""
    io.save(result.evidence.quantized, path, source=source)
    return path
