"""A job from a model file: read, checked, prepared, with places for quantizers, bodies of control flow included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quark_onnx.core.name_patterns import matching
from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.layer_types import OPTION as LAYER_TYPES
from quark_onnx.core.settings.tensor_overrides import override_opset
from quark_onnx.engine.blamed_model import blaming
from quark_onnx.engine.body_feeds import RUNNABLE
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runtimes.known import refuse
from quark_onnx.engine.saturation_certificate import is_quantized
from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.graph.bodies import Body, as_model, bodies, holds, shares_constants
from quark_onnx.graph.from_float16 import to_float32
from quark_onnx.graph.integer_nodes import refuse_quantized
from quark_onnx.graph.view import is_op
from quark_onnx.job import Job
from quark_onnx.stages.place.float16 import needs_float
from quark_onnx.stages.prepare import Prepared, prepare

HALF_OPSET = Format(scale="half").opset
"""The operator set from which scales may be float16."""

OF_MAIN = ("TensorQuantOverrides", "AutoMixprecision", "FastFinetune", "BiasCorrection", "InlineIf")
"""Options that bodies have no use for: they name tensors of the main graph, or judge its layers by its outputs."""


def open_job(source: str | Path | ModelProto, config: QuantizationConfig) -> Job:
    """Load, check, prepare and place.

    Raises:
        ModelError, ConfigError: the model cannot be used, or the configuration names what it does not have.
    """
    model = open_model(source, config.option("UserCustomOpLibPath"))
    refuse_quantized(model)
    refuse(config.row, model)
    with blaming(model):
        return _opened(source, model, config)


def _opened(source: str | Path | ModelProto, model: Model, config: QuantizationConfig) -> Job:
    """Prepare and place."""
    io.settle(model)
    widened = to_float32(model)
    overrides = config.tensor_overrides
    conversions = {name: one.readers for name, one in overrides.items() if one.convert is not None}
    plain, half = (model, False) if widened is None else (widened.model, not config.convert_fp16_to_fp32)
    others = (config.moved,) if config.include_auto_mp else config.layers.values()
    opset = max(_opset(c, half=half) for c in (config, *others))
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
    config = _of_bodies(job.config, _types_inside(job, model))
    done = _prepared(model, config, None)
    title = f"{body.title} inside {job.title}" if job.title else body.title
    shares = job.shares or shares_constants(body)
    inner = Job(
        job.source, config, model, done.model, Plan(""), Counter(), told=done.remarks, title=title, shares=shares
    )
    inner = _with_bodies(replace(inner, nodes=job.nodes, tensors=job.tensors))
    return replace(inner, sites=inner.placed(config))


def _types_inside(job: Job, model: Model) -> dict[str, Any]:
    """What of the option LayerTypes names layers of a body."""
    layers = {node.name for node in model.graph.all_nodes() if is_op(node, *LAYERS)}
    asked = job.config.option(LAYER_TYPES) or {}
    return {name: types for name, types in asked.items() if layers & matching([name], job.nodes, LAYER_TYPES)}


def _of_bodies(config: QuantizationConfig, types: Mapping[str, Any]) -> QuantizationConfig:
    """The configuration with which bodies are quantized: the same number types and ranges, rounded to nearest.

    types: of single layers inside.
    """
    options = {key: value for key, value in config.extra_options.items() if key not in OF_MAIN}
    options[LAYER_TYPES] = types or None
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
        apart=config.row.strides_apart and config.observes,
        numbered=[name for name, one in config.tensor_overrides.items() if one.channels is not None],
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
    formats = [activation, weight, Format(config.bias_bits or 32)]
    formats += [Format(4)] if config.option("TableBits") == 4 else []
    return max(*(format.opset for format in formats), overrides, HALF_OPSET if half else 0)
