"""AIMET's AdaRound: a float model whose weights are rounded by what layers make of data, and the encodings they are on.

    sim = QuantizationSimModel(model, param_type="int4")
    apply_adaround(sim, samples)
    sim.compute_encodings(samples)

or, until AIMET 2.7:

    params = AdaroundParameters(data_loader, num_batches=32)
    model = Adaround.apply_adaround(model, params, "out", "model", default_param_bw=8)
    sim = QuantizationSimModel(model, default_param_bw=8)
    sim.set_and_freeze_param_encodings("out/model.encodings")
    sim.compute_encodings(samples)

Rounding the weights to nearest on these encodings gives the very integers that were chosen. The method is that of the
`_ADAROUND` presets. AIMET keeps activations float meanwhile. Here layers read them as the simulation will have them,
with 8 bits: what is rounded, and the bias, then make up for that, too.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import field, optional, pair, real, whole
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.encodings import from_plan, write
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.quantsim.calibration_session import takes_two
from quark_onnx.quantsim.common.defs import QuantScheme, as_scheme
from quark_onnx.quantsim.data_loader import feeds_of
from quark_onnx.quantsim.encodings_files import shapes_of
from quark_onnx.quantsim.fine_tuning import tune, tuned
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulated_grids import on_grid, rounded
from quark_onnx.quantsim.simulated_model import ConfigFile, Source
from quark_onnx.quantsim.simulation import simulated
from quark_onnx.quantsim.simulation_arguments import entries, file_place, layer_names, layers_of, one_of, refuse
from quark_onnx.stages.simulated_placement.units import unit_of

logger = logging.getLogger("quark_onnx")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class AdaroundParameters:
    """What AdaRound learns from, and how long.

    data_loader             yields batches, see `data_loader.feeds_of`: dicts, arrays, tuples of arrays
    num_batches             how many of them are used
    default_num_iterations  per layer; None: as many as pay, see docs/fast_finetune.md. AIMET needs 10,000 and 15,000
    default_reg_param       weight of the term that drives each weight to one of its two roundings
    default_beta_range      the exponent of that term goes from the first to the second
    default_warm_start      part of the iterations before that term starts
    forward_fn              called as forward_fn(session, batch) for batches that are no feeds, e.g. hold labels: it
                            runs the session, which is like an onnxruntime.InferenceSession, on what the model reads.
                            Or as AIMET for ONNX has it, a function of the session alone, or of it and
                            `forward_pass_callback_args`: encodings are computed of what it runs, as by
                            `sim.compute_encodings`, and the batches must be feeds
    forward_pass_callback_args  what that one is given beside the session; None: nothing

    Raises:
        ConfigError: a value is out of its range, or the loader has fewer batches.
    """

    data_loader: object
    num_batches: int = dataclasses.field(metadata={"check": whole(1)})
    default_num_iterations: int | None = field(None, optional(whole(1)))
    default_reg_param: float = field(0.01, real(0))
    default_beta_range: tuple[float, float] = field((20, 2), pair(real(above=0), real(above=0)))
    default_warm_start: float = field(0.2, real(0, below=1))
    forward_fn: Callable[..., Any] | None = None
    forward_pass_callback_args: Any = None

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            if "check" in entry.metadata:
                object.__setattr__(self, entry.name, entry.metadata["check"](entry.name, getattr(self, entry.name)))
        if self.default_beta_range[0] < self.default_beta_range[1]:
            raise ConfigError(f"default_beta_range must go down, e.g. (20, 2), not {self.default_beta_range}")
        if self.forward_fn is not None and not callable(self.forward_fn):
            raise ConfigError(f"forward_fn must be a function of a session and a batch, not {self.forward_fn!r}")
        if self.forward_pass_callback_args is not None and self.forward_fn is None:
            raise ConfigError("forward_pass_callback_args is what forward_fn is given; give a forward_fn, too")
        loader = self.data_loader
        if isinstance(loader, Sized) and not isinstance(loader, (str, Mapping)) and len(loader) < self.num_batches:
            raise ConfigError(
                f"num_batches is {self.num_batches}, but the data_loader has {len(loader)}; give at most as many as it "
                "has"
            )

    @property
    def calibrates(self) -> bool:
        """Whether `forward_fn` runs the session on data of its own, and not on a batch."""
        given = self.forward_pass_callback_args is not None
        return self.forward_fn is not None and (given or not takes_two(self.forward_fn))

    @property
    def options(self) -> AdaRound:
        """The same as settings of fine-tuning."""
        return AdaRound(
            num_iterations=self.default_num_iterations,
            reg_param=self.default_reg_param,
            beta_range=self.default_beta_range,
            warm_start=self.default_warm_start,
            target_op_type=LAYERS,
        )


def _either_order(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose `dummy_input` may be absent: AIMET for PyTorch has one after the model, AIMET for ONNX none.

    The types tell which is meant: parameters are no feed.
    """

    @functools.wraps(function)
    def ordered(*args: P.args, **kwargs: P.kwargs) -> T:
        if len(args) > 1 and isinstance(args[1], AdaroundParameters):
            args = (args[0], None, *args[1:])  # type: ignore[assignment]
        elif len(args) < 2:
            kwargs.setdefault("dummy_input", None)
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            order = "the arguments begin with model, params, path, filename_prefix; dummy_input may be after the model"
            raise ConfigError(f"apply_adaround: {error}; {order}") from error
        return function(*args, **kwargs)

    return ordered


class Adaround:
    """AIMET's name for the place of `apply_adaround`."""

    @staticmethod
    @_either_order
    @told_as_such()
    def apply_adaround(
        model: Source,
        dummy_input: object,
        params: AdaroundParameters,
        path: str | Path,
        filename_prefix: str,
        default_param_bw: int = 4,
        param_bw_override_list: Iterable[tuple[str, int]] | None = None,
        ignore_quant_ops_list: Iterable[str] | None = None,
        default_quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        default_config_file: ConfigFile = None,
        user_onnx_libs: Sequence[str] | None = None,
        **others: object,
    ) -> ModelProto:
        """Round the weights of Conv, ConvTranspose, Gemm and MatMul, and write `<path>/<filename_prefix>.encodings`.

        Args:
            model: path or `onnx.ModelProto` of a float model, best with BatchNormalizations folded; never modified.
            dummy_input: None, or one feed, only checked to fit; it may be left out, as in AIMET for ONNX.
            default_param_bw: width of parameters, 2..31; the simulation must be made with the same.
            param_bw_override_list: pairs of a layer, or one of its parameters, by name, and the width it has instead.
            ignore_quant_ops_list: names of nodes whose parameters and outputs stay float meanwhile.
            default_quant_scheme: how ranges are chosen; the scale of a weight is then searched around it.
            default_config_file: a runtime configuration, as of the simulation.
            user_onnx_libs: as of the simulation.
            others: AIMET's `use_cuda` and `device`, where they say what holds here anyway.

        Returns:
            The float model, parameters being on the grids of the encodings; biases make up for what rounding changed.
            Layers that could not be tuned are rounded to nearest, and a warning says why.

        Raises:
            ConfigError, ModelError, DataError: an argument cannot be used; nothing is written then.
        """
        refuse(
            "apply_adaround",
            others,
            ("use_cuda", "device"),
            ("default_param_bw", "param_bw_override_list", "ignore_quant_ops_list"),
        )
        if not isinstance(params, AdaroundParameters):
            raise ConfigError(f"params must be AdaroundParameters, not {type(params).__name__}")
        stem, scheme = file_place(path, filename_prefix), as_scheme(default_quant_scheme)
        if scheme.learns:
            raise ConfigError(
                f"default_quant_scheme {scheme.name} learns ranges by training, AdaRound needs them beforehand; give "
                f"post_training_{scheme.method}, and learn ranges after it"
            )
        sim = QuantizationSimModel(
            model,
            dummy_input=dummy_input,
            quant_scheme=scheme,
            default_param_bw=default_param_bw,
            config_file=default_config_file,
            user_onnx_libs=user_onnx_libs,
        )
        _set_widths(sim, param_bw_override_list or ())
        ignored = _ignore(sim, ignore_quant_ops_list or ())
        adapter = None if params.calibrates else params.forward_fn
        feeds = feeds_of(params.data_loader, params.num_batches, adapter, sim.float_model)
        sim.compute_encodings(params.forward_fn if params.calibrates else feeds, params.forward_pass_callback_args)
        done = tuned(sim.float_model, replace(sim.plan, codes={}), feeds, params.options)
        _tell(sim.float_model, done, ignored)
        model_on_grid = on_grid(sim.float_model, rounded(sim.float_model, done.plan))
        _write(model_on_grid, done.plan, stem.with_name(f"{stem.name}.encodings"))
        return io.to_proto(model_on_grid)


@told_as_such()
def apply_adaround(
    sim: QuantizationSimModel,
    inputs: object,
    num_iterations: int | None = None,
    nodes_to_include: Collection[str] | None = None,
    *,
    node_names_to_optimize: Collection[str] | None = None,
) -> None:
    """Round the weights of layers by what they make of data, and freeze their encodings in the simulation.

    Layers are Conv, ConvTranspose, Gemm and MatMul with a constant weight that is quantized. They read what the layers
    before them make of the samples; activations have the ranges that the simulation has, or else those of the samples.
    Biases make up for what rounding changed, as in the `_ADAROUND` presets; AIMET leaves them. Where scales are frozen,
    e.g. those of `apply_seq_mse`, weights are rounded on them; otherwise better ones are searched. Encodings that are
    still open are computed of the samples first; afterwards call `compute_encodings` for the activations.

    Args:
        sim: changed in place, or not at all.
        inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples.
        num_iterations: per layer; None: as many as pay, see docs/fast_finetune.md. AIMET does 10,000.
        nodes_to_include: names of the layers that are rounded so; None: all.
        node_names_to_optimize: AIMET's older name of it.

    Raises:
        ConfigError: there is no such layer, or `num_iterations` is no positive whole number.
        DataError: the samples do not fit the model.
        KeyboardInterrupt: it was interrupted; nothing has changed then.
    """
    named = {"nodes_to_include": nodes_to_include, "node_names_to_optimize": node_names_to_optimize}
    included = one_of(None, **named)
    layers = layers_of(simulated(sim).float_model)
    chosen = layers if included is None else layer_names("nodes_to_include", included, layers)
    weights = {t: q for t, q in sim.qc_quantize_op_dict.items() if q.enabled and q.sites[0].role == "weight"}
    ours = {t for node in chosen for t in sim.get_op_quantizers(node)[2] if t in weights}
    search = not any(weights[t].is_encoding_frozen() for t in ours)
    options = AdaRound(num_iterations=num_iterations, target_op_type=LAYERS, scale_search=search)
    feeds = keep(told(samples_of(sim.float_model, inputs)))
    if sim.unseen():
        sim.compute_encodings(feeds)
    done = tune(sim, feeds, options, weights.keys() - ours)
    for tensor in ours:
        weights[tensor].freeze_encodings()
    _tell(sim.float_model, done, set(layers) - set(chosen))


def _set_widths(sim: QuantizationSimModel, pairs: Iterable[tuple[str, int]]) -> None:
    """Give layers or parameters other widths.

    Raises:
        ConfigError: an entry is no pair, there is no such layer or parameter, or no such width.
    """
    known, nodes = sim.qc_quantize_op_dict, [node.name or "" for node in sim.float_model.graph]
    for entry in entries("param_bw_override_list", pairs, "pairs (name, bits)"):
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
            raise ConfigError(f"param_bw_override_list must hold pairs (name, bits), not {entry!r}")
        name, width = entry
        tensors = [name] if name in known and known[name].is_param else []
        if not tensors and name in nodes:
            tensors = list(sim.get_op_quantizers(name)[2])
        if not tensors:
            choices = [tensor for tensor, quantizer in known.items() if quantizer.is_param]
            choices += [node for node in nodes if sim.get_op_quantizers(node)[2]]
            near = nearest(str(name), choices)
            raise ConfigError(f"param_bw_override_list: no layer or parameter of one is named {name!r}{near}")
        sim.set_tensor_precision(tensors, width)


def _ignore(sim: QuantizationSimModel, names: Iterable[str]) -> set[str]:
    """Switch off what these nodes write and the parameters they read.

    Raises:
        ConfigError: the model has no such node, or a string is given for a list.
    """
    ignored = set(entries("ignore_quant_ops_list", names, "names"))
    for name in sorted(ignored):
        _, outputs, parameters = sim.get_op_quantizers(name)
        for quantizer in (*outputs, *parameters.values()):
            quantizer.enabled = False
    return ignored


def _tell(model: Model, done: Tuning, ignored: set[str]) -> None:
    """Log the layers with a weight that were not tuned, and why."""
    for node in model.graph:
        name = node.name or ""
        weight = unit_of(node).params.get("weight") if node.op_type in LAYERS else None
        if weight is not None and name in done.reasons and name not in ignored:
            reason = done.reasons[name] if weight in node.inputs else "its weight is computed from a constant: fold it"
            logger.warning("AdaRound leaves %r rounded to nearest: %s", name, reason)
    for record in done.records:
        if not record.accepted:
            logger.info("AdaRound leaves %r rounded to nearest: held-out samples say that it is better so", record.node)


def _write(model: Model, plan: Plan, path: Path) -> None:
    """The encodings of the parameters, with the scales of the tuned integers."""
    parameters = {tensor: site for tensor, site in plan.sites.items() if site.role in ("weight", "bias")}
    file = from_plan(replace(plan, sites=parameters, values={}), shapes_of(model))
    # the integers are those of the model's weights: nothing is lost there
    for loss in write(replace(file, losses=()), path):
        logger.info("%s: %s", path.name, loss)
