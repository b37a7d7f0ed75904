"""Whether gradients that a graph computes are those of the model: against differences along random directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import scipy.special
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from text_models import text_model

from quark_onnx.graph import io
from quark_onnx.graph.gradient import differentiate

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], list[np.ndarray]]

BOUND = 1e-4
"""Of the difference, relative to what a sum of so many products of random signs is."""


@dataclass(frozen=True)
class Problem:
    """A small model.

    nodes      as ONNX text, which makes y; FLOAT and TO stand for the float type and its number
    inputs     what is fed, and differentiated by where it is of floats and not `fixed`
    constants  initializers, likewise
    batched    inputs whose first dimension the model does not know
    step       of differences: for what is linear in each tensor as far as that, and has no kernel in float64; 0: 1e-6
    rank       of y, where inference does not tell it
    """

    nodes: str
    inputs: Arrays
    constants: Arrays = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    batched: tuple[str, ...] = ()
    step: float = 0
    opset: int = 18
    rank: int | None = None

    @property
    def by(self) -> list[str]:
        """The tensors to differentiate by."""
        floats = [name for name, array in (*self.inputs.items(), *self.constants.items()) if array.dtype.kind == "f"]
        return [name for name in floats if name not in self.fixed]

    def model(self, dtype: Any) -> onnx.ModelProto:
        """In float32 or float64."""
        told = {"f": "float" if dtype == np.float32 else "double", "i": "int64", "b": "bool"}
        declared = [f"{told[array.dtype.kind]}{self._dims(name, array)} {name}" for name, array in self.inputs.items()]
        kind = {"FLOAT": told["f"], "TO": str(1 if dtype == np.float32 else 11)}
        nodes = self.nodes
        for key, text in kind.items():
            nodes = nodes.replace(key, text)
        made = f"[{', '.join('?' * (self.rank or 0))}]" if self.rank != 0 else ""
        text = f"g ({', '.join(declared)}) => ({told['f']}{made} y) {{ {nodes} }}"
        return text_model(text, self.opset, 9, **typed(self.constants, dtype))

    def _dims(self, name: str, array: np.ndarray) -> str:
        dims = [str(size) for size in array.shape]
        dims = ["N", *dims[1:]] if name in self.batched else dims
        return f"[{', '.join(dims)}]" if dims else ""


def typed(arrays: Arrays, dtype: Any) -> dict[str, np.ndarray]:
    """The floats in another type."""
    return {name: array.astype(dtype) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def runs_in(proto: onnx.ModelProto, dtype: Any) -> Run:
    """onnxruntime; where it has no kernel in float64, onnx's reference."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda feed: list(session.run(None, dict(feed)))
    except Exception:
        if dtype == np.float32:
            raise
        reference = ReferenceEvaluator(proto, new_ops=[Erf, Gelu])
        return lambda feed: list(map(np.asarray, reference.run(None, dict(feed))))


class Erf(OpRun):
    """In float64: that of the reference is rounded to float32."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (scipy.special.erf(x),)


class Gelu(OpRun):
    """Likewise."""

    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (x * scipy.special.ndtr(x),)


@dataclass(frozen=True)
class Solved:
    """The problem differentiated, in float32 or float64."""

    run: Run
    feed: Arrays
    names: tuple[str, ...]
    outputs: list[np.ndarray]

    @property
    def gradients(self) -> dict[str, np.ndarray]:
        """By each tensor."""
        return dict(zip(self.names, self.outputs[1:], strict=True))

    def y(self, name: str, change: np.ndarray) -> np.ndarray:
        """What the model computes with another tensor."""
        changed = np.asarray(self.feed[name] + change, self.feed[name].dtype)
        return self.run({**self.feed, name: changed})[0].astype(np.float64)


def solved(problem: Problem, weight: np.ndarray, dtype: Any) -> Solved:
    """For the sum of the output times a weight. Nothing may be in the way of a gradient."""
    made = differentiate(io.load(problem.model(dtype)), ["y"], problem.by)
    assert (made.stops, made.unreached) == ((), ())
    tensors = typed({**problem.inputs, **problem.constants}, dtype)
    feed = {name: tensors[name] for name in (*problem.inputs, *problem.by)}
    feed[made.incoming["y"]] = weight.astype(dtype)
    run = runs_in(io.to_proto(made.model), dtype)
    return Solved(run, feed, tuple(made.gradients), run(feed))


def error_of(problem: Problem, seed: int) -> float:
    """The largest relative error, of all tensors, of the gradients, and of those in float32 at every fourth seed.

    The model goes on to compute what it did.
    """
    exact = np.float32 if problem.step else np.float64
    generator = np.random.default_rng(seed)
    (y,) = runs_in(problem.model(exact), exact)(typed(problem.inputs, exact))
    problem, weight = replace(problem, rank=y.ndim), generator.standard_normal(y.shape)
    found = solved(problem, weight, exact)
    np.testing.assert_allclose(found.outputs[0], y, rtol=1e-6, atol=1e-6 * abs(y).max(initial=0))
    single = found if problem.step or seed % 4 else solved(problem, weight, np.float32)
    errors = [0.0]
    for name, gradient in found.gradients.items():
        assert gradient.shape == found.feed[name].shape, name
        assert gradient.dtype == exact, name
        size = float(np.linalg.norm(gradient)) + 1e-12
        errors.append(float(np.linalg.norm(single.gradients[name] - gradient)) / size)
        direction = generator.uniform(-1, 1, gradient.shape) * (problem.step or 1e-6)
        difference = float(((found.y(name, direction) - found.y(name, -direction)) * weight).sum()) / 2
        products = gradient * direction
        size = float(np.linalg.norm(products)) + 1e-18
        if problem.step:  # what cancels in float32 leaves the rounding of what it is the sum of
            size += 0.1 * float(np.linalg.norm(weight) * np.linalg.norm(direction)) / direction.size**0.5
        errors.append(abs(difference - float(products.sum())) / size)
    return float(np.max(errors))  # not a number, where one is
