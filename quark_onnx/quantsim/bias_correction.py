"""Empirical bias correction: what quantization shifts every channel by is taken back by the layer's bias.

    b  ←  b + E[W x + b] − E[Wq xq + b]

where xq is what the layers before it, quantized and corrected already, make of the samples (Nagel et al. 2019, DFQ,
§4.2). A correction counts only if samples that it was not made from agree.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import names, whole
from quark_onnx.core.settings.fast_finetune import Nearest
from quark_onnx.engine.activation_store import ROOM
from quark_onnx.engine.calibration_data import Feed, told
from quark_onnx.engine.counted_positions import bare
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import first, keep, samples_in
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model, ModelProto, Node
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.view import constant, input_at, is_op, shape, sole_reader
from quark_onnx.quantsim.common.defs import QuantScheme, as_scheme, bits
from quark_onnx.quantsim.returned_model import hand_back
from quark_onnx.quantsim.simulated_model import ConfigFile, Source, Start, begin, open_float
from quark_onnx.quantsim.wide_grids import apart
from quark_onnx.stages.channel_importance import channel_importance
from quark_onnx.stages.finetune import finetune
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

logger = logging.getLogger("quark_onnx")


@dataclass(frozen=True)
class QuantParams:
    """The quantization that biases are corrected for.

    weight_bw     width of parameters, 2..31
    act_bw        width of activations, 2..31
    round_mode    "nearest"
    quant_scheme  how ranges are chosen, a `QuantScheme` or its name
    config_file   a runtime configuration, as for `QuantizationSimModel`

    Raises:
        ConfigError: a value cannot be used.
    """

    weight_bw: int = 8
    act_bw: int = 8
    round_mode: str = "nearest"
    quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced
    config_file: ConfigFile = None

    def __post_init__(self) -> None:
        bits("weight_bw", self.weight_bw)
        bits("act_bw", self.act_bw)
        as_scheme(self.quant_scheme)
        if self.round_mode != "nearest":
            raise ConfigError(f"round_mode {self.round_mode!r} is not supported; use 'nearest', or AdaRound")


@told_as_such()
def correct_bias(
    model: Source,
    quant_params: QuantParams,
    num_quant_samples: int,
    data_loader: object,
    num_bias_correct_samples: int,
    conv_bn_dict: Mapping[Any, Any] | None = None,
    perform_only_empirical_bias_corr: bool = True,
    layers_to_ignore: Sequence[str] | None = None,
) -> ModelProto:
    """Correct the biases of a float model for the quantization that it will get; nothing else changes.

    A layer without a bias gets one, named `<layer>_bias`, if it is corrected. A MatMul takes that of the Add behind it.
    Biases count as float while they are corrected, whatever the configuration makes of them. Do not combine with
    AdaRound, which moves the weights that biases were corrected for.

    Args:
        model: path, or `onnx.ModelProto`, which is changed in place. Fold BatchNormalizations first.
        quant_params: the quantization.
        num_quant_samples: samples that ranges are chosen from.
        data_loader: samples without labels: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or
            tuples, in batches of any size; the first ones are used, for both purposes.
        num_bias_correct_samples: samples that biases are corrected on.
        conv_bn_dict: not used by empirical correction; None or empty.
        perform_only_empirical_bias_corr: True; analytic correction is not built.
        layers_to_ignore: names of layers, quantized all the same, whose biases stay.

    Returns:
        The corrected float model: the very object that was given, or a new one for a path.

    Raises:
        ConfigError, ModelError, DataError: an argument cannot be used; the model is as it was then.
    """
    _refuse(quant_params, conv_bn_dict, perform_only_empirical_bias_corr)
    ranged = whole(1)("num_quant_samples", num_quant_samples)
    corrected = whole(1)("num_bias_correct_samples", num_bias_correct_samples)
    q = quant_params
    start = begin(model, q.config_file, as_scheme(q.quant_scheme), q.weight_bw, q.act_bw, biases=True)
    ignored = _layers(start.model, () if layers_to_ignore is None else layers_to_ignore)
    feeds = keep(first(told(samples_of(start.model, data_loader)), max(ranged, corrected)))
    for count, name in ((ranged, "num_quant_samples"), (corrected, "num_bias_correct_samples")):
        if (given := sum(map(samples_in, feeds))) < count:
            logger.warning("the data hold %d samples, fewer than %s=%d", given, name, count)
    split = apart(start.model, _ranged(start, feeds[: _count(feeds, ranged)]))
    plan = _tunable(split.model, split.plan, ignored)
    values = _corrected(split.model, plan, feeds[: _count(feeds, corrected)])
    return hand_back(model, _with_biases(open_float(model), start.model, values))


def _refuse(params: object, conv_bn_dict: Mapping[Any, Any] | None, empirical: object) -> None:
    if not isinstance(params, QuantParams):
        raise ConfigError(f"quant_params must be QuantParams(weight_bw=8, act_bw=8, …), not {type(params).__name__}")
    if empirical is not True:
        raise ConfigError(
            "perform_only_empirical_bias_corr=False asks for analytic correction, which is not built; leave it out: "
            "empirical correction takes every layer"
        )
    if conv_bn_dict:
        raise ConfigError("conv_bn_dict is for analytic correction, which is not built; leave it out")


def _layers(model: Model, wanted: Sequence[str]) -> set[str]:
    """Names that are all of layers."""
    known = [node.name or "" for node in model.graph if is_op(node, *LAYERS)]
    for name in names("layers_to_ignore", wanted):
        if name not in known:
            raise ConfigError(f"layers_to_ignore: the model has no layer {name!r}{nearest(name, known)}")
    return set(wanted)


def _count(feeds: Iterable[Feed], samples: int) -> int:
    return sum(1 for _ in first(feeds, samples))


def _ranged(start: Start, feeds: Sequence[Feed]) -> Plan:
    statistics = observe(start.model, feeds, observed_tensors(start.plan), lambda done: None)
    return choose_ranges(start.model, start.plan, statistics, start.ranges)


def _tunable(model: Model, plan: Plan, ignored: Collection[str]) -> Plan:
    """The plan as fine-tuning understands it: biases are float, an Add belongs to its MatMul, some layers stay out."""
    added = {node: tensor for node in model.graph if (tensor := _added_bias(node)) is not None}
    floats = {tensor for tensor, site in plan.sites.items() if site.role == "bias"} | set(added.values())
    sites = {tensor: site for tensor, site in plan.sites.items() if tensor not in floats}
    nodes = {node: tuple(t for t in tensors if t in sites) for node, tensors in plan.nodes.items()}
    for node in added:
        if node.name in nodes:
            nodes[next(iter(node.outputs[0].consumers())).name or ""] = nodes[node.name]
    reasons = {node.name or "": _why_fixed(node, added) for node in model.graph if is_op(node, *LAYERS)}
    out = {name: reason for name, reason in reasons.items() if reason is not None} | dict.fromkeys(ignored, "ignored")
    for name, reason in out.items():
        logger.info("bias correction: %r is left out: %s", name, reason)
    return replace(plan, sites=sites, nodes={node: tensors for node, tensors in nodes.items() if node not in out})


def _why_fixed(node: Node, added: Collection[Node]) -> str | None:
    """Why the layer has no bias that could move; None if it has one."""
    layer = read(node)
    if isinstance(layer, Skip):
        return layer.reason
    return "no Add of a constant per column is behind it" if is_op(node, "MatMul") and node not in added else None


def _added_bias(node: Node) -> str | None:
    """The constant that an Add puts on a MatMul, one value for each of its columns; None: there is none."""
    add = sole_reader(node.outputs[0]) if is_op(node, "MatMul") else None
    columns = None if add is None else shape(input_at(node, 1))
    if add is None or columns is None or not is_op(add, "Add"):
        return None
    value = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    array = constant(value)
    if value is None or array is None or array.shape[-1:] != columns[-1:] or array.size != columns[-1]:
        return None
    return value.name


def _corrected(model: Model, plan: Plan, feeds: Sequence[Feed]) -> Mapping[str, NDArray[Any]]:
    """The new values of biases."""
    options = Nearest(scale_search=False, update_bias=True)
    gains = channel_importance(model)
    done = finetune(model, plan, bare(model, feeds), options, gains, ROOM, lambda text, at, layers: None)
    if done.interrupted:  # half a correction is none
        raise KeyboardInterrupt
    changed = sum(record.accepted for record in done.records)
    logger.info("bias correction: %d of %d layers", changed, len(done.records))
    return done.plan.values


def _with_biases(model: Model, biased: Model, values: Mapping[str, NDArray[Any]]) -> Model:
    """The user's model with these biases, which may be new; `biased` is the same with one in every layer."""
    nodes = {node.name: node for node in model.graph}
    for name, value in values.items():
        (use,) = biased.graph.initializers[name].uses()  # biases that others read do not move
        set_constant(nodes[use.node.name], use.idx, value, name)
    return model
