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

from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.tensor_overrides import override_opset
from quark_onnx.engine.calibration_data import CalibrationData, Feed, ImageOptions, open_data, random_data
from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.engine.missing_types import FROM_RUN, STALE, ask_run, listed
from quark_onnx.engine.rare_collections import rare_collections
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.graph.from_float16 import Widened, to_float32
from quark_onnx.graph.value_info import unknown
from quark_onnx.stages.equalize import rescale
from quark_onnx.stages.output_model import realize
from quark_onnx.stages.place import place
from quark_onnx.stages.place.float16 import half_scales, needs_float, place_conversion
from quark_onnx.stages.prepare import prepare

logger = logging.getLogger("quark_onnx")

HALF_OPSET = Format(scale="half").opset
"""The operator set from which scales may be float16."""

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
        with rare_collections():
            yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        logger.info("%s: %.2f s", name, self.seconds[name])


@dataclass(frozen=True, eq=False)
class Job:
    """A model on its way: as the user gave it, and prepared.

    widened  as float32, if it has float16 parts
    told     remarks on types and ranks that the model does not say, or says wrongly
    """

    source: str | Path | ModelProto
    config: QuantizationConfig
    model: Model
    prepared: Model
    sites: Plan
    rewrites: Counter[str]
    widened: Widened | None = None
    told: tuple[str, ...] = ()

    @property
    def plain(self) -> Model:
        """The user's model, in float32."""
        return self.model if self.widened is None else self.widened.model

    def placed(self, config: QuantizationConfig) -> Plan:
        """Where quantizers stand in the prepared model; scales are still open.

        Args:
            config: the job's, or one that differs in number types only.
        """
        known = {node.name for node in (*self.model.graph, *self.plain.graph) if node.name}
        sites = (place_conversion if config.conversion else place)(self.prepared, config, known)
        if self.told:
            told = "; ".join([*self.told, *([sites.remarks["*"]] if "*" in sites.remarks else [])])
            sites = replace(sites, remarks={**sites.remarks, "*": told})
        if self.widened is None or config.convert_fp16_to_fp32:
            return sites
        return half_scales(sites, self.prepared, self.widened.wide, config.row)

    def seen(self, feed: Feed) -> Job:
        """The job with the ranks that a run of the prepared model shows, where nothing else tells them; placed anew.

        The model stays what it is, to the fingerprint: a plan can be applied without data.
        """
        model, new, stale = ask_run(self.prepared, feed)
        if not new and not stale:
            return self
        told = [text.format(listed(names)) for text, names in ((STALE, stale), (FROM_RUN, new)) if names]
        job = replace(self, prepared=model, told=(*self.told, *told))
        return replace(job, sites=job.placed(self.config))

    def realize(self, plan: Plan) -> Model:
        """What the user gets of a plan, in the float types of the user's model.

        Raises:
            PlanError: the plan was made for another model, or is not complete.
        """
        half = None if self.config.convert_fp16_to_fp32 else self.widened
        quantized = realize(self.prepared, plan, self.config.conversion, half)
        if self.config.row.on_cpu:
            shield(quantized)
        return quantized

    def data(self, source: object, path: str | Path | None) -> CalibrationData | None:
        """The calibration data; None when nothing has to be observed, or none are given and none are needed.

        Raises:
            ConfigError: data are given, and UseRandomData asks for others.
        """
        inputs, option = input_specs(self.model), self.config.option
        given = source is not None or path is not None or option("UseRandomData")
        idle = not self.sites.sites and self.config.conversion is None
        if idle and not (given and unknown(self.prepared.graph)):
            return None
        if not given and not self.config.needs_data:
            return None
        if option("UseRandomData"):
            if source is not None or path is not None:
                raise ConfigError("calibration data are given, and UseRandomData=True asks for others; give only one")
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
    io.settle(model)
    widened = to_float32(model)
    overrides = config.tensor_overrides
    conversions = {name: one.readers for name, one in overrides.items() if one.convert is not None}
    plain, half = (model, False) if widened is None else (widened.model, not config.convert_fp16_to_fp32)
    opset = max(_opset(c, half=half) for c in ((config, config.moved) if config.include_auto_mp else (config,)))
    done = prepare(
        plain,
        opset=opset,
        quantizers=config.conversion is None,
        optimize=config.optimize_model,
        biases=config.moves_biases,
        integers=(integers := _integers(config)),
        block=config.row.channel_block if integers else 1,
        conversions=conversions,
    )
    rewrites = Counter(outcome.rule for outcome in done.log if outcome.reason is None)
    if widened is not None:
        wide = {node.name or "" for node in done.model.graph if needs_float(node, config.row)}
        widened = replace(widened, wide=widened.wide | wide)
    io.settle(done.model)
    job = Job(source, config, model, done.model, Plan(""), rewrites, widened, done.remarks)
    job = replace(job, sites=job.placed(config))
    io.let_go(job.prepared)
    return job


def _integers(config: QuantizationConfig) -> frozenset[str]:
    """Operator types without a weight that the target runs on integers, in the types that activations have.

    A Clip only where the quantizer behind it can begin at 0, as it does.
    """
    row = config.row
    if not config.observes or row.inputs_only or (row.on_cpu and config.activation.storage_bits != 8):
        return frozenset()
    kinds = {"act", "fixed", *(["clamp"] if row.fixed_point or not config.activation.symmetric else [])}
    return frozenset(name for name, op in row.ops.items() if op.kind in kinds and op.fuses)


def _opset(config: QuantizationConfig, *, half: bool) -> int:
    """The operator set that the formats need, with float16 scales if `half`; conversions need Cast to bfloat16."""
    if config.conversion is not None:
        return 13
    overrides = override_opset(config.tensor_overrides, config.type_overrides)
    weight = replace(config.weight, block=config.option("BlockSize"))
    activation = replace(config.activation, stored=max(8, config.activation.storage_bits))  # narrower ones are clipped
    formats = (activation, weight, Format(config.bias_bits or 32))
    return max(*(format.opset for format in formats), overrides, HALF_OPSET if half else 0)


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
