"""The story of a quantization: prepare, equalize, place, observe, choose ranges, fine-tune, apply, prove."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from quark_onnx.core.config import Config, QuantizationConfig
from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import LayerRecord
from quark_onnx.engine.apply import apply
from quark_onnx.engine.compare import compare, quantized_values
from quark_onnx.engine.data import CalibrationData, Feed
from quark_onnx.engine.extremes import channel_extremes
from quark_onnx.engine.ledger import ledger
from quark_onnx.engine.observe import observe
from quark_onnx.engine.samples import keep, quarter_of_memory
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.job import ANEW, Clock, Job, Progress, free_output, open_job, unseen
from quark_onnx.result import Report, Result
from quark_onnx.stages.equalize import equalize, tensors_needed
from quark_onnx.stages.finetune import finetune
from quark_onnx.stages.importance import channel_importance
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.verify import verify

logger = logging.getLogger("quark_onnx")

PROBES = 16
"""Calibration feeds that the proofs at the end use."""

MAX_SWEEPS = 20
"""Sweeps of equalization when it is to go on until nothing moves."""

Evaluator = Callable[[ModelProto], float]


class ModelQuantizer:
    """Quantizes models with one configuration.

        ModelQuantizer(Config(get_default_config("S8S8_AAWS"))).quantize_model("model.onnx", "int8.onnx", reader)

    Args:
        config: a `Config`, or the `QuantizationConfig` it would hold.
        progress: called as `progress(stage, done, total)` while work goes on.
        evaluator: for `selective_update`: score of a quantized model, higher is better; default: how near its outputs
            are to the float ones on the first calibration samples.
    """

    def __init__(
        self, config: Config | QuantizationConfig, progress: Progress = unseen, evaluator: Evaluator | None = None
    ) -> None:
        self.config = (config if isinstance(config, Config) else Config(config)).global_quant_config
        self.progress = progress
        self.evaluator = evaluator

    def quantize_model(
        self,
        model_input: str | Path | ModelProto,
        model_output: str | Path | None = None,
        calibration_data_reader: object = None,
        calibration_data_path: str | Path | None = None,
        resume: Plan | str | Path | None = None,
    ) -> Result:
        """Quantize a float model and prove the result.

        Args:
            model_input: path or `onnx.ModelProto`; never modified.
            model_output: path of the QDQ model to write, whole or not at all.
            calibration_data_reader: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
            calibration_data_path: a folder of `.npy`, `.npz` or image files instead.
            resume: a plan of this model (or its folder), e.g. of an interrupted run: its ranges are kept, and its tuned
                layers are not tuned again.

        Returns:
            The plan, the quantized model, the report and the output path.

        Raises:
            ConfigError, ModelError, DataError, PlanError: see each; nothing is written then.
        """
        clock = Clock(self.progress)
        output = free_output(model_input, model_output)
        with clock.stage("prepare"):
            job = open_job(model_input, self.config)
        data = job.data(calibration_data_reader, calibration_data_path)
        plan = resume if isinstance(resume, Plan) or resume is None else Plan.load(resume)
        return finish(decide(job, data, clock, self.evaluator, plan), output, clock)


@dataclass(frozen=True, eq=False)
class Decided:
    """A job whose plan is complete, and what was learned on the way."""

    job: Job
    plan: Plan
    feeds: Sequence[Feed] = ()
    warnings: tuple[str, ...] = ()
    records: tuple[LayerRecord, ...] = ()
    untuned: Mapping[str, str] = field(default_factory=dict)


def decide(
    job: Job, data: CalibrationData | None, clock: Clock, evaluator: Evaluator | None = None, resume: Plan | None = None
) -> Decided:
    """Everything that needs data: equalize, observe, choose ranges, fine-tune.

    Raises:
        DataError: the data does not fit the model.
        PlanError: `resume` belongs to another model.
    """
    if data is None:
        return Decided(job, job.sites)
    with clock.stage("read"):
        feeds = keep(data, quarter_of_memory())
    job = _resumed(job, resume) if resume else _equalized(job, feeds, clock)
    with clock.stage("verify"):
        doubt = verify(job.model, job.prepared, feeds[:2])
    warnings = tuple(data.warnings) + (() if doubt is None else (doubt,))
    plan = resume or _ranged(job, feeds, clock)
    decided = Decided(job, plan, feeds, warnings)
    return _tuned(decided, clock, evaluator) if job.config.tunes else decided


def _resumed(job: Job, plan: Plan) -> Job:
    """The job with the model that the plan was made for."""
    job = job.rescaled(plan.factors, plan.shifts)
    if plan.model != job.sites.model:
        raise PlanError(f"the plan was made for model {plan.model}, this one is {job.sites.model}; {ANEW}")
    return job


def _equalized(job: Job, feeds: Sequence[Feed], clock: Clock) -> Job:
    """Cross-layer equalization of the float model, with the extremes in front of clips from one pass of the data.

    With a scale per channel there is nothing to even out, and the changed activations would cost accuracy.
    """
    if not job.config.include_cle or job.config.per_channel:
        return job
    absorb, steps = bool(job.config.option("HighBiasAbsorption")), job.config.option("CLESteps")
    with clock.stage("equalize"):
        needed = tensors_needed(job.prepared, absorb=absorb)
        extremes = channel_extremes(job.prepared, feeds, needed, partial(clock.count, "equalize", len(feeds)))
        found = equalize(job.prepared, extremes, sweeps=MAX_SWEEPS if steps < 0 else steps, absorb=absorb)
        return job.rescaled(found.factors, found.shifts)


def _ranged(job: Job, feeds: Sequence[Feed], clock: Clock) -> Plan:
    with clock.stage("calibrate"):
        tick = partial(clock.count, "calibrate", len(feeds))
        statistics = observe(job.prepared, feeds, observed_tensors(job.sites), tick)
    with clock.stage("ranges"):
        return choose_ranges(job.prepared, job.sites, statistics, job.config)


def _tuned(decided: Decided, clock: Clock, evaluator: Evaluator | None) -> Decided:
    """Fine-tuning, or bias correction alone."""
    job, options = decided.job, decided.job.config.finetune
    feeds = list(decided.feeds)[: options.data_size if options else None]
    limit = options.memory_limit if options and options.memory_limit else quarter_of_memory()
    judge = None
    if options and options.selective_update:
        judge = partial(_score, job.prepared, decided.feeds[:PROBES], evaluator)
    with clock.stage("tune"):
        done = finetune(
            job.prepared,
            decided.plan,
            feeds,
            options,
            channel_importance(job.prepared),
            limit,
            lambda text, done, total: clock.progress(f"tune {text}", done, total),
            judge,
        )
    stopped = "fine-tuning was interrupted: layers after that stay as they were; resume with the plan of this result"
    warnings = (*decided.warnings, stopped) if done.interrupted else decided.warnings
    return replace(decided, plan=done.plan, records=done.records, untuned=done.reasons, warnings=warnings)


def _score(model: Model, feeds: Sequence[Feed], evaluator: Evaluator | None, plan: Plan) -> float:
    """How good the model is under a plan: by the user's evaluator, or the worst SQNR of its outputs."""
    quantized = apply(model, plan)
    if evaluator is not None:
        return float(evaluator(io.to_proto(quantized)))
    return min(compare(model, quantized, feeds, optimized=True).values(), default=0.0)


def finish(decided: Decided, output: Path | None, clock: Clock) -> Result:
    """Apply the plan, prove the model, write it."""
    job, plan, probes = decided.job, decided.plan, list(decided.feeds[:PROBES])
    with clock.stage("apply"):
        quantized = apply(job.prepared, plan)
        io.check(quantized)
    with clock.stage("prove"):
        rows = ledger(job.prepared, plan, quantized)
        sqnr = compare(job.prepared, quantized, probes, optimized=True) if probes else {}
    with clock.stage("write"):
        if output is not None:
            io.save(quantized, output, source=job.model, external=job.config.use_external_data_format)
    warnings = decided.warnings
    if not plan.nodes:
        warnings = (*warnings, "nothing was quantized: see the reasons in the ledger; the model stays float")
    for warning in warnings:
        logger.warning(warning)
    report = Report(
        sqnr=sqnr,
        ledger=tuple(rows),
        remarks=plan.remarks,
        warnings=warnings,
        prepared=job.rewrites,
        seconds=clock.seconds,
        bytes={"float": io.weight_bytes(job.model), "quantized": io.weight_bytes(quantized)},
        samples=len(decided.feeds),
        tuned=decided.records,
        untuned=decided.untuned,
    )
    return Result(plan, io.to_proto(quantized), report, output, partial(_layers, job.prepared, quantized, probes))


def _layers(model: Model, quantized: Model, probes: list[Feed]) -> dict[str, float]:
    return compare(model, quantized, probes, quantized_values(quantized), optimized=False)
