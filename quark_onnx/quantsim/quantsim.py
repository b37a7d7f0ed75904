"""The simulation under AIMET's names: what a user may say, encodings from files, and what is exported."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Site
from quark_onnx.core.records import Training
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import choice, flag, optional, whole
from quark_onnx.encodings import read, write
from quark_onnx.encodings.reading import Source as EncodingSource
from quark_onnx.encodings.reading import named
from quark_onnx.engine.float_layer_shield import shield
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.graph import ModelProto, io
from quark_onnx.graph.view import is_op
from quark_onnx.quantsim.calibration_session import is_callback, run_forward
from quark_onnx.quantsim.common.defs import QuantScheme, as_qtype, as_scheme, bits, qtype
from quark_onnx.quantsim.encodings_files import axes_of, encoding_file, shapes_of
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.saturating_weights import exact_everywhere
from quark_onnx.quantsim.simulated_grids import realized
from quark_onnx.quantsim.simulated_model import ConfigFile, Source, begin, ranging
from quark_onnx.quantsim.simulation import Simulation, simulated
from quark_onnx.quantsim.simulation_arguments import (
    FIXED_IN_QDQ,
    file_place,
    layer_names,
    layers_of,
    one_of,
    refuse,
    several,
)
from quark_onnx.quantsim.training import settings_for, train
from quark_onnx.quantsim.wide_grids import refuse_wide
from quark_onnx.stages.simulated_placement.integer_biases import with_int32_biases
from quark_onnx.stages.train import Augment

logger = logging.getLogger("quark_onnx")

ARGUMENTS = (
    *("dummy_input", "quant_scheme", "param_type", "activation_type", "default_param_bw", "default_output_bw"),
    *("default_activation_bw", "config_file", "quantsim_config", "percentile", "exact", "threads", "user_onnx_libs"),
)
FIXED_ARGUMENTS = (
    *("providers", "use_cuda", "device", "default_data_type", "rounding_mode", "use_symmetric_encodings", "path"),
    "session_options_kwargs",
)
"""Of `QuantizationSimModel`: those that it has, and those that AIMET's has besides."""


class QuantizationSimModel(Simulation):
    """A float model that computes as quantized hardware would, as AIMET simulates it.

        sim = QuantizationSimModel("model.onnx", param_type="int8", activation_type="int8")
        sim.compute_encodings(samples)
        sim.session.run(None, sample)
        sim.export("out", "model")

    Args:
        model: path or `onnx.ModelProto` of a float model; never modified.
        dummy_input: one feed, or the array of a model with one input; only checked to fit.
        quant_scheme: how ranges are chosen, a `QuantScheme` or its name; None: post_training_tf_enhanced, or min_max
            where `param_type` or `activation_type` is given, which are AIMET's defaults until 2.7 and from 2.8 on.
        param_type: of parameters: a `qtype` such as `int8`, or its name; a float type leaves them float.
        activation_type: the same of activations.
        default_param_bw: width of parameters, 2..31, in place of `param_type`; above 16 in simulation only.
        default_output_bw: the same of activations; `default_activation_bw` is another name of it.
        config_file: a runtime configuration: path, dictionary, or a name such as "default_per_tensor"; None: weights of
            layers per channel and symmetric, activations per tensor and asymmetric, biases float. `quantsim_config` is
            another name of it.
        percentile: of the scheme post_training_percentile, in percent.
        exact: compute to the bit as aimet-onnx does, two to four times as slow: see `exact_simulation`. Otherwise ties
            are rounded to even, as onnxruntime does, and its optimizations are on.
        threads: that onnxruntime may use; 0: all cores.
        user_onnx_libs: shared libraries with operators of the model that onnxruntime has not.
        others: AIMET's `providers`, `use_cuda`, `rounding_mode` …, where they say what holds here anyway.

    Raises:
        ConfigError, ModelError, DataError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        model: Source,
        dummy_input: object = None,
        *,
        quant_scheme: QuantScheme | str | None = None,
        param_type: qtype | str | None = None,
        activation_type: qtype | str | None = None,
        default_param_bw: int | None = None,
        default_output_bw: int | None = None,
        default_activation_bw: int | None = None,
        config_file: ConfigFile = None,
        quantsim_config: ConfigFile = None,
        percentile: float | None = None,
        exact: bool = False,
        threads: int = 0,
        user_onnx_libs: Sequence[str] | None = None,
        **others: object,
    ) -> None:
        refuse("QuantizationSimModel", others, FIXED_ARGUMENTS, ARGUMENTS)
        typed = param_type is not None or activation_type is not None
        usual = QuantScheme.min_max if typed else QuantScheme.post_training_tf_enhanced
        self.quant_scheme = usual if quant_scheme is None else as_scheme(quant_scheme)
        param = _type(param_type=param_type, default_param_bw=default_param_bw)
        older = {"default_output_bw": default_output_bw, "default_activation_bw": default_activation_bw}
        activation = _type(activation_type=activation_type, **older)
        if param.floating and activation.floating:
            raise ConfigError("param_type and activation_type are both float types: nothing would be quantized")
        config = one_of(None, config_file=config_file, quantsim_config=quantsim_config)
        widths = (8 if kind.floating else kind.bits for kind in (param, activation))
        start = begin(model, config, self.quant_scheme, *widths, libraries=user_onnx_libs or ())
        self._source = start.source
        super().__init__(start, ranging(self.quant_scheme, percentile), exact=exact, threads=threads)
        for quantizers, kind in zip(self.get_all_quantizers(), (param, activation), strict=True):
            for quantizer in quantizers:
                quantizer.enabled = quantizer.enabled and not kind.floating
        if dummy_input is not None:
            next(iter(samples_of(self.float_model, [dummy_input])))

    @told_as_such()
    def compute_encodings(
        self, forward_pass_callback: object = None, forward_pass_callback_args: object = None, *, inputs: object = None
    ) -> None:
        """Choose the ranges of everything that is on and not frozen; all or nothing.

        Args:
            forward_pass_callback: called as f(session) or f(session, args), it runs the session on samples; or the
                samples: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
            forward_pass_callback_args: what the callback is given beside the session.
            inputs: another name of the first, for samples.

        Raises:
            ConfigError: samples are given twice, or with arguments of a callback.
            DataError: nothing was run, or the data do not fit the model.
        """
        if inputs is not None and forward_pass_callback is not None:
            raise ConfigError("compute_encodings takes inputs, or forward_pass_callback; give one of them")
        source = forward_pass_callback if inputs is None else inputs
        if forward_pass_callback_args is not None and not is_callback(source):
            raise ConfigError("forward_pass_callback_args is what a forward_pass_callback is given; samples take none")
        with self.observed() as session:
            run_forward(session, source, forward_pass_callback_args, self.float_model)

    def set_and_freeze_param_encodings(self, encoding_path: EncodingSource) -> None:
        """Take over the encodings of parameters, e.g. those that AdaRound wrote, and keep them.

        What differs from the settings is logged as a warning; the settings of the file hold then. A warning also counts
        the parameters that are quantized and not in the file: `compute_encodings` chooses their encodings.

        Raises:
            PlanError: the file cannot be read, or its scales do not fit the parameters.
        """
        file = replace(read(encoding_path, _parameters(self)), activations={})
        for mismatch in self.lay(encoding_path, file, strict=False, freeze=True, disable_missing=False):
            logger.warning("%s", mismatch)
        params = self.get_all_quantizers()[0]
        left = [q.tensors[0] for q in params if q.enabled and not q.is_encoding_frozen()]
        if left:
            text = "%s has no encodings for %d of the quantized parameters, e.g. %r; compute_encodings chooses them"
            logger.warning(text, named(encoding_path), len(left), left[0])

    @told_as_such()
    def train(
        self, inputs: object, labels: object = None, *, augment: Augment | None = None, **settings: object
    ) -> Training:
        """Train the simulated model as a whole, from the encodings that it has: quantization-aware training.

            sim.train(samples, labels)
            sim.train(samples, epochs=15, learning_rate=1e-4, losses={"kl": 1.0, "features": 1.0})

        Do first what needs no training: equalization, AdaRound, `compute_encodings`. Weights and biases move; ranges of
        activations and scales of weights only with the schemes `training_range_learning_with_…_init`, and not where
        encodings are frozen. The float model has the new weights then, and encodings of what was trained are frozen.

        Args:
            inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples; a share
                of them is held out, and where nothing is better on these, all stays as it is.
            labels: an array with a row for each sample, or a `.npy` file of it; None: the float model is the teacher.
            augment: makes another sample of one, see `quark_onnx.stages.train.Augment`.
            settings: fields of `QAT`; those that are not given are what AIMET's guide recommends: 20 epochs, learning
                rate divided by 10 after 10 of them.

        Returns:
            The losses on the way, and the point that was kept. Ctrl-C keeps the best so far.

        Raises:
            ConfigError: a quantizer has no encoding, or a setting is unknown or out of its range.
            DataError: the samples do not fit the model, or the labels do not fit them.
        """
        return train(self, inputs, labels, augment, settings_for(self.quant_scheme, settings))

    def to_onnx_qdq(self, *, export_int32_bias: bool = True, **others: object) -> ModelProto:
        """The quantized model for onnxruntime: QuantizeLinear and DequantizeLinear, parameters as integers.

        Args:
            export_int32_bias: biases of layers as int32 where they fit, as integer kernels add them. onnxruntime would
                do it by itself otherwise, with less care.
            others: AIMET's `prequantize_constants`, where it says what holds here anyway.

        Weights whose products could saturate on x64 without VNNI are stored as uint8 with zero point 128: their numbers
        are those of the simulation on every processor.

        Raises:
            ConfigError: a quantizer that is on has no encoding, or more than 16 bits.
        """
        refuse("to_onnx_qdq", others, FIXED_IN_QDQ, ("export_int32_bias",))
        fold = flag("export_int32_bias", export_int32_bias)
        plan = self.plan
        refuse_wide(plan)
        sites = {t: s if s.role == "activation" else _as_stored(s) for t, s in plan.sites.items()}
        plan = replace(plan, sites=sites)
        plan = with_int32_biases(self.float_model, plan) if fold else plan
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
        stem, model_too = file_place(path, filename_prefix), flag("export_model", export_model)
        wanted = optional(flag)("export_int32_bias", export_int32_bias)
        wanted = encoding_version == "2.0.0" if wanted is None else wanted
        plan = with_int32_biases(self.float_model, self.plan) if wanted else self.plan
        file = encoding_file(self.float_model, plan)
        for loss in write(file, stem.with_name(f"{stem.name}.encodings"), encoding_version):
            level = logging.WARNING if loss.left_out else logging.INFO
            logger.log(level, "%s.encodings: %s", filename_prefix, loss)
        if model_too:
            io.save(self.float_model, stem.with_name(f"{stem.name}.onnx"), source=self._source)


@contextmanager
def compute_encodings(sim: QuantizationSimModel) -> Iterator[None]:
    """What `sim.session` runs in the block is what the encodings are computed of, as by `sim.compute_encodings`.

    Raises:
        DataError: nothing was run; the encodings are what they were then, as after any error in the block.
    """
    with simulated(sim).observed() as session:
        yield
        session.refuse_idle("the block of compute_encodings", "sim.session")


def load_encodings_to_sim(
    sim: QuantizationSimModel,
    encodings: EncodingSource,
    strict: bool = True,
    *,
    allow_overwrite: bool = True,
    disable_missing_quantizers: bool = True,
) -> list[str]:
    """Take over the encodings of a file of AIMET or of ours, versions 0.4.0 to 2.0.0; all or nothing.

    Args:
        sim: changed in place.
        encodings: a path, or the document that was read of it.
        strict: quantizers that are on, their widths and symmetries must be those of the file.
        allow_overwrite: False freezes what was loaded.
        disable_missing_quantizers: without `strict`, switch off those that the file does not name.

    Returns:
        What did not meet, a line each; the settings of the file hold then.

    Raises:
        PlanError: the file cannot be read, its scales do not fit, or `strict` and something did not meet.
    """
    file = read(encodings, _parameters(simulated(sim)))
    exact, keep = flag("strict", strict), not flag("allow_overwrite", allow_overwrite)
    missing = flag("disable_missing_quantizers", disable_missing_quantizers) or exact
    return sim.lay(encodings, file, strict=exact, freeze=keep, disable_missing=missing)


def set_blockwise_quantization_for_weights(
    sim: QuantizationSimModel,
    op_types: str | Collection[str],
    bitwidth: int,
    symmetric: bool,
    block_size: int,
    strict: bool = False,
    nodes_to_exclude: Collection[str] | None = None,
) -> None:
    """Give the weights of layers a scale for each block of input channels, of every output channel.

    Args:
        sim: changed in place, or not at all; `compute_encodings` chooses the scales.
        op_types: of the layers: Conv, ConvTranspose, Gemm, MatMul.
        bitwidth: 2..31.
        symmetric: whether zero points are in the middle.
        block_size: input channels in a block.
        strict: refuse where blocks do not divide the input channels, or a kernel has several positions, each of which
            would have scales of its own; False leaves such a weight as it is.
        nodes_to_exclude: names of layers that are left out.

    Raises:
        ConfigError: an argument cannot be used, a quantizer is frozen, or `strict` and a weight has no such blocks.
    """
    simulated(sim)
    types = [choice(LAYERS)("op_types", t) for t in several("op_types", op_types)]
    width, middle, size = bits("bitwidth", bitwidth), flag("symmetric", symmetric), whole(1)("block_size", block_size)
    excluded = layer_names("nodes_to_exclude", nodes_to_exclude or (), layers_of(sim.float_model))
    layers = [n.name or "" for n in sim.float_model.graph if is_op(n, *types) and n.name not in excluded]
    axes = axes_of(shapes_of(sim.float_model), sim.channels)
    blocks: dict[Quantizer, int] = {}
    for tensor, quantizer in [found for node in layers for found in sim.get_op_quantizers(node)[2].items()]:
        if quantizer.enabled and quantizer.sites[0].role == "weight":
            why = _no_blocks(shapes_of(sim.float_model)[tensor], axes.get(tensor), size)
            if why is None:
                blocks[quantizer] = axes[tensor][1]
            elif flag("strict", strict):
                raise ConfigError(f"{tensor!r} cannot have blocks of {size}: {why}; name its layer in nodes_to_exclude")
            else:
                logger.warning("%r stays as it is, without blocks of %d: %s", tensor, size, why)
    for quantizer in sorted(blocks, key=lambda q: not q.is_encoding_frozen()):  # a frozen one refuses at once
        quantizer.enable_blockwise_quantization(blocks[quantizer], size)
        quantizer.bitwidth, quantizer.use_symmetric_encodings = width, middle


def _no_blocks(shape: tuple[int, ...], axes: tuple[int, int] | None, size: int) -> str | None:
    """Why a weight has no blocks of so many input channels; None: it has."""
    if axes is None or len(shape) < 2:
        return "it has no input channels"
    if shape[axes[1]] % size:
        return f"its {shape[axes[1]]} input channels are no multiple"
    others = [n for i, n in enumerate(shape) if i not in axes]
    if max(others, default=1) > 1:
        return f"its shape is {list(shape)}, and each position of a kernel would have scales of its own"
    return None


def _type(**named: object) -> qtype:
    """The type of one of several names for the same argument; int8 if none is given.

    Raises:
        ConfigError: there is no such type, or two names have different ones.
    """
    said = {name: as_qtype(name, value) for name, value in named.items() if value is not None}
    found: qtype = one_of(qtype.int(8), **{name: said.get(name) for name in named})
    return found


def _parameters(sim: Simulation) -> list[str]:
    return [tensor for tensor, quantizer in sim.qc_quantize_op_dict.items() if quantizer.is_param]


def _as_stored(site: Site) -> Site:
    """A 4-bit parameter in the 4-bit type of ONNX, in place of one of 8 bits."""
    return replace(site, format=replace(site.format, stored=None)) if site.format.bits == 4 else site
