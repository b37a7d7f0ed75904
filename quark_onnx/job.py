"""A model on its way through the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, PlanError
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import UNFIT
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.idle_options import OF_EQUALIZATION
from quark_onnx.engine.calibration_data import CalibrationData, Feed, ImageOptions, random_data
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.ledger_rows import Inside
from quark_onnx.engine.missing_types import FROM_RUN, STALE, ask_run, listed
from quark_onnx.engine.runner import input_specs, rounds_float16
from quark_onnx.engine.sample_mask import mask_spec
from quark_onnx.engine.shielded_model import shielded
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.graph.from_float16 import Widened
from quark_onnx.graph.integer_nodes import told_of_integers
from quark_onnx.graph.mask_inputs import MaskInput, mask_inputs
from quark_onnx.graph.normal_form import remarks
from quark_onnx.graph.value_info import declare_outputs, unknown
from quark_onnx.graph.view import is_op
from quark_onnx.stages.equalize import rescale
from quark_onnx.stages.output_model import realize
from quark_onnx.stages.place import place
from quark_onnx.stages.place.float16 import half_scales, place_conversion
from quark_onnx.stages.prepare import Conditions
from quark_onnx.stages.ranges import observed_tensors
from quark_onnx.stages.smooth import with_products

Arrays = Mapping[str, NDArray[Any]]

NONE: Arrays = FrozenDict()

ANEW = "make a new plan for it"
"""What to do about a plan of another model."""


CUT_OFF = (
    "this onnxruntime cuts float16 numbers off where it quantizes them, and does not round, which costs 6 dB: "
    "update it to 1.30 or newer, or set convert_fp16_to_fp32=True"
)


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
    def mask(self) -> MaskInput | None:
        """What of a feed says which positions count: as the user says, or the graph; None: all do."""
        wanted, random = self.config.option("SampleMask"), self.config.option("UseRandomData")
        found = () if wanted is False or random else mask_inputs(self.prepared)
        named = MaskInput(wanted, "zero") if wanted else None
        return next((mask for mask in found if wanted in (None, mask.name)), named)

    def counted(self, counted: Counted | None, feeds: Sequence[Feed]) -> Counted | None:
        """The same with what it says of tensors that are looked at: with ranges, read by layers, or returned."""
        if counted is None:
            return None
        read = [node.inputs[0] for node in self.prepared.graph if is_op(node, *LAYERS)]
        names = [value.name or "" for value in (*read, *self.prepared.graph.outputs) if value is not None]
        tensors = list(dict.fromkeys([*observed_tensors(self.sites), *names]))
        return counted.within(self.prepared, tensors, feeds, asked=bool(self.config.option("SampleMask")))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about the user's model, before anything is done to it."""
        half = any(site.role == "activation" and site.format.scale == "half" for site in self.sites.sites.values())
        cut = (CUT_OFF,) if half and not rounds_float16() else ()
        return (*remarks(self.model), *told_of_integers(self.model), *cut)

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
        unfit = {node for node, reason in plan.notes.items() if reason.startswith(UNFIT)}
        shielded(quantized, self.config.row.runtime, unfit)
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
        images, limit = option("CalibImages"), option("CalibDataSize")
        options = None if images is None else ImageOptions.from_dict(images)
        mask, names = option("SampleMask"), {value.name for value in self.model.graph.inputs}
        beside = [mask_spec(mask)] if mask and mask not in names else []
        return samples_of(self.model, source, path=path, limit=limit, image_options=options, beside=beside)

    def rescaled(self, factors: Arrays, shifts: Arrays, smoothed: Arrays = NONE) -> Job:
        """The job with its prepared model equalized and smoothed; where a Mul is new, sites are placed anew.

        Placement asks of values of weights no more than whether one is a table as well, and formats are right also
        where it is none any more.

        Raises:
            PlanError: the model has no such weights or activations: the factors are of a plan of another one.
        """
        if not factors and not shifts and not smoothed:
            return self
        try:
            model = rescale(self.prepared, factors, shifts)
            model = with_products(model, smoothed) if smoothed else model
        except (KeyError, ValueError) as error:  # a plan's, that has other weights
            why = f"it rescales what this one does not have ({error})"
            raise PlanError(f"the plan was made for another model: {why}; {ANEW}") from error
        job = replace(self, prepared=model)
        sites = job.placed(self.config) if smoothed else self.sites
        sites = replace(sites, model=io.fingerprint(model), factors=factors, shifts=shifts, smoothed=smoothed)
        return replace(job, sites=sites)
