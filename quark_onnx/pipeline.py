"""The story of a quantization: prepare, place, observe, choose ranges, apply, prove."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from quark_onnx.core.config import Config, QuantizationConfig
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Plan
from quark_onnx.engine.apply import apply
from quark_onnx.engine.compare import compare, quantized_values
from quark_onnx.engine.data import CalibrationData, Feed, ImageOptions, open_data, random_data
from quark_onnx.engine.ledger import ledger
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.result import Report, Result
from quark_onnx.stages.place import place
from quark_onnx.stages.prepare import prepare
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.verify import verify

logger = logging.getLogger("quark_onnx")

PROBES = 16
"""Calibration feeds that are kept for the proofs at the end."""


class Progress(Protocol):
    """Told what happens; `total` is None where it is unknown."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


def _unseen(stage: str, done: int, total: int | None) -> None:
    """The default progress: nothing."""


@dataclass
class Clock:
    """Seconds by stage; every stage is logged and announced."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def count(self, stage: str, done: int) -> None:
        """So many steps of a stage are done; how many there will be is not known: data is streamed."""
        self.done[stage] = done
        self.progress(stage, done, None)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.progress(name, 0, None)
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        logger.info("%s: %.2f s", name, self.seconds[name])


class ModelQuantizer:
    """Quantizes models with one configuration.

        ModelQuantizer(Config(get_default_config("S8S8_AAWS"))).quantize_model("model.onnx", "int8.onnx", reader)

    Args:
        config: a `Config`, or the `QuantizationConfig` it would hold.
        progress: called as `progress(stage, done, total)` while work goes on.
    """

    def __init__(self, config: Config | QuantizationConfig, progress: Progress = _unseen) -> None:
        self.config = (config if isinstance(config, Config) else Config(config)).global_quant_config
        self.progress = progress

    def quantize_model(
        self,
        model_input: str | Path | ModelProto,
        model_output: str | Path | None = None,
        calibration_data_reader: object = None,
        calibration_data_path: str | Path | None = None,
    ) -> Result:
        """Quantize a float model and prove the result.

        Args:
            model_input: path or `onnx.ModelProto`; never modified.
            model_output: path of the QDQ model to write, whole or not at all.
            calibration_data_reader: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
            calibration_data_path: a folder of `.npy`, `.npz` or image files instead.

        Returns:
            The plan, the quantized model, the report and the output path.

        Raises:
            ConfigError, ModelError, DataError: see each; nothing is written then.
        """
        clock = Clock(self.progress)
        output = _free_output(model_input, model_output)
        with clock.stage("prepare"):
            job = open_job(model_input, self.config)
            if output is not None:
                io.spare_data(job.model, output)
        data = job.data(calibration_data_reader, calibration_data_path)
        plan, probes = decide(job, data, clock)
        return finish(job, plan, probes, [] if data is None else data.warnings, output, clock)


@dataclass(frozen=True, eq=False)
class Job:
    """A model on its way: as the user gave it, and prepared."""

    source: str | Path | ModelProto
    config: QuantizationConfig
    model: Model
    prepared: Model
    sites: Plan
    rewrites: Counter[str]

    def data(self, source: object, path: str | Path | None) -> CalibrationData | None:
        """The calibration data; None when nothing has to be observed."""
        if not self.sites.sites:
            return None
        inputs, option = input_specs(self.model), self.config.option
        if option("UseRandomData"):
            ranges = option("RandomDataReaderInputDataRange")
            samples = option("CalibDataSize") or 8
            return random_data(inputs, samples=samples, shapes=option("RandomDataReaderInputShape"), ranges=ranges)
        images = option("CalibImages")
        options = None if images is None else ImageOptions.from_dict(images)
        return open_data(source, inputs, path=path, limit=option("CalibDataSize"), image_options=options)


def open_job(source: str | Path | ModelProto, config: QuantizationConfig) -> Job:
    """Load, check, prepare and place.

    Raises:
        ModelError, ConfigError: the model cannot be used, or the configuration names what it does not have.
    """
    model = io.load(source)
    io.refuse_quantized(model)
    done = prepare(model, opset=max(config.activation.opset, config.weight.opset), optimize=config.optimize_model)
    known = {node.name for node in model.graph if node.name}
    rewrites = Counter(outcome.rule for outcome in done.log if outcome.reason is None)
    return Job(source, config, model, done.model, place(done.model, config, known), rewrites)


def decide(job: Job, data: CalibrationData | None, clock: Clock) -> tuple[Plan, list[Feed]]:
    """The whole plan, and the first feeds for the proofs. The data is read once, from beginning to end."""
    if data is None:
        return job.sites, []
    with clock.stage("verify"):
        feeds = iter(data)
        probes = list(islice(feeds, PROBES))
        warning = verify(job.model, job.prepared, probes[:2])
        data.warnings.extend([] if warning is None else [warning])
    with clock.stage("calibrate"):
        tensors = observed_tensors(job.sites)
        statistics = observe(job.prepared, chain(probes, feeds), tensors, partial(clock.count, "calibrate"))
    with clock.stage("ranges"):
        return choose_ranges(job.prepared, job.sites, statistics, job.config), probes


def finish(
    job: Job, plan: Plan, probes: list[Feed], warnings: Sequence[str], output: Path | None, clock: Clock
) -> Result:
    """Apply the plan, prove the model, write it."""
    with clock.stage("apply"):
        quantized = apply(job.prepared, plan)
        io.check(quantized)
    with clock.stage("prove"):
        rows = ledger(job.prepared, plan, quantized)
        sqnr = compare(job.prepared, quantized, probes, optimized=True) if probes else {}
    with clock.stage("write"):
        if output is not None:
            io.save(quantized, output, source=job.model, external=job.config.use_external_data_format)
    if not plan.nodes:
        warnings = [*warnings, "nothing was quantized: see the reasons in the ledger; the model stays float"]
    for warning in warnings:
        logger.warning(warning)
    sizes = {"float": io.weight_bytes(job.model), "quantized": io.weight_bytes(quantized)}
    report = Report(
        sqnr, tuple(rows), plan.remarks, tuple(warnings), job.rewrites, clock.seconds, sizes, clock.done["calibrate"]
    )
    return Result(plan, io.to_proto(quantized), report, output, partial(_layers, job.prepared, quantized, probes))


def _layers(model: Model, quantized: Model, probes: list[Feed]) -> dict[str, float]:
    return compare(model, quantized, probes, quantized_values(quantized), optimized=False)


def _free_output(source: str | Path | ModelProto, output: str | Path | None) -> Path | None:
    """The output path, found usable before any work is done.

    Raises:
        ConfigError: it is the input model, a folder, or below something that cannot be written to.
    """
    if output is None:
        return None
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"model_output {path} is a folder; give a file name such as {path / 'model_int8.onnx'}")
    if isinstance(source, (str, Path)) and path.resolve() == Path(source).resolve():
        raise ConfigError(f"model_output {path} is the input model, which is never modified; choose another name")
    below = next(parent for parent in path.absolute().parents if parent.exists())
    if not below.is_dir() or not os.access(below, os.W_OK):
        raise ConfigError(f"model_output {path} cannot be written: {below} is not a folder that you may write to")
    return path
