"""One node on the way back: what a rule reads of it, and the nodes that a rule writes.

A rule takes a `Step` and returns the gradients by the node's inputs, by their positions, or `Skip` with the reason why
it has none. It computes those that are wanted; an input that it leaves out stops the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.edit import add_constant, fresh_name, graph_of
from quark_onnx.graph.view import constant, input_at, shape

Gradients = Mapping[int, ir.Value]
Constants = dict[tuple[Any, ...], ir.Value]


class Step:
    """A node, the gradients by its outputs, and what is wanted of its inputs.

    node    of the forward pass
    kind    the float type of the gradients; an integer tensor, between a QuantizeLinear and its DequantizeLinear, has
            the gradient of what its codes stand for
    """

    def __init__(
        self,
        node: ir.Node,
        gradients: Sequence[ir.Value | None],
        wanted: frozenset[int],
        kind: ir.DataType,
        constants: Constants,
    ) -> None:
        self.node, self.kind = node, kind
        self.written: list[ir.Node] = []
        self._gradients, self._wanted, self._constants = gradients, wanted, constants
        self._graph = graph_of(node)

    @property
    def dy(self) -> ir.Value:
        """The gradient by output 0."""
        gradient = self.gradient(0)
        assert gradient is not None
        return gradient

    def gradient(self, index: int) -> ir.Value | None:
        """The gradient by an output; None where nothing comes back."""
        return self._gradients[index]

    def wants(self, index: int) -> bool:
        """Whether somebody asks for the gradient by this input."""
        return index in self._wanted

    @property
    def wanted(self) -> list[int]:
        """The inputs whose gradient is asked for."""
        return sorted(self._wanted)

    @property
    def x(self) -> ir.Value:
        """Input 0."""
        return self.input(0)

    @property
    def y(self) -> ir.Value:
        """Output 0."""
        return self.node.outputs[0]

    def input(self, index: int) -> ir.Value:
        """An input that is there."""
        value = input_at(self.node, index)
        assert value is not None
        return value

    def output(self, index: int) -> ir.Value:
        """An output of the forward node, which gets it if nobody needed it so far."""
        missing = index + 1 - len(self.node.outputs)
        if missing > 0:
            self.node.resize_outputs(index + 1)
        value = self.node.outputs[index]
        value.name = value.name or fresh_name(self._graph, f"{self.y.name}_{index}")
        return value

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self.node.attributes.get_int(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        return float(self.node.attributes.get_float(name, default))

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers, None where it is absent."""
        found = self.node.attributes.get_ints(name)
        return None if found is None else [int(number) for number in found]

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        return str(self.node.attributes.get_string(name, default))

    @property
    def opset(self) -> int:
        """The operator set of the graph."""
        return int(self._graph.opset_imports[""])

    # what a rule writes

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new node."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, count: int, *inputs: ir.Value | None, **attributes: Any) -> list[ir.Value]:
        """The outputs of a new node with several."""
        name = fresh_name(self._graph, f"{self.node.name or self.node.op_type}_back_{op_type}")
        node = ir.node(op_type, inputs, attributes, num_outputs=count, name=name)
        for value in node.outputs:
            value.name = fresh_name(self._graph, name)
        self.written.append(node)
        return list(node.outputs)

    def again(self, value: ir.Value) -> ir.Value:
        """What the node makes of another input 0."""
        attributes = {key: attribute.value for key, attribute in self.node.attributes.items()}
        return self.op(self.node.op_type, value, *self.node.inputs[1:], **attributes)

    def constant(self, array: Any) -> ir.Value:
        """An initializer; equal ones are one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = add_constant(self._graph, array, "gradient_constant")
        return self._constants[key]

    def floats(self, values: Any) -> ir.Value:
        """A constant of the gradients' type."""
        return self.constant(np.asarray(values, self.kind.numpy()))

    def ints(self, values: Sequence[int] | int) -> ir.Value:
        """A constant of int64."""
        return self.constant(np.asarray(values, np.int64))

    def scaled(self, value: ir.Value, factor: float) -> ir.Value:
        """A number times a value."""
        return value if factor == 1 else self.op("Mul", value, self.floats(factor))

    def mask(self, truth: ir.Value) -> ir.Value:
        """1 where it is true, else 0. To multiply by it is several times faster than onnxruntime's Where."""
        return self.op("Cast", truth, to=self.kind.value)

    def dims(self, value: ir.Value) -> ir.Value:
        """The shape of a tensor, as a tensor: a constant where it is known."""
        known = shape(value)
        if known is None or None in known:
            return self.op("Shape", value)
        return self.ints([dim for dim in known if dim is not None])

    def reshaped(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """The value with the shape of another one."""
        return self.op("Reshape", value, self.dims(like))

    def with_shape(self, value: ir.Value, dims: Sequence[int]) -> ir.Value:
        """The value with these dimensions, of which one may be -1; 0 stays what it is."""
        return self.op("Reshape", value, self.ints(dims))

    def zeros(self, like: ir.Value) -> ir.Value:
        """Zeros, of the gradients' type and the shape of a tensor."""
        nothing = ir.tensor(np.zeros(1, self.kind.numpy()))
        return self.op("ConstantOfShape", self.dims(like), value=nothing)

    def sum(self, value: ir.Value, axes: Sequence[int], keepdims: bool = True) -> ir.Value:
        """The sum along axes; the value itself where there are none."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.ints(axes), keepdims=int(keepdims))

    def mean(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """The mean along axes, which stay as ones."""
        if self.opset < 18:
            return self.op("ReduceMean", value, axes=list(axes), keepdims=1)
        return self.op("ReduceMean", value, self.ints(axes), keepdims=1)

    def transposed(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """The value with its axes in this order."""
        return self.op("Transpose", value, perm=list(perm))

    def sliced(
        self, value: ir.Value, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
    ) -> ir.Value:
        """A part of the value."""
        return self.op("Slice", value, self.ints(starts), self.ints(ends), self.ints(axes), self.ints(steps))


Rule = Callable[[Step], Gradients | Skip]


def rank_of(value: ir.Value) -> int:
    """Number of axes, which is known of all that a node with a rule reads and makes."""
    assert value.shape is not None
    return len(value.shape)


def dims_of(value: ir.Value) -> list[Any]:
    """Dimensions: a number, or a symbol of the IR."""
    assert value.shape is not None
    return list(value.shape)


def known_shape(value: ir.Value, axes: slice = slice(None)) -> tuple[int, ...] | Skip:
    """Dimensions along these axes, or why a rule that needs them does nothing."""
    dims = shape(value)
    part = None if dims is None else dims[axes]
    if part is None or None in part:
        return Skip(f"the shape of {value.name!r} is not known")
    return tuple(dim for dim in part if dim is not None)


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """The integers of a constant; None where it is not one."""
    array = constant(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]
