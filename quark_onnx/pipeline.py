"""The story: prepare, place, equalize, observe, choose ranges (and types), round weights, tune, apply, prove."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from quark_onnx.clock import Clock, Progress
from quark_onnx.cluster import opened_crew
from quark_onnx.core.atomic_files import free_output
from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import (
    Comparison,
    Tuning,
)
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.core.settings.presets import Config
from quark_onnx.decided import Decided, running
from quark_onnx.decided_bodies import with_bodies
from quark_onnx.decided_ranges import ranged
from quark_onnx.engine.activation_store import ROOM
from quark_onnx.engine.blamed_model import blaming
from quark_onnx.engine.calibration_cache import usable
from quark_onnx.engine.calibration_data import CalibrationData, Feed
from quark_onnx.engine.compare import compare, compare_each
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.held_out_probes import PROBES, Samples, most_probes, read
from quark_onnx.engine.kept_feeds import Kept, telling
from quark_onnx.engine.plan_against_model import refuse_misfit
from quark_onnx.engine.proof_for_target import prove_for
from quark_onnx.engine.result_wording import output_warnings, proof_warnings, size_warning, stopped_text
from quark_onnx.graph import ModelProto, io
from quark_onnx.job import ANEW, Job
from quark_onnx.opened_job import open_job
from quark_onnx.progress import followed
from quark_onnx.rescaled_job import rescaled
from quark_onnx.result import Evidence, Probed, Report, Result
from quark_onnx.stages.channel_importance import channel_importance
from quark_onnx.stages.finetune import finetune, judged, lesson
from quark_onnx.stages.output_model import spare_large
from quark_onnx.stages.tied_tables import tied
from quark_onnx.stages.train import Augment
from quark_onnx.stages.verify import verify
from quark_onnx.trained import trained
from quark_onnx.training_data import TrainingData

logger = logging.getLogger("quark_onnx")

Evaluator = Callable[[ModelProto], float]

NOTHING = TrainingData()
"""Neither labels nor an augmentation."""


class ModelQuantizer:
    """Quantizes models with one configuration.

        ModelQuantizer(Config()).quantize_model("model.onnx", "int8.onnx", reader)

    Args:
        config: a `Config`, or the `QuantizationConfig` it would hold. `Config()` is the best that needs no search;
            `QuantizationConfig()` is Quark's and onnxruntime's starting point, MinMax and one scale per weight.
        progress: called as `progress(stage, done, total)` while work goes on, and entered for that time where it is a
            context manager, e.g. a `progress_bar()`. None: a bar in notebooks, nothing elsewhere.
        evaluator: for `selective_update`: score of a quantized model, higher is better; default: how near its outputs
            are to the float ones on the first calibration samples.
        workers: so many processes of this machine share the work on samples, see docs/workers.md; the bytes of the
            result are the same for any number.
        scheduler: address of a dask.distributed scheduler whose workers do so instead.

    Raises:
        ConfigError: an evaluator without `selective_update`.
    """

    def __init__(
        self,
        config: Config | QuantizationConfig,
        progress: Progress | None = None,
        evaluator: Evaluator | None = None,
        *,
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> None:
        self.config = (config if isinstance(config, Config) else Config(config)).global_quant_config
        self.progress, self.workers, self.scheduler = progress, workers, scheduler
        self.evaluator = evaluator
        tuning = self.config.tuning
        if evaluator is not None and (tuning is None or not tuning.selective_update):
            raise ConfigError(
                "an evaluator judges layers for SelectiveUpdate, which nothing asks for: set it in FastFinetune, or "
                "leave the evaluator out"
            )

    @told_as_such()
    def quantize_model(
        self,
        model_input: str | Path | ModelProto,
        model_output: str | Path | None = None,
        calibration_data_reader: object = None,
        calibration_data_path: str | Path | None = None,
        resume: Plan | str | Path | None = None,
        calibration_cache: str | Path | None = None,
        labels: object = None,
        augment: Augment | None = None,
    ) -> Result:
        """Quantize a float model and prove the result.

        Args:
            model_input: path or `onnx.ModelProto`; never modified.
            model_output: path of the QDQ model to write, whole or not at all.
            calibration_data_reader: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
            calibration_data_path: a folder of `.npy`, `.npz` or image files instead.
            resume: a plan of this model (or its folder), e.g. of an interrupted run: its ranges are kept, and its tuned
                layers are not tuned again.
            calibration_cache: a `.npz` file that keeps what calibration saw of the activations. It is used when model
                (after equalization), data and kind of statistics are the same, also for another range method, and the
                plan is the same to the bit; otherwise it is written anew, and a warning logged that says why.
            labels: for presets that train (`…_QAT`): an array with a row for each calibration sample, or a `.npy` file
                of it: class ids as integers, or numbers that an output is to become.
            augment: for these, too: makes another sample of one, see `Augment` of `stages.train`.

        Returns:
            The plan, the quantized model, the report and the output path.

        Raises:
            ConfigError, ModelError, DataError, PlanError: see each; nothing is written then.
        """
        output, cache = free_output(model_input, model_output), usable(calibration_cache)
        taught = TrainingData.of(self.config, labels, augment)
        with followed(self.progress) as tell, opened_crew(self.workers, self.scheduler) as crew:
            clock = Clock(tell)
            with clock.stage("prepare"):
                job = open_job(model_input, self.config)
            data = job.data(calibration_data_reader, calibration_data_path)
            plan = resume if isinstance(resume, Plan) or resume is None else Plan.load(resume)
            return finish(decide(job, data, clock, self.evaluator, plan, cache, taught, crew), output, clock)


def decide(
    job: Job,
    data: CalibrationData | None,
    clock: Clock,
    evaluator: Evaluator | None = None,
    resume: Plan | None = None,
    cache: Path | None = None,
    taught: TrainingData = NOTHING,
    crew: Crew | None = None,
) -> Decided:
    """Everything that needs data: equalize, observe, choose ranges and, with mixed precision, types, fine-tune.

    crew: shares the work on samples.

    Raises:
        ConfigError: there is nothing that `cache` could keep.
        DataError: the data does not fit the model, or the labels do not fit the data.
        PlanError: `resume` belongs to another model.
    """
    if cache is not None and not job.config.observes:
        raise ConfigError("with this configuration no activation has a range; leave the calibration cache out")
    inside = partial(_body, clock=clock)
    if data is None:
        return with_bodies(_without_data(job, clock, resume), inside, resume)
    with clock.stage("read"):
        samples = read(data, job.plain, job.mask, taught.labels)
        feeds = samples.taught
        told = feeds.at(telling(feeds)[:2])
        job = job.seen(told[0])
        if job.conditions is not None:
            job.conditions.refuse_others((*feeds, *samples.probes))
    if job.idle and job.config.conversion is None:
        return with_bodies(replace(_without_data(job, clock, resume), feeds=feeds), inside, resume)
    with blaming(job.plain, told[0]):
        job, smoothed = (_resumed(job, resume), ()) if resume else rescaled(job, feeds, clock, samples.counted, crew)
    with clock.stage("verify"):
        doubt = verify(job.plain, job.prepared, told)
    warnings = tuple(data.warnings) + (() if doubt is None else (doubt,))
    begun = Decided(
        job,
        resume or job.sites,
        feeds,
        warnings,
        probes=samples.probes,
        probed=_probed(samples, resume),
        counted=job.counted(samples.counted, feeds),
        smoothed=smoothed,
    )
    if job.config.conversion is not None:
        return replace(begun, plan=resume or _converted(job, feeds))

    def decided(begun: Decided) -> Decided:
        found = begun if resume else ranged(begun, clock, cache, crew)
        tuned = _tuned(found, clock, evaluator, crew) if job.config.tunes else found
        return trained(tuned, taught, clock, crew)

    return with_bodies(running(begun, decided), inside, resume)


def _body(job: Job, feeds: Kept, resume: Plan | None, clock: Clock) -> Decided:
    """What is decided of a body, on all that goes into it."""
    told = feeds.at(telling(feeds)[:2])
    job = job.seen(told[0]) if told else job
    job = _resumed(job, resume) if resume else job
    with clock.stage("verify"):
        doubt = verify(job.plain, job.prepared, told)
    begun = Decided(job, resume or job.sites, feeds, () if doubt is None else (doubt,))
    found = begun if resume else running(begun, partial(ranged, clock=clock))
    return with_bodies(found, partial(_body, clock=clock), resume)


def _probed(samples: Samples, resume: Plan | None) -> Probed:
    """What a plan to go on from was made of is not known; of the same data the same samples were held out."""
    if not samples.held_out:
        return "calibration"
    return "held out" if resume is None else "held out of this run"


def _without_data(job: Job, clock: Clock, resume: Plan | None) -> Decided:
    """What can be decided of the model alone: ranges of weights."""
    if not job.sites.sites and job.config.conversion is None:  # the prepared model is what is written
        verify(job.plain, job.prepared, ())
    if resume is not None or job.config.conversion is not None or not job.sites.sites:
        return Decided(job, job.sites) if resume is None else Decided(_resumed(job, resume), resume)
    unequal = ("no data, so channels were not evened out between layers: give data, or set include_cle=False",)
    wanted = job.config.include_cle and not job.config.per_channel
    return ranged(Decided(job, job.sites, warnings=unequal if wanted else ()), clock)


def _resumed(job: Job, plan: Plan) -> Job:
    """The job with the model that the plan was made for."""
    if (fault := plan.fault()) is not None:
        raise PlanError(f"the plan to resume, {fault}; {ANEW}")
    job = job.rescaled(plan.factors, plan.shifts, plan.smoothed)
    if plan.model != job.sites.model:
        raise PlanError(f"the plan was made for model {plan.model}, this one is {job.sites.model}; {ANEW}")
    refuse_misfit(job.prepared, plan)
    return job


def _converted(job: Job, feeds: Sequence[Feed]) -> Plan:
    """The plan of a conversion, on what the data show."""
    return spare_large(job.prepared, job.sites, feeds[:PROBES]) if job.config.conversion == "float16" else job.sites


def _tuned(decided: Decided, clock: Clock, evaluator: Evaluator | None, crew: Crew | None) -> Decided:
    """Fine-tuning, or weight scales by output error and bias correction."""
    job, options = decided.job, decided.job.config.tuning
    assert options is not None
    learns = lesson(options, decided.feeds)
    judge = None
    if options.selective_update:
        judge = partial(_score, job, decided.feeds[:PROBES], evaluator, decided.counted)

    def tune(how: FastFinetune) -> Tuning:
        return finetune(
            job.prepared,
            decided.plan,
            learns.taught[: how.data_size],
            how,
            channel_importance(job.prepared),
            how.memory_limit or ROOM,
            lambda text, done, total: clock.progress(f"tune {text}", done, total),
            judge,
            decided.counted,
            crew,
        )

    with clock.stage("tune"):
        done, correction = judged(learns, decided.plan, tune, partial(_written, job, learns.judges, decided.counted))
    stopped = (stopped_text(done, options.time_limit),) if done.interrupted or done.late else ()
    warnings = (*decided.warnings, *stopped)
    found = replace(decided, plan=done.plan, records=done.records, untuned=done.reasons, warnings=warnings)
    return replace(found, correction=correction)


def _written(
    job: Job, feeds: Sequence[Feed], counted: Counted | None, plan: Plan
) -> tuple[Comparison, Sequence[Comparison]]:
    """The outputs under a plan, with the arithmetic that the file says: no processor has a say in a decision."""
    return compare_each(job.prepared, job.realize(plan), feeds, counted)


def _score(job: Job, feeds: Sequence[Feed], evaluator: Evaluator | None, counted: Counted | None, plan: Plan) -> float:
    """How good the model is under a plan: by the user's evaluator, or what its worst output is worth."""
    quantized = job.realize(plan)
    if evaluator is not None:
        return float(evaluator(io.to_proto(quantized)))
    worst = compare(job.prepared, quantized, feeds, optimized=job.config.row.on_cpu, counted=counted).worst
    if worst is None:
        raise ConfigError(
            "SelectiveUpdate judges layers by the outputs, and on these samples no output holds a value: give an "
            "evaluator, or leave SelectiveUpdate out"
        )
    return worst


def finish(decided: Decided, output: Path | None, clock: Clock) -> Result:
    """Apply the plan, prove the model, write it."""
    return running(decided, partial(_finished, output=output, clock=clock))


def _finished(decided: Decided, output: Path | None, clock: Clock) -> Result:
    job = decided.job
    plan = tied(job.prepared, decided.plan) if job.config.conversion is None else decided.plan
    probes = list(decided.probes[: most_probes(job.prepared)])
    with clock.stage("apply"):
        quantized = job.realize(plan)
        io.settle(quantized)
        io.let_go(job.prepared)
        io.check(quantized, job.model)
    with clock.stage("prove"):
        bodies = tuple(job.inside(plan))
        rows, proof = prove_for(job.config.row, job.prepared, plan, quantized, probes, bodies, decided.counted)
    with clock.stage("write"):
        if output is not None:
            io.save(quantized, output, source=job.model, external=job.config.use_external_data_format)
    model = io.to_proto(quantized)
    held = {"float": io.weight_bytes(job.model), "quantized": io.weight_bytes(quantized)}
    files = {"float": job.source, "quantized": model if output is None else output}
    stored = {which: io.stored_bytes(file, held[which]) for which, file in files.items()}
    nothing = "nothing was quantized: see the reasons in the ledger; the model stays as it is"
    doubts = size_warning(stored["float"], stored["quantized"]) if not plan.empty else (nothing,)
    told = proof_warnings(proof, job.config.target)
    warnings = (*job.doubts, *decided.warnings, *output_warnings(proof.run.outputs, job.config.target), *told, *doubts)
    for warning in warnings:
        logger.warning(warning)
    report = Report(
        sqnr=proof.run.sqnr,
        outputs=proof.run.outputs,
        written=proof.written.outputs,
        without_vnni=proof.without_vnni,
        departure=proof.departure,
        runtime=proof.runtime,
        ledger=tuple(rows),
        remarks=plan.remarks,
        warnings=warnings,
        prepared=job.rewrites,
        seconds=clock.seconds,
        bytes=held,
        stored=stored,
        samples=len(decided.feeds),
        probes=decided.probed,
        positions="" if decided.counted is None else decided.counted.told,
        judged=len(probes),
        tuned=decided.records,
        untuned=decided.untuned,
        correction=decided.correction,
        trained=decided.training,
        mixed=decided.mixed,
        smoothed=decided.smoothed,
        protected=decided.protected,
        target=job.config.target,
    )
    inside = probes if decided.counted is None else decided.counted.cut(probes)
    read = {value.name for value in job.prepared.graph.inputs}
    seen = (tuple({n: a for n, a in feed.items() if n in read} for feed in feeds) for feeds in (probes, inside))
    return Result(plan, model, report, output, Evidence(job.prepared, quantized, *seen))
