"""Sums, products, powers and what else is computed number by number, with broadcasting."""

from __future__ import annotations

from functools import reduce

import onnx_ir as ir

from quark_onnx.graph.gradient.broadcasting import unbroadcast
from quark_onnx.graph.gradient.step import Gradients, Step
from quark_onnx.graph.view import constant, numpy_dtype


def add(step: Step) -> Gradients:
    """Add, and a Sum of any number."""
    return {index: unbroadcast(step, step.dy, step.input(index)) for index in step.wanted}


def mean(step: Step) -> Gradients:
    """The mean of several tensors."""
    share = step.scaled(step.dy, 1 / len(step.node.inputs))
    return {index: unbroadcast(step, share, step.input(index)) for index in step.wanted}


def sub(step: Step) -> Gradients:
    """a − b"""
    found = {}
    for index in step.wanted:
        part = unbroadcast(step, step.dy, step.input(index))
        found[index] = step.op("Neg", part) if index else part
    return found


def mul(step: Step) -> Gradients:
    """a·b"""
    found = {}
    for index in step.wanted:
        part = step.op("Mul", step.dy, step.input(1 - index))
        found[index] = unbroadcast(step, part, step.input(index))
    return found


def div(step: Step) -> Gradients:
    """a/b: 1/b, and −y/b"""
    found, share = {}, step.op("Div", step.dy, step.input(1))
    if step.wants(0):
        found[0] = unbroadcast(step, share, step.x)
    if step.wants(1):
        part = step.op("Neg", step.op("Mul", share, step.y))
        found[1] = unbroadcast(step, part, step.input(1))
    return found


def power(step: Step) -> Gradients:
    """xᵉ: e·xᵉ⁻¹, and y·ln x"""
    found, exponent = {}, step.input(1)
    if step.wants(0):
        part = step.op("Mul", step.dy, _slope_of_power(step, exponent))
        found[0] = unbroadcast(step, part, step.x)
    if step.wants(1):
        part = step.op("Mul", step.dy, step.op("Mul", step.y, step.op("Log", step.x)))
        found[1] = unbroadcast(step, part, exponent)
    return found


def _slope_of_power(step: Step, exponent: ir.Value) -> ir.Value:
    known = constant(exponent)
    if known is not None and (known == 2).all():
        return step.op("Mul", step.x, step.floats(known))
    if known is not None:
        return step.op("Mul", step.op("Pow", step.x, step.floats(known - 1.0)), step.floats(known))
    if numpy_dtype(exponent) != step.kind.numpy():
        exponent = step.op("Cast", exponent, to=step.kind.value)
    return step.op("Mul", exponent, step.op("Pow", step.x, step.op("Sub", exponent, step.floats(1))))


def negative(step: Step) -> Gradients:
    """−x"""
    return {0: step.op("Neg", step.dy)}


def square_root(step: Step) -> Gradients:
    """√x: ½/y"""
    return {0: step.op("Div", step.scaled(step.dy, 0.5), step.y)}


def exponential(step: Step) -> Gradients:
    """eˣ: y"""
    return {0: step.op("Mul", step.dy, step.y)}


def logarithm(step: Step) -> Gradients:
    """ln x: 1/x"""
    return {0: step.op("Div", step.dy, step.x)}


def absolute(step: Step) -> Gradients:
    """|x|: its sign"""
    return {0: step.op("Mul", step.dy, step.op("Sign", step.x))}


def reciprocal(step: Step) -> Gradients:
    """1/x: −y²"""
    return {0: step.op("Neg", step.op("Mul", step.dy, step.op("Mul", step.y, step.y)))}


def sine(step: Step) -> Gradients:
    """sin x: cos x"""
    return {0: step.op("Mul", step.dy, step.op("Cos", step.x))}


def cosine(step: Step) -> Gradients:
    """cos x: −sin x"""
    return {0: step.op("Neg", step.op("Mul", step.dy, step.op("Sin", step.x)))}


def extreme(step: Step) -> Gradients:
    """Max and Min: to whom the value is; those that share it, share its gradient."""
    values = [step.input(index) for index in range(len(step.node.inputs))]
    masks = [step.mask(step.op("Equal", value, step.y)) for value in values]
    if len(values) == 1:
        return {0: step.dy}
    share = step.op("Div", step.dy, reduce(lambda one, other: step.op("Add", one, other), masks))
    parts = {index: step.op("Mul", share, masks[index]) for index in step.wanted}
    return {index: unbroadcast(step, part, values[index]) for index, part in parts.items()}


def choice(step: Step) -> Gradients:
    """Where: to the one that was taken."""
    found, taken = {}, step.x
    for index in step.wanted:
        truth = taken if index == 1 else step.op("Not", taken)
        part = step.op("Mul", step.dy, step.mask(truth))
        found[index] = unbroadcast(step, part, step.input(index))
    return found
