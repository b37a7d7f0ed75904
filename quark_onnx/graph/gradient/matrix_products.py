"""MatMul, with batches, vectors and broadcasting, and Gemm."""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.broadcasting import summed, unbroadcast
from quark_onnx.graph.gradient.step import Gradients, Step, dims_of, known_shape, rank_of


def product(step: Step) -> Gradients:
    """A·B: dY·Bᵀ and Aᵀ·dY; a vector is a matrix of one row or column."""
    a, b = step.input(0), step.input(1)
    ranks = rank_of(a), rank_of(b)
    if 1 in ranks:
        return _with_vector(step, ranks[0], ranks[1])
    found = {}
    if step.wants(0):
        part = step.op("MatMul", step.dy, _turned(step, b, ranks[1]))
        found[0] = _summed(step, part, a)
    if step.wants(1) and ranks[1] == 2 and not isinstance(dims := known_shape(b), Skip):
        rows, back = step.with_shape(a, [-1, dims[0]]), step.with_shape(step.dy, [-1, dims[1]])
        found[1] = step.op("Gemm", rows, back, transA=1)
    elif step.wants(1):
        part = step.op("MatMul", _turned(step, a, ranks[0]), step.dy)
        found[1] = _summed(step, part, b)
    return found


def _turned(step: Step, value: ir.Value, rank: int) -> ir.Value:
    return step.transposed(value, [*range(rank - 2), rank - 1, rank - 2])


def _summed(step: Step, gradient: ir.Value, to: ir.Value) -> ir.Value:
    """The sum along axes of batches that `to` does not have, or has once."""
    return summed(step, gradient, to, [*dims_of(step.y)[:-2], *dims_of(to)[-2:]])


def _with_vector(step: Step, rank_a: int, rank_b: int) -> Gradients:
    """Through columns, and rows: with the axis that the product has not, put back."""
    a, b, dy = step.input(0), step.input(1), step.dy
    if rank_b == 1:
        dy = step.op("Unsqueeze", dy, step.ints([-1]))
        b = step.op("Unsqueeze", b, step.ints([1]))
    if rank_a == 1:
        dy = step.op("Unsqueeze", dy, step.ints([-2]))
        a = step.op("Unsqueeze", a, step.ints([0]))
    found = {}
    if step.wants(0):
        part = step.op("MatMul", dy, _turned(step, b, max(rank_b, 2)))
        found[0] = _to_vector(step, part, step.input(0), rank_a, rank_b)
    if step.wants(1):
        part = step.op("MatMul", _turned(step, a, max(rank_a, 2)), dy)
        found[1] = _to_vector(step, part, step.input(1), rank_b, rank_a)
    return found


def _to_vector(step: Step, gradient: ir.Value, to: ir.Value, rank: int, other: int) -> ir.Value:
    """The batches are those of the other side."""
    gradient = step.sum(gradient, range(other - 2), keepdims=False) if rank == 1 else gradient
    return step.reshaped(gradient, to)


def gemm(step: Step) -> Gradients:
    """alpha·A'·B' + beta·C, each side turned or not."""
    found, (a, b, dy) = {}, (step.input(0), step.input(1), step.dy)
    turned_a, turned_b = step.integer("transA", 0), step.integer("transB", 0)
    alpha = step.number("alpha", 1.0)
    if step.wants(0) and turned_a:
        found[0] = step.op("Gemm", b, dy, transA=turned_b, transB=1, alpha=alpha)
    elif step.wants(0):
        found[0] = step.op("Gemm", dy, b, transB=1 - turned_b, alpha=alpha)
    if step.wants(1) and turned_b:
        found[1] = step.op("Gemm", dy, a, transA=1, transB=turned_a, alpha=alpha)
    elif step.wants(1):
        found[1] = step.op("Gemm", a, dy, transA=1 - turned_a, alpha=alpha)
    if step.wants(2):
        found[2] = unbroadcast(step, step.scaled(dy, step.number("beta", 1.0)), step.input(2))
    return found
