"""A simulation: a float model, the quantizers on its tensors, their encodings, and the model that computes so."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from quark_onnx.core.errors import ConfigError, ModelError, PlanError, nearest
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.settings.checked_fields import flag, whole
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.encodings import EncodingFile
from quark_onnx.encodings.reading import Source as EncodingSource
from quark_onnx.encodings.reading import named
from quark_onnx.engine.exact_simulation import exact as written_out
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.quantsim.behind_clamps import passed
from quark_onnx.quantsim.calibration_session import ObservingSession, WaitingSession
from quark_onnx.quantsim.common.defs import as_qtype
from quark_onnx.quantsim.encodings_files import load, shapes_of
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.simulated_grids import Chosen, choose, on_grid, plan_of, realized, rounded
from quark_onnx.quantsim.simulated_model import Start
from quark_onnx.quantsim.simulation_arguments import several
from quark_onnx.stages.ranges import observed_tensors

logger = logging.getLogger("quark_onnx")


def simulated(sim: Simulation) -> Simulation:
    """What a user passes for a simulation, if it is one.

    Raises:
        ConfigError: it is something else, e.g. a model.
    """
    if not isinstance(sim, Simulation):
        raise ConfigError(f"this takes a QuantizationSimModel, not {type(sim).__name__}: make one of the model first")
    return sim


class Simulation:
    """What `QuantizationSimModel` is made of; arguments of a user, and files, are a matter of that one.

    Attributes:
        float_model: what is simulated; tuning changes its numbers.
        channels: parameter → axis of its output channels.
        qc_quantize_op_dict: tensor → its quantizer, which several tensors may share.
    """

    def __init__(self, start: Start, ranges: QuantizationConfig, *, exact: bool, threads: int) -> None:
        """Of a float model and its quantizers.

        Args:
            ranges: how they are chosen.
            exact, threads: as of `QuantizationSimModel`.

        Raises:
            ModelError: the model has nothing that could be quantized.
        """
        self.float_model = start.model
        self.channels = start.channels
        self._ranges = ranges
        self._exact, self._threads = flag("exact", exact), whole(0)("threads", threads)
        self._statistics: dict[str, Statistics] = {}
        self._runner: Runner | None = None
        self._observing: ObservingSession | None = None
        self.qc_quantize_op_dict = self._made({**start.plan.sites, **start.off}, start.plan.sites.keys())
        if not self.qc_quantize_op_dict:
            raise ModelError("nothing can be simulated: the model has no float32 tensors; convert it to float32 first")
        self._warn_of_batch_norms()

    def _made(self, sites: Mapping[str, Site], on: Collection[str]) -> dict[str, Quantizer]:
        """A quantizer for every group of sites, by tensor."""
        groups: dict[str, list[Site]] = {}
        for site in sites.values():
            groups.setdefault(site.group, []).append(site)
        shapes = shapes_of(self.float_model)
        made: dict[str, Quantizer] = {}
        for members in groups.values():
            tensor = members[0].tensor
            enabled, axis = any(site.tensor in on for site in members), self.channels.get(tensor)
            quantizer = Quantizer(members, enabled, axis, shapes.get(tensor, ()), self._forget)
            made |= dict.fromkeys(quantizer.tensors, quantizer)
        return {tensor: made[tensor] for tensor in sites}

    def _warn_of_batch_norms(self) -> None:
        count = sum(node.op_type == "BatchNormalization" for node in self.float_model.graph)
        if count:
            logger.warning(
                "the model has %d BatchNormalization operators, whose parameters are quantized one by one; hardware "
                "usually folds them into layers: call fold_all_batch_norms before the simulation",
                count,
            )

    # --- quantizers

    def quantizer(self, tensor: str) -> Quantizer:
        """The quantizer of a tensor of the model.

        Raises:
            ConfigError: there is none under this name.
        """
        if tensor not in self.qc_quantize_op_dict:
            raise ConfigError(f"no quantizer on tensor {tensor!r}{nearest(tensor, self.qc_quantize_op_dict)}")
        return self.qc_quantize_op_dict[tensor]

    def get_all_quantizers(self) -> tuple[list[Quantizer], list[Quantizer]]:
        """Those of parameters, and those of activations, on and off; each once."""
        every = list(dict.fromkeys(self.qc_quantize_op_dict.values()))
        return [q for q in every if q.is_param], [q for q in every if not q.is_param]

    def get_op_quantizers(self, node: str) -> tuple[list[Quantizer], list[Quantizer], dict[str, Quantizer]]:
        """Those of the inputs and the outputs of a node, and of its parameters by tensor; on and off.

        Raises:
            ConfigError: the model has no such node.
        """
        named = {n.name or "": n for n in self.float_model.graph}
        if node not in named:
            raise ConfigError(f"the model has no node {node!r}{nearest(node, named)}")
        known, found = self.qc_quantize_op_dict, named[node]
        read = [v.name or "" for v in found.inputs if v is not None and v.name in known]
        inputs = [known[tensor] for tensor in read if not known[tensor].is_param]
        outputs = [known[v.name or ""] for v in found.outputs if v.name in known]
        return inputs, outputs, {tensor: known[tensor] for tensor in read if known[tensor].is_param}

    def set_tensor_precision(self, names: Iterable[str], precision: object, *, strict: bool = True) -> None:
        """Give several tensors another type; all or none.

        Args:
            names: of tensors.
            precision: a `qtype`, its name, or a number of bits; a float type switches their quantizers off.
            strict: False passes over tensors without a quantizer.

        Raises:
            ConfigError: an unknown tensor, a frozen one, or a type that there is not.
        """
        wanted, skip = as_qtype("precision", precision), not flag("strict", strict)
        tensors = several("names", names)
        found = dict.fromkeys(self.quantizer(t) for t in tensors if not skip or t in self.qc_quantize_op_dict)
        for quantizer in sorted(found, key=lambda q: not q.is_encoding_frozen()):  # a frozen one refuses at once
            quantizer.set_precision(wanted)

    # --- encodings

    @contextmanager
    def observed(self) -> Iterator[ObservingSession]:
        """The session that runs meanwhile is looked at; at the end the ranges are chosen of everything that is on and
        not frozen. All or nothing. What is changed meanwhile keeps the change.

        Raises:
            ConfigError: one is looked at already.
        """
        if self._observing is not None:
            raise ConfigError("encodings of this simulation are being computed already: call this behind that block")
        free = [q for q in self._on() if not q.is_encoding_frozen()]
        begun = {quantizer: quantizer.sites for quantizer in free}
        sites = {site.tensor: site for quantizer in free for site in quantizer.sites}
        seen = {site.group for site in sites.values() if site.role == "activation"}
        constants = {tensor: site for tensor, site in sites.items() if site.group not in seen}
        chosen = choose(self.float_model, constants, {}, self._ranges)
        tensors = passed(self.float_model, observed_tensors(Plan("", sites)))
        self._observing = ObservingSession(self._with_parameters(chosen), tensors)
        try:
            yield self._observing
            statistics = self._observing.statistics()
        finally:
            self._observing = None
        others = {tensor: site for tensor, site in sites.items() if tensor not in constants}
        chosen |= choose(self.float_model, others, statistics, self._ranges)
        self._statistics |= statistics
        for quantizer in free:
            if quantizer.sites == begun[quantizer] and not quantizer.is_encoding_frozen():
                self._take(quantizer, chosen)
        if not self.unseen():
            self._complete()

    def _on(self) -> list[Quantizer]:
        return list(dict.fromkeys(q for q in self.qc_quantize_op_dict.values() if q.enabled))

    def _take(self, quantizer: Quantizer, chosen: Chosen) -> None:
        q = chosen[quantizer.sites[0].group]
        if q is None:
            quantizer.enabled = False
        else:
            quantizer.take(quantizer.format, q)

    def _with_parameters(self, chosen: Chosen) -> Model:
        """The model whose activations are observed: parameters are quantized, activations are not."""
        groups = {q.sites[0].group: q for q in self._on() if q.is_param}
        grids = {group: chosen.get(group, quantizer.qparams) for group, quantizer in groups.items()}
        ready = {group: q for group, q in grids.items() if q is not None}
        plan = replace(plan_of(self.float_model, [groups[group] for group in ready]), qparams=ready)
        return realized(self.float_model, rounded(self.float_model, plan))

    def lay(
        self, source: EncodingSource, file: EncodingFile, *, strict: bool, freeze: bool, disable_missing: bool
    ) -> list[str]:
        """Lay the encodings that a file holds on the quantizers, see `encodings_files.load`; all or nothing.

        Returns:
            What did not meet, a line each.

        Raises:
            PlanError: its scales do not fit, or `strict` and something did not meet; the message names the file.
        """
        try:
            loaded = load(
                self.float_model,
                self.qc_quantize_op_dict,
                self.channels,
                file,
                strict=strict,
                freeze=freeze,
                disable_missing=disable_missing,
            )
        except PlanError as error:
            raise PlanError(f"{named(source)}: {error}") from error
        self.qc_quantize_op_dict, mismatches = loaded
        self._forget()
        return mismatches

    # --- what comes of it

    @property
    def plan(self) -> Plan:
        """Everything that is quantized, with scales and the integers of parameters.

        Raises:
            ConfigError: a quantizer that is on has no encoding.
        """
        self._complete()
        return rounded(self.float_model, plan_of(self.float_model, self._on()))

    def adopt(self, tuned: Plan) -> None:
        """Take over what fine-tuning made of the plan: new numbers in the float model, new grids, which are frozen."""
        before = self.plan
        self.float_model = on_grid(self.float_model, tuned)
        for tensor in tuned.sites:
            q, known = tuned.qparams_of(tensor), self.quantizer(tensor)
            if tensor in tuned.codes or not q.same(before.qparams_of(tensor)):
                known.take(known.format, q, freeze=True)
        self._forget()

    def unseen(self) -> list[str]:
        """Tensors whose quantizers are on and need samples first."""
        sites = {site.tensor: site for quantizer in self._open() for site in quantizer.sites}
        return [tensor for tensor in observed_tensors(Plan("", sites)) if tensor not in self._statistics]

    def _open(self) -> list[Quantizer]:
        return [quantizer for quantizer in self._on() if not quantizer.is_initialized()]

    def _complete(self) -> None:
        """Encodings of quantizers whose settings were changed, of what is known of their tensors already."""
        if unseen := self.unseen():
            more = f" and {len(unseen) - 1} others" if len(unseen) > 1 else ""
            way = "call compute_encodings with samples, or load_encodings_to_sim"
            raise ConfigError(f"no encoding for {unseen[0]!r}{more}: {way}")
        open = self._open()
        sites = {site.tensor: site for quantizer in open for site in quantizer.sites}
        chosen = choose(self.float_model, sites, self._statistics, self._ranges)
        for quantizer in open:
            self._take(quantizer, chosen)

    @property
    def model(self) -> ModelProto:
        """The simulated model, with QuantizeLinear and DequantizeLinear on float tensors; onnxruntime runs it."""
        return io.to_proto(realized(self.float_model, self.plan))

    @property
    def session(self) -> Any:
        """An onnxruntime.InferenceSession of the simulated model; made anew after a change.

        While encodings are computed it is the one that is looked at; before that it tells inputs and outputs, and
        refuses to run with a ConfigError.
        """
        waiting = self._observing is None and self.unseen()
        return WaitingSession(self.float_model, self._running) if waiting else self._running()

    def _running(self) -> Any:
        """The session that runs now.

        Raises:
            ConfigError: a quantizer that is on has no encoding.
        """
        if self._observing is not None:
            return self._observing
        if self._runner is None:
            plan = self.plan
            lowest = {tensor: site.format.lo for tensor, site in plan.sites.items()}
            model = realized(self.float_model, plan)
            model = written_out(model, lowest) if self._exact else model
            self._runner = Runner(model, optimized=not self._exact, fuse=False, threads=self._threads)
        return self._runner.session

    def _forget(self) -> None:
        self._runner = None
