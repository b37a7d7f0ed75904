"""The simulation: a float model, a quantizer on every tensor that a runtime configuration names, and what they make."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, ModelError, PlanError, nearest
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import flag, whole
from quark_onnx.encodings import EncodingFile, read, write
from quark_onnx.encodings.reading import Source as EncodingSource
from quark_onnx.encodings.reading import named
from quark_onnx.engine.exact_simulation import exact as written_out
from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.quantsim.behind_clamps import passed
from quark_onnx.quantsim.calibration_session import ObservingSession, run_forward
from quark_onnx.quantsim.encodings_files import encoding_file, load, shapes_of
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.saturating_weights import exact_everywhere
from quark_onnx.quantsim.scheme import QuantScheme, as_scheme
from quark_onnx.quantsim.simulated_grids import Chosen, choose, on_grid, plan_of, realized, rounded
from quark_onnx.quantsim.simulated_model import ConfigFile, Source, begin, ranging
from quark_onnx.stages.ranges import observed_tensors
from quark_onnx.stages.simulated_placement.integer_biases import with_int32_biases

logger = logging.getLogger("quark_onnx")


class QuantizationSimModel:
    """A float model that computes as quantized hardware would, as AIMET simulates it.

        sim = QuantizationSimModel("model.onnx", default_param_bw=8, default_output_bw=8)
        sim.compute_encodings(samples)
        sim.session.run(None, sample)
        sim.export("out", "model")

    Args:
        model: path or `onnx.ModelProto` of a float model; never modified.
        dummy_input: one feed, or the array of a model with one input; only checked to fit.
        quant_scheme: how ranges are chosen, a `QuantScheme` or its name.
        default_param_bw: width of parameters, 2..16.
        default_output_bw: width of activations, 2..16; `default_activation_bw` is another name of it.
        config_file: a runtime configuration: path, dictionary, or a name such as "default_per_tensor"; None: weights of
            layers per channel and symmetric, activations per tensor and asymmetric, biases float.
        percentile: of the scheme post_training_percentile, in percent.
        exact: compute to the bit as aimet-onnx does, two to four times as slow: see `exact_simulation`. Otherwise ties
            are rounded to even, as onnxruntime does, and its optimizations are on.
        threads: that onnxruntime may use; 0: all cores.
        user_onnx_libs: shared libraries with operators of the model that onnxruntime has not.

    Raises:
        ConfigError, ModelError, DataError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        model: Source,
        *,
        dummy_input: object = None,
        quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        default_param_bw: int = 8,
        default_output_bw: int | None = None,
        default_activation_bw: int | None = None,
        config_file: ConfigFile = None,
        percentile: float | None = None,
        exact: bool = False,
        threads: int = 0,
        user_onnx_libs: Sequence[str] = (),
    ) -> None:
        widths = {width for width in (default_output_bw, default_activation_bw) if width is not None}
        if len(widths) > 1:
            raise ConfigError(
                f"default_output_bw and default_activation_bw are the same, but given as {default_output_bw} and "
                f"{default_activation_bw}; give one of them"
            )
        self.quant_scheme = as_scheme(quant_scheme)
        width = widths.pop() if widths else 8
        start = begin(model, config_file, self.quant_scheme, default_param_bw, width, libraries=user_onnx_libs)
        self.float_model = start.model
        self._source = start.source
        self._channels = start.channels
        self._ranges = ranging(self.quant_scheme, percentile)
        self._exact, self._threads = flag("exact", exact), whole(0)("threads", threads)
        self._statistics: dict[str, Statistics] = {}
        self._runner: Runner | None = None
        self.qc_quantize_op_dict = self._made({**start.plan.sites, **start.off}, start.plan.sites.keys())
        if not self.qc_quantize_op_dict:
            raise ModelError("nothing can be simulated: the model has no float32 tensors; convert it to float32 first")
        if dummy_input is not None:
            next(iter(samples_of(self.float_model, [dummy_input])))
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
            axis = self._channels.get(tensor)
            channels = None if axis is None else (axis, shapes[tensor][axis])
            quantizer = Quantizer(members, any(site.tensor in on for site in members), channels, self._forget)
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

    def set_tensor_precision(self, tensors: Iterable[str], bitwidth: int) -> None:
        """Give several tensors another width; all or none.

        Raises:
            ConfigError: an unknown tensor, a frozen one, or a width that there is not.
        """
        names = [tensors] if isinstance(tensors, str) else tensors
        found = dict.fromkeys(self.quantizer(tensor) for tensor in names)
        for quantizer in sorted(found, key=lambda q: not q.is_encoding_frozen()):  # a frozen one refuses at once
            quantizer.bitwidth = bitwidth

    # --- encodings

    @told_as_such()
    def compute_encodings(self, forward_pass_callback: object, forward_pass_callback_args: object = None) -> None:
        """Choose the ranges of everything that is on and not frozen; all or nothing.

        Args:
            forward_pass_callback: called as f(session) or f(session, args), it runs the session on samples; or the
                samples: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
            forward_pass_callback_args: what the callback is given beside the session.

        Raises:
            DataError: nothing was run, or the data do not fit the model.
        """
        free = [q for q in self._on() if not q.is_encoding_frozen()]
        sites = {site.tensor: site for quantizer in free for site in quantizer.sites}
        observed = {site.group for site in sites.values() if site.role == "activation"}
        constants = {tensor: site for tensor, site in sites.items() if site.group not in observed}
        chosen = choose(self.float_model, constants, {}, self._ranges)
        tensors = passed(self.float_model, observed_tensors(Plan("", sites)))
        session = ObservingSession(self._with_parameters(chosen), tensors)
        run_forward(session, forward_pass_callback, forward_pass_callback_args, self.float_model)
        statistics = session.statistics()
        others = {tensor: site for tensor, site in sites.items() if tensor not in constants}
        chosen |= choose(self.float_model, others, statistics, self._ranges)
        self._statistics |= statistics
        for quantizer in free:
            self._take(quantizer, chosen)

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

    def set_and_freeze_param_encodings(self, encoding_path: EncodingSource) -> None:
        """Take over the encodings of parameters, e.g. those that AdaRound wrote, and keep them.

        What differs from the settings is logged as a warning; the settings of the file hold then. A warning also counts
        the parameters that are quantized and not in the file: `compute_encodings` chooses their encodings.

        Raises:
            PlanError: the file cannot be read, or its scales do not fit the parameters.
        """
        file = replace(read(encoding_path, self._parameters()), activations={})
        for mismatch in self._load(encoding_path, file, strict=False, freeze=True, disable_missing=False):
            logger.warning("%s", mismatch)
        left = [q.tensors[0] for q in self._on() if q.is_param and not q.is_encoding_frozen()]
        if left:
            text = "%s has no encodings for %d of the quantized parameters, e.g. %r; compute_encodings chooses them"
            logger.warning(text, named(encoding_path), len(left), left[0])

    def load_encodings(
        self,
        encodings: EncodingSource,
        strict: bool = True,
        *,
        allow_overwrite: bool = True,
        disable_missing_quantizers: bool = True,
    ) -> list[str]:
        """Take over the encodings of a file of AIMET or of ours, versions 0.4.0 to 2.0.0; all or nothing.

        Args:
            encodings: a path, or the document that was read of it.
            strict: quantizers that are on, their widths and symmetries must be those of the file.
            allow_overwrite: False freezes what was loaded.
            disable_missing_quantizers: without `strict`, switch off those that the file does not name.

        Returns:
            What did not meet, a line each; the settings of the file hold then.

        Raises:
            PlanError: the file cannot be read, its scales do not fit, or `strict` and something did not meet.
        """
        file = read(encodings, self._parameters())
        missing = strict or disable_missing_quantizers
        return self._load(encodings, file, strict=strict, freeze=not allow_overwrite, disable_missing=missing)

    def _load(
        self, source: EncodingSource, file: EncodingFile, *, strict: bool, freeze: bool, disable_missing: bool
    ) -> list[str]:
        try:
            loaded = load(
                self.float_model,
                self.qc_quantize_op_dict,
                self._channels,
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

    def _parameters(self) -> list[str]:
        return [tensor for tensor, quantizer in self.qc_quantize_op_dict.items() if quantizer.is_param]

    # --- what comes of it

    @property
    def plan(self) -> Plan:
        """Everything that is quantized, with scales and the integers of parameters.

        Raises:
            ConfigError: a quantizer that is on has no encoding.
        """
        on = self._on()
        self._complete([q for q in on if not q.is_initialized()])
        return rounded(self.float_model, plan_of(self.float_model, [q for q in on if q.enabled]))

    def adopt(self, tuned: Plan) -> None:
        """Take over what fine-tuning made of the plan: new numbers in the float model, new grids, which are frozen."""
        before = self.plan
        self.float_model = on_grid(self.float_model, tuned)
        for tensor in tuned.sites:
            q, known = tuned.qparams_of(tensor), self.quantizer(tensor)
            if tensor in tuned.codes or not q.same(before.qparams_of(tensor)):
                known.take(known.format, q, freeze=True)
        self._forget()

    def _complete(self, open: Sequence[Quantizer]) -> None:
        """Encodings of quantizers whose settings were changed, of what is known of their tensors already."""
        sites = {site.tensor: site for quantizer in open for site in quantizer.sites}
        unseen = [tensor for tensor in observed_tensors(Plan("", sites)) if tensor not in self._statistics]
        if unseen:
            more = f" and {len(unseen) - 1} others" if len(unseen) > 1 else ""
            raise ConfigError(
                f"no encoding for {unseen[0]!r}{more}: call compute_encodings with samples, or load_encodings"
            )
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

        Raises:
            ConfigError: a quantizer that is on has no encoding.
        """
        if self._runner is None:
            plan = self.plan
            lowest = {tensor: site.format.lo for tensor, site in plan.sites.items()}
            model = realized(self.float_model, plan)
            model = written_out(model, lowest) if self._exact else model
            self._runner = Runner(model, optimized=not self._exact, fuse=False, threads=self._threads)
        return self._runner.session

    def _forget(self) -> None:
        self._runner = None

    def to_onnx_qdq(self, *, export_int32_bias: bool = True) -> ModelProto:
        """The quantized model for onnxruntime: QuantizeLinear and DequantizeLinear, parameters as integers.

        Args:
            export_int32_bias: biases of layers as int32 where they fit, as integer kernels add them. onnxruntime would
                do it by itself otherwise, with less care.

        Weights whose products could saturate on x64 without VNNI are stored as uint8 with zero point 128: their numbers
        are those of the simulation on every processor.

        Raises:
            ConfigError: a quantizer that is on has no encoding.
        """
        plan = self.plan
        sites = {t: s if s.role == "activation" else _as_stored(s) for t, s in plan.sites.items()}
        plan = replace(plan, sites=sites)
        plan = with_int32_biases(self.float_model, plan) if export_int32_bias else plan
        quantized = realized(self.float_model, exact_everywhere(self.float_model, plan))
        shield(quantized)
        return io.to_proto(quantized)

    @told_as_such()
    def export(
        self,
        path: str | Path,
        filename_prefix: str,
        export_model: bool = True,
        *,
        encoding_version: str = "1.0.0",
        export_int32_bias: bool | None = None,
    ) -> None:
        """Write `<path>/<filename_prefix>.encodings`, and the float model beside it as `.onnx`.

        Args:
            encoding_version: "0.6.1", "1.0.0" or "2.0.0"; tensors that it cannot hold
                are a warning in the log, what it does not say of the others is told there.
            export_int32_bias: encodings of int32 biases, too; None: in 2.0.0, whose readers miss them otherwise.

        Raises:
            ConfigError: a quantizer that is on has no encoding, or the folder cannot be written.
            PlanError: there is no such version.
        """
        wanted = encoding_version == "2.0.0" if export_int32_bias is None else export_int32_bias
        plan = with_int32_biases(self.float_model, self.plan) if wanted else self.plan
        file = encoding_file(self.float_model, plan)
        folder = Path(path)
        for loss in write(file, folder / f"{filename_prefix}.encodings", encoding_version):
            level = logging.WARNING if loss.left_out else logging.INFO
            logger.log(level, "%s.encodings: %s", filename_prefix, loss)
        if export_model:
            io.save(self.float_model, folder / f"{filename_prefix}.onnx", source=self._source)


def _as_stored(site: Site) -> Site:
    """A 4-bit parameter in the 4-bit type of ONNX, in place of one of 8 bits."""
    return replace(site, format=replace(site.format, stored=None)) if site.format.bits == 4 else site
