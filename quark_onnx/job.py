"""A model on its way through the stages, the clock that times them, and where the result goes."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.engine.data import CalibrationData, ImageOptions, open_data, random_data
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.stages.equalize import rescale
from quark_onnx.stages.place import place
from quark_onnx.stages.prepare import prepare

logger = logging.getLogger("quark_onnx")

ANEW = "make a new plan for it"
"""What to do about a plan of another model."""


class Progress(Protocol):
    """Told what happens; `total` is None where it is unknown."""

    def __call__(self, stage: str, done: int, total: int | None) -> None: ...


def unseen(stage: str, done: int, total: int | None) -> None:
    """The default progress: nothing."""


@dataclass
class Clock:
    """Seconds by stage; every stage is logged and announced."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, stage: str, total: int | None, done: int) -> None:
        """So many steps of a stage are done."""
        self.progress(stage, done, total)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.progress(name, 0, None)
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        logger.info("%s: %.2f s", name, self.seconds[name])


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

    def rescaled(self, factors: Mapping[str, NDArray[Any]], shifts: Mapping[str, NDArray[Any]]) -> Job:
        """The job with its prepared model equalized. Sites stay: placement does not look at values of weights.

        Raises:
            PlanError: the model has no such weights: the factors are of a plan of another one.
        """
        if not factors and not shifts:
            return self
        try:
            model = rescale(self.prepared, factors, shifts)
        except (KeyError, ValueError) as error:  # a plan's, that has other weights
            raise PlanError(f"the plan equalizes weights that this model does not have ({error}); {ANEW}") from error
        sites = replace(self.sites, model=io.fingerprint(model), factors=factors, shifts=shifts)
        return replace(self, prepared=model, sites=sites)


def open_job(source: str | Path | ModelProto, config: QuantizationConfig) -> Job:
    """Load, check, prepare and place.

    Raises:
        ModelError, ConfigError: the model cannot be used, or the configuration names what it does not have.
    """
    model = io.load(source)
    io.refuse_quantized(model)
    opset, tuned = max(config.activation.opset, config.weight.opset), config.tunes
    done = prepare(model, opset=opset, optimize=config.optimize_model, biases=tuned)
    known = {node.name for node in model.graph if node.name}
    rewrites = Counter(outcome.rule for outcome in done.log if outcome.reason is None)
    return Job(source, config, model, done.model, place(done.model, config, known), rewrites)


def free_output(source: str | Path | ModelProto, output: str | Path | None) -> Path | None:
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
