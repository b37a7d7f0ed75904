"""The graph that a training step runs: the quantized model as it is written, a loss behind it, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.engine.trainable_model import trainable
from quark_onnx.graph import Model, io
from quark_onnx.graph.element_types import infer_types_as
from quark_onnx.graph.gradient import Stop, differentiate, raise_opset
from quark_onnx.graph.loss_terms import LossTerms
from quark_onnx.graph.open_dimensions import close_dimensions
from quark_onnx.graph.view import FLOATS, is_op, output_names

MOST = 8
"""Tensors inside that are compared where none are named."""


@dataclass(frozen=True)
class TrainingGraph:
    """Models of standard operators only, and the names of what goes in and comes out.

    model      the quantized model as it is written, the terms of the loss, and the gradients of the loss
    forward    the same without gradients
    weights    tensor of the plan → input that takes its dequantized values
    biases     likewise
    scales     group of activations → input that takes its scale
    gradients  one of these inputs → output with the gradient by it of the sum of the loss over the samples
    terms      term of the loss → output, a sum over the samples of a batch
    loss       output with the sum of the terms by their weights
    teachers   tensor of the float model → input that takes it
    labels     input that takes labels; None: no loss reads them
    outputs    of the user's model
    incoming   input that takes the gradient of the loss by itself, 1
    unreached  inputs of parameters that the loss does not depend on
    stops      nodes that gradients do not go through, with the reason
    """

    model: Model
    forward: Model
    weights: Mapping[str, str]
    biases: Mapping[str, str]
    scales: Mapping[str, str]
    gradients: Mapping[str, str]
    terms: Mapping[str, str]
    loss: str
    teachers: Mapping[str, str]
    labels: str | None
    outputs: tuple[str, ...]
    incoming: str
    unreached: tuple[str, ...]
    stops: tuple[Stop, ...]


def training_graph(
    prepared: Model,
    plan: Plan,
    losses: Losses,
    *,
    labels: tuple[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    wanted: Sequence[str] = ("weights", "biases", "scales"),
) -> TrainingGraph:
    """The graph of a step.

    Args:
        prepared: the float model that the plan belongs to, which is the teacher as well; left as it is.
        labels: element type and number of axes of the labels; None: there are none.
        shapes: of inputs, as all shards have them: the way back through a Resize takes sizes that are known.
        wanted: of what gradients are asked for.

    Raises:
        ConfigError: a loss needs labels, or names a tensor that the model does not have.
        ModelError: the model has no output to learn from, or gradients cannot be written for its opset.
    """
    opened = trainable(prepared, plan)
    model = opened.model
    outputs = tuple(output_names(model))
    raise_opset(model)
    close_dimensions(model, shapes or {})
    infer_types_as(model, prepared)
    terms = LossTerms(model, labels)
    for name in losses.weights:
        if name == "features":
            known = [value.name or "" for node in prepared.graph for value in node.outputs]
            terms.features(losses.feature_names or _features(prepared, plan), known)
        else:
            _add(terms, name, losses)
    found = terms.done(losses.weights, "loss")
    inputs = [name for kind in wanted for name in getattr(opened, kind).values()]
    made = differentiate(model, [found["loss"]], inputs)
    return TrainingGraph(
        model=made.model,
        forward=model,
        weights=opened.weights,
        biases=opened.biases,
        scales=opened.scales,
        gradients=made.gradients,
        terms={name: output for name, output in found.items() if name != "loss"},
        loss=found["loss"],
        teachers=terms.teachers,
        labels=terms.labels,
        outputs=outputs,
        incoming=made.incoming[found["loss"]],
        unreached=made.unreached,
        stops=made.stops,
    )


def _add(terms: LossTerms, name: str, losses: Losses) -> None:
    if name == "kl":
        terms.distillation(losses.temperature)
    elif name == "cross_entropy":
        terms.cross_entropy()
    elif name == "graph":
        assert losses.graph is not None
        terms.graph(io.load(losses.graph))
    else:
        terms.distance(name)


def _features(prepared: Model, plan: Plan) -> list[str]:
    """What layers hand on: the tensors with a quantizer behind them, else their outputs; evenly over the depth.

    Of a model with nothing inside, its outputs.
    """
    outputs = [value.name or "" for value in prepared.graph.outputs if value.dtype in FLOATS]
    found = []
    for node in prepared.graph:
        if not is_op(node, *LAYERS):
            continue
        value = node.outputs[0]
        while value.name not in plan.sites and len(value.consumers()) == 1:
            (reader,) = value.consumers()
            if not is_op(reader, "Relu", "Clip", "LeakyRelu", "Add"):
                break
            value = reader.outputs[0]
        if value.name and value.name not in outputs:
            found.append(value.name)
    found = list(dict.fromkeys(found)) or outputs
    count = min(MOST, len(found))
    return [found[(k + 1) * len(found) // count - 1] for k in range(count)]
