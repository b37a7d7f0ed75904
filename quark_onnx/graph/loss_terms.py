"""Terms of a loss behind the outputs of a model, each a sum over the samples of a batch, so that batches add up.

What they compare with comes in through new inputs: tensors of the float model as `<tensor>_float`, and labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.core.errors import ConfigError, ModelError, nearest
from quark_onnx.graph import passes
from quark_onnx.graph.edit import add_constant, add_input, fresh_name
from quark_onnx.graph.element_types import infer_types
from quark_onnx.graph.io import copy
from quark_onnx.graph.opset import fit_opset, own_opset
from quark_onnx.graph.view import FLOATS, is_op, rank, shape

LEAST = 1e-12
"""A probability of 0, whose logarithm is to be finite, and a mean square of 0, to be divided by."""

FLOAT = "{}_float"
"""The input that takes a tensor of the float model."""


@dataclass(frozen=True)
class Classes:
    """Along which axis an output has them, and whether as probabilities or as logits."""

    axis: int
    probabilities: bool


class LossTerms:
    """Adds terms to a model, in place.

    Args:
        labels: element type and rank of the labels, e.g. ("int64", 1); None: there are none.
    """

    def __init__(self, model: ir.Model, labels: tuple[str, int] | None) -> None:
        self._model, self._graph = model, model.graph
        self._values = {value.name or "": value for value in model.graph.inputs}
        self._values |= {value.name or "": value for node in model.graph for value in node.outputs}
        self._labels = labels
        self._given: ir.Value | None = None
        self._terms: dict[str, ir.Value] = {}
        self.teachers: dict[str, str] = {}
        """Tensor of the float model → the input that takes it."""

    @property
    def labels(self) -> str | None:
        """The input that takes labels, if a term reads them."""
        return None if self._given is None else self._given.name

    def distillation(self, temperature: float) -> None:
        """`kl`: KL(float ‖ quantized) of outputs that are classes, else their relative squared error."""
        parts = []
        for output in self._floats():
            found = classes(output)
            if found is None:
                parts.append(self._relative(output))
                continue
            theirs, mine = (self._logarithms(value, found, temperature) for value in (self._teacher(output), output))
            gap = self._op("Mul", self._op("Exp", theirs), self._op("Sub", theirs, mine))
            one = self._mean_over_positions(self._sum(gap, [found.axis]), output)
            parts.append(self._op("Mul", one, self._number(temperature**2)))
        self._add("kl", parts)

    def features(self, tensors: Sequence[str]) -> None:
        """`features`: squared error of tensors inside, as a share of the float ones' mean square."""
        values = []
        for name in tensors:
            if name not in self._values or self._values[name].dtype not in FLOATS:
                raise ConfigError(f"feature_names: no float tensor {name!r} in the model{nearest(name, self._values)}")
            values.append(self._values[name])
        total = self._add("features", [self._relative(value) for value in values])
        self._terms["features"] = self._op("Div", total, self._number(len(values)))

    def cross_entropy(self) -> None:
        """`cross_entropy`: −log of the probability of the labelled class of the first output."""
        output = self._first()
        found = classes(output) or Classes(axis=(rank(output) or 1) - 1, probabilities=False)
        logs = self._logarithms(output, found, 1.0)
        count = self._op("Gather", self._op("Shape", output), self._ints([found.axis]))
        hot = self._op(
            "OneHot", self._labels_as(ir.DataType.INT64), count, self._floats_of([0.0, 1.0]), axis=found.axis
        )
        one = self._mean_over_positions(self._sum(self._op("Mul", hot, logs), [found.axis]), output)
        self._add("cross_entropy", [self._op("Neg", one)])

    def distance(self, name: str) -> None:
        """`l1` or `l2`: mean absolute or squared difference of the first output from labels of its shape."""
        gap = self._op("Sub", self._first(), self._labels_as(ir.DataType.FLOAT))
        part = self._op("Abs", gap) if name == "l1" else self._op("Mul", gap, gap)
        self._add(name, [self._sum(self._sample_means(part))])

    def graph(self, loss: ir.Model) -> None:
        """`graph`: what a model of the user's makes of outputs, those of the float model, and labels.

        Raises:
            ModelError: it takes what there is not, or returns not one number.
        """
        loss = self._fitted(loss)
        if len(loss.graph.outputs) != 1:
            raise ModelError(
                f"the loss graph has {len(loss.graph.outputs)} outputs; it is to return one number, a sum over samples"
            )
        outputs = {value.name or "": value for value in self._graph.outputs}
        for value in list(loss.graph.inputs):
            value.replace_all_uses_with(self._asked_for(value.name or "", outputs), replace_graph_outputs=True)
        for array in list(loss.graph.initializers.values()):
            assert array.const_value is not None
            twin = add_constant(self._graph, array.const_value.numpy(), f"loss_{array.name}")
            array.replace_all_uses_with(twin, replace_graph_outputs=True)
        result = loss.graph.outputs.pop()
        for node in list(loss.graph):
            loss.graph.remove(node)
            node.name = fresh_name(self._graph, f"loss_{node.name or node.op_type}")
            for value in node.outputs:
                value.name = fresh_name(self._graph, f"loss_{value.name}") if value.name else ""
            self._graph.append(node)
        self._graph.opset_imports.update({k: v for k, v in loss.graph.opset_imports.items() if k})
        infer_types(self._model)
        self._add("graph", [self._sum(result) if rank(result) else result])

    def done(self, weights: Mapping[str, float], loss: str) -> dict[str, str]:
        """Adds the terms, and the weighted sum of them under a name like `loss`, to the outputs; term → output."""
        parts = [self._op("Mul", value, self._number(weights[name])) for name, value in self._terms.items()]
        total = parts[0] if len(parts) == 1 else self._op("Sum", *parts)
        found = {}
        for name, value in {**self._terms, loss: total}.items():
            value.name = found[name] = fresh_name(self._graph, f"term_{name}")
            self._graph.outputs.append(value)
        infer_types(self._model)
        return found

    def _fitted(self, loss: ir.Model) -> ir.Model:
        """A copy in the operator set of the model, its constants apart."""
        loss, wanted = copy(loss), int(self._graph.opset_imports[""])
        passes.lift_constants(loss)
        try:
            fit_opset(loss, wanted, wanted)
        except ModelError as error:
            raise ModelError(
                f"the loss graph has opset {own_opset(loss)}, and does not fit a model of opset {wanted}; "
                f"write it with opset {wanted}"
            ) from error
        return loss

    def _asked_for(self, name: str, outputs: Mapping[str, ir.Value]) -> ir.Value:
        if name in outputs:
            return outputs[name]
        if name == "labels":
            return self._read_labels()
        plain = name.removesuffix("_float")
        if plain in outputs and plain != name:
            return self._teacher(outputs[plain])
        known = [*outputs, *(FLOAT.format(one) for one in outputs), "labels"]
        raise ModelError(f"the loss graph takes {name!r}, and there are {', '.join(known)}{nearest(name, known)}")

    def _add(self, name: str, parts: Sequence[ir.Value]) -> ir.Value:
        self._terms[name] = parts[0] if len(parts) == 1 else self._op("Sum", *parts)
        return self._terms[name]

    def _relative(self, value: ir.Value) -> ir.Value:
        """Over samples, the sum of mean squared error / mean square of the float tensor."""
        teacher = self._teacher(value)
        gap = self._op("Sub", value, teacher)
        error, power = (self._sample_means(self._op("Mul", one, one)) for one in (gap, teacher))
        return self._sum(self._op("Div", error, self._op("Add", power, self._number(LEAST))))

    def _teacher(self, value: ir.Value) -> ir.Value:
        name = value.name or ""
        if name not in self.teachers:
            dims = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
            given = add_input(self._graph, "float32", dims, FLOAT.format(name))
            self.teachers[name], self._values[given.name or ""] = given.name or "", given
        return self._values[self.teachers[name]]

    def _read_labels(self) -> ir.Value:
        if self._labels is None:
            raise ConfigError("a loss compares with labels, and there are none: give labels, or take another loss")
        if self._given is None:
            dtype, axes = self._labels
            self._given = add_input(self._graph, dtype, [None] * axes, "labels")
        return self._given

    def _labels_as(self, kind: ir.DataType) -> ir.Value:
        """onnxruntime's OneHot takes whole numbers of 64 bits."""
        return self._op("Cast", self._read_labels(), to=kind.value)

    def _first(self) -> ir.Value:
        return next(iter(self._floats()))

    def _floats(self) -> list[ir.Value]:
        """Outputs that a gradient comes from."""
        found = [value for value in self._graph.outputs if value.dtype in FLOATS and not value.is_graph_input()]
        if not found:
            raise ModelError("no output of the model is of floating-point numbers, so there is nothing to learn from")
        return found

    def _logarithms(self, value: ir.Value, of: Classes, temperature: float) -> ir.Value:
        """Logarithms of the probabilities of classes."""
        if of.probabilities:
            value = self._op("Log", self._op("Max", value, self._number(LEAST)))
            if temperature == 1:
                return value
        value = value if temperature == 1 else self._op("Mul", value, self._number(1 / temperature))
        return self._op("LogSoftmax", value, axis=of.axis)

    def _sample_means(self, value: ir.Value) -> ir.Value:
        """One mean for each sample, which lie along axis 0."""
        flat = self._op("Flatten", value, axis=1) if (rank(value) or 0) != 2 else value
        if int(self._graph.opset_imports[""]) < 18:
            return self._op("ReduceMean", flat, axes=[1], keepdims=0)
        return self._op("ReduceMean", flat, self._ints([1]), keepdims=0)

    def _mean_over_positions(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """The sum over samples of the mean over all other axes; `value` has one axis less than `like`."""
        return self._sum(value if (rank(like) or 0) <= 2 else self._sample_means(value))

    def _sum(self, value: ir.Value, axes: Sequence[int] = ()) -> ir.Value:
        if not axes:
            return self._op("ReduceSum", value, keepdims=0)
        return self._op("ReduceSum", value, self._ints(axes), keepdims=0)

    def _number(self, value: float) -> ir.Value:
        return self._floats_of(value)

    def _floats_of(self, values: float | Sequence[float]) -> ir.Value:
        return add_constant(self._graph, ir.tensor(values, dtype=ir.DataType.FLOAT).numpy(), "loss_constant")

    def _ints(self, values: Sequence[int]) -> ir.Value:
        return add_constant(self._graph, ir.tensor(list(values), dtype=ir.DataType.INT64).numpy(), "loss_constant")

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=fresh_name(self._graph, f"loss_{op_type}"))
        value = node.outputs[0]
        value.name = fresh_name(self._graph, f"loss_{op_type}_out")
        self._graph.append(node)
        axes = rank(inputs[0])
        if op_type in ("Sub", "Mul", "Abs", "LogSoftmax", "Exp", "Log", "Max", "Div", "Add") and axes is not None:
            value.shape = inputs[0].shape
        whole = op_type in ("Shape", "Gather") or attributes.get("to") == ir.DataType.INT64.value
        value.type = ir.TensorType(ir.DataType.INT64 if whole else ir.DataType.FLOAT)
        self._values[value.name] = value
        return value


def classes(output: ir.Value) -> Classes | None:
    """The classes of an output; None: it holds something else.

    Where its Softmax is, also through a quantizer, they are probabilities; axis 1 of (samples, classes) holds logits.
    """
    producer, axes = output.producer(), rank(output)
    while producer is not None and is_op(producer, "DequantizeLinear", "QuantizeLinear", "Clip"):
        assert producer.inputs[0] is not None
        producer = producer.inputs[0].producer()
    if producer is not None and is_op(producer, "Softmax") and axes:
        return Classes(int(producer.attributes.get_int("axis", -1)) % axes, probabilities=True)
    dims = shape(output)
    return Classes(1, probabilities=False) if axes == 2 and (dims is None or dims[1] != 1) else None
