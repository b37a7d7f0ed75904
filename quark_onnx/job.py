"""A model on its way through the stages, the clock that times them, and where the result goes."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from quark_onnx.core.atomic_files import behind_links, same_file
from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.name_patterns import matching
from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import UNFIT
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.idle_options import OF_EQUALIZATION
from quark_onnx.core.settings.tensor_overrides import override_opset
from quark_onnx.core.visible_text import shown
from quark_onnx.engine.blamed_model import blaming
from quark_onnx.engine.body_feeds import RUNNABLE
from quark_onnx.engine.calibration_data import CalibrationData, Feed, ImageOptions, random_data
from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.engine.fusion_ledger import Inside
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.missing_types import FROM_RUN, STALE, ask_run, listed
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runner import input_specs
from quark_onnx.engine.saturation_certificate import is_quantized
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.graph.bodies import Body, as_model, bodies, holds, shares_constants
from quark_onnx.graph.from_float16 import Widened, to_float32
from quark_onnx.graph.integer_nodes import refuse_quantized, told_of_integers
from quark_onnx.graph.normal_form import remarks
from quark_onnx.graph.value_info import declare_outputs, unknown
from quark_onnx.graph.view import is_op
from quark_onnx.stages.equalize import rescale
from quark_onnx.stages.output_model import realize
from quark_onnx.stages.place import place
from quark_onnx.stages.place.float16 import half_scales, needs_float, place_conversion
from quark_onnx.stages.prepare import Conditions, Prepared, prepare

logger = logging.getLogger("quark_onnx")
logger.addFilter(shown)

HALF_OPSET = Format(scale="half").opset
"""The operator set from which scales may be float16."""

ANEW = "make a new plan for it"
"""What to do about a plan of another model."""


OF_MAIN = ("TensorQuantOverrides", "AutoMixprecision", "FastFinetune", "BiasCorrection", "InlineIf")
"""Options that bodies have no use for: they name tensors of the main graph, or judge its layers by its outputs."""


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
    """A model on its way: as the user gave it, and prepared.

    widened  as float32, if it has float16 parts
    told     remarks on types and ranks that the model does not say, or says wrongly
    bodies   the bodies of control flow in the prepared model that hold layers, by key; each is a job of its own
    apart    node with bodies → which of these stay as they are, and why
    title    what a body is called, e.g. `the else branch of If 'x'`; empty for the model itself
    shares   it is a body that reads constants which other bodies, or the graph around it, read too: all of them are to
             make the same integers of these, so that they are stored once
    nodes, tensors  names of all of them, in bodies too: what options may name
    conditions  of the Ifs that InlineIf has left out
    """

    source: str | Path | ModelProto
    config: QuantizationConfig
    model: Model
    prepared: Model
    sites: Plan
    rewrites: Counter[str]
    widened: Widened | None = None
    told: tuple[str, ...] = ()
    bodies: Mapping[str, Job] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    shares: bool = False
    nodes: frozenset[str] = frozenset()
    tensors: frozenset[str] = frozenset()
    conditions: Conditions | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to quantize, in bodies neither."""
        return not any(job.sites.sites for job in self.parts())

    def parts(self) -> Iterator[Job]:
        """The job, and those of all bodies."""
        yield self
        for body in self.bodies.values():
            yield from body.parts()

    @property
    def plain(self) -> Model:
        """The user's model, in float32."""
        return self.model if self.widened is None else self.widened.model

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about the user's model, before anything is done to it."""
        return (*remarks(self.model), *told_of_integers(self.model))

    def placed(self, config: QuantizationConfig) -> Plan:
        """Where quantizers stand in the prepared model; scales are still open.

        Args:
            config: the job's, or one that differs in number types only.
        """
        sites = (place_conversion if config.conversion else place)(self.prepared, config, self.nodes)
        sites = replace(sites, notes={**sites.notes, **self.apart})
        if self.told:
            told = "; ".join([*self.told, *([sites.remarks["*"]] if "*" in sites.remarks else [])])
            sites = replace(sites, remarks={**sites.remarks, "*": told})
        if self.widened is None or config.convert_fp16_to_fp32:
            return sites
        return half_scales(sites, self.prepared, self.widened.wide, config.row)

    def placed_apart(self) -> Plan:
        """The same with a scale per channel of every weight, as far as the target has them."""
        if not self.config.row.per_channel:
            return self.sites
        options = {key: value for key, value in self.config.extra_options.items() if key not in OF_EQUALIZATION}
        return self.placed(replace(self.config, per_channel=True, extra_options=options))

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
        if strange := plan.bodies.keys() - self.bodies.keys():
            raise PlanError(f"the plan quantizes {min(strange)!r}, no body that this model has; {ANEW}")
        inside = {key: self.bodies[key].realize(one) for key, one in plan.bodies.items() if not one.empty}
        quantized = realize(self.prepared, plan, self.config.conversion, half, inside)
        declare_outputs(quantized, self.model)
        if self.config.row.on_cpu:
            shield(quantized, {node for node, reason in plan.notes.items() if reason.startswith(UNFIT)})
        return quantized

    def inside(self, plan: Plan) -> Iterator[Inside]:
        """What a plan says of the bodies, those inside of others too; float ones are what they were."""
        for key, body in self.bodies.items():
            if (one := plan.bodies.get(key)) is not None:
                yield Inside(body.title, body.plain if one.empty else body.prepared, one)
                yield from body.inside(one)

    def unseen(self, reason: str) -> Plan:
        """The plan of a body that nothing can be learned of: all of it stays float."""
        plan = self.sites.keeping({}, dict.fromkeys(self.sites.nodes, reason))
        return replace(plan, bodies={key: body.unseen(reason) for key, body in self.bodies.items()})

    def data(self, source: object, path: str | Path | None) -> CalibrationData | None:
        """The calibration data; None when nothing has to be observed, or none are given and none are needed.

        Raises:
            ConfigError: data are given, and UseRandomData asks for others.
        """
        option = self.config.option
        given = source is not None or path is not None or option("UseRandomData")
        idle = self.idle and self.config.conversion is None
        if idle and not (given and unknown(self.prepared.graph)):
            return None
        if not given and not self.config.needs_data:
            return None
        if option("UseRandomData"):
            if source is not None or path is not None:
                raise ConfigError("calibration data are given, and UseRandomData=True asks for others; give only one")
            ranges = option("RandomDataReaderInputDataRange")
            samples = option("CalibDataSize") or 8
            shapes, inputs = option("RandomDataReaderInputShape"), input_specs(self.model)
            return random_data(inputs, samples=samples, shapes=shapes, ranges=ranges)
        images = option("CalibImages")
        options = None if images is None else ImageOptions.from_dict(images)
        return samples_of(self.model, source, path=path, limit=option("CalibDataSize"), image_options=options)

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
    model = open_model(source, config.option("UserCustomOpLibPath"))
    refuse_quantized(model)
    with blaming(model):
        return _opened(source, model, config)


def _opened(source: str | Path | ModelProto, model: Model, config: QuantizationConfig) -> Job:
    """Prepare and place."""
    io.settle(model)
    widened = to_float32(model)
    overrides = config.tensor_overrides
    conversions = {name: one.readers for name, one in overrides.items() if one.convert is not None}
    plain, half = (model, False) if widened is None else (widened.model, not config.convert_fp16_to_fp32)
    opset = max(_opset(c, half=half) for c in ((config, config.moved) if config.include_auto_mp else (config,)))
    done = _prepared(plain, config, opset, conversions, config.option("InlineIf"))
    if widened is not None:
        wide = {node.name or "" for node in done.model.graph if needs_float(node, config.row)}
        widened = replace(widened, wide=widened.wide | wide)
    io.settle(done.model)
    every = [node for one in (model, plain, done.model) for node in one.graph.all_nodes()]
    job = Job(
        source,
        config,
        model,
        done.model,
        Plan(""),
        Counter(outcome.rule for outcome in done.log if outcome.reason is None),
        widened,
        done.remarks,
        nodes=frozenset(node.name for node in every if node.name),
        tensors=frozenset(value.name for node in every for value in node.outputs if value.name),
        conditions=done.conditions,
    )
    job = _with_bodies(job)
    job = replace(job, sites=job.placed(config))
    io.let_go(job.prepared)
    return job


def _with_bodies(job: Job) -> Job:
    """The job with a job for each body that holds layers, and for others with layers the reason why they stay float."""
    found, reasons = dict[str, Job](), dict[str, list[str]]()
    banned = matching(job.config.nodes_to_exclude, job.nodes, "nodes_to_exclude")
    for body in bodies(job.prepared.graph):
        if not holds(body, LAYERS) or job.config.conversion is not None:
            continue
        inner = _inside(job, body, banned)
        if isinstance(inner, Skip):
            reasons.setdefault(body.node.name or "", []).append(f"{body.title} stays float: {inner.reason}")
        else:
            found[body.key] = inner
    return replace(job, bodies=found, apart={node: "; ".join(texts) for node, texts in reasons.items()})


def _inside(job: Job, body: Body, banned: Collection[str]) -> Job | Skip:
    """A job for a body: a model of its own, in the operator set that it has."""
    if job.widened is not None:
        return Skip("only bodies of float32 models are quantized; with convert_fp16_to_fp32 it would be one")
    if body.node.name in banned:
        return Skip(f"{body.node.name!r} is named in nodes_to_exclude")
    if not is_op(body.node, *RUNNABLE):
        return Skip(f"what goes into a body is not known of {body.node.op_type}")
    model = as_model(body, job.prepared)
    if isinstance(model, Skip):
        return model
    if is_quantized(model):
        return Skip("it is quantized already")
    config = _of_bodies(job.config)
    done = _prepared(model, config, None)
    title = f"{body.title} inside {job.title}" if job.title else body.title
    shares = job.shares or shares_constants(body)
    inner = Job(
        job.source, config, model, done.model, Plan(""), Counter(), told=done.remarks, title=title, shares=shares
    )
    inner = _with_bodies(replace(inner, nodes=job.nodes, tensors=job.tensors))
    return replace(inner, sites=inner.placed(config))


def _of_bodies(config: QuantizationConfig) -> QuantizationConfig:
    """The configuration with which bodies are quantized: the same number types and ranges, rounded to nearest."""
    options = {key: value for key, value in config.extra_options.items() if key not in OF_MAIN}
    return replace(config, include_auto_mp=False, include_fast_ft=False, extra_options=options)


def _prepared(
    model: Model,
    config: QuantizationConfig,
    opset: int | None,
    conversions: Mapping[str, Collection[str]] | None = None,
    branches: Mapping[str, str] | None = None,
) -> Prepared:
    integers = _integers(config)
    return prepare(
        model,
        opset=opset,
        quantizers=config.conversion is None,
        optimize=config.optimize_model,
        biases=config.moves_biases,
        integers=integers,
        block=config.row.channel_block if integers else 1,
        conversions=conversions,
        branches=branches,
    )


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
    target = behind_links(path)
    if path.is_dir():
        raise ConfigError(f"model_output {path} is a folder; give a file name such as {path / 'model_int8.onnx'}")
    if isinstance(source, (str, Path)) and same_file(path, Path(source)):
        raise ConfigError(f"model_output {path} is the input model, which is never modified; choose another name")
    below = next(parent for parent in target.absolute().parents if parent.exists())
    if not below.is_dir() or not os.access(below, os.W_OK):
        raise ConfigError(f"model_output {path} cannot be written: {below} is not a folder that you may write to")
    return path
