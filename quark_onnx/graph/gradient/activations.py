"""Activation functions: Relu and its kin, and those that saturate."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.gradient.broadcasting import unbroadcast
from quark_onnx.graph.gradient.step import Gradients, Step
from quark_onnx.graph.view import constant, input_at


def relu(step: Step) -> Gradients:
    """1 where y > 0"""
    return {0: step.op("Mul", step.dy, step.mask(step.op("Greater", step.y, _zero(step))))}


def clip(step: Step) -> Gradients:
    """1 where the value is its own; the rest is the limits'."""
    found, (low, high) = {}, (input_at(step.node, 1), input_at(step.node, 2))
    if step.wants(0):
        found[0] = step.op("Mul", step.dy, step.mask(step.op("Equal", step.y, _within(step, low, high))))
    if step.wants(1):
        below = step.op("Mul", step.dy, step.mask(step.op("Less", step.x, low)))
        found[1] = unbroadcast(step, below, step.input(1))
    if step.wants(2):
        above = step.op("Mul", step.dy, step.mask(step.op("Greater", step.x, high)))
        found[2] = unbroadcast(step, above, step.input(2))
    return found


def _within(step: Step, low: ir.Value | None, high: ir.Value | None) -> ir.Value:
    """What equals y where it is not at a limit: the output alone tells where limits are constants, so that the input
    need not be kept, and may never be there, where a Conv takes in the Clip."""
    inner, kind = [], step.kind.numpy()
    for limit, towards in ((low, np.inf), (high, -np.inf)):
        known = constant(limit)
        if limit is not None and known is None:
            return step.x
        inner.append(None if known is None else step.floats(np.nextafter(known.astype(kind), kind.type(towards))))
    return step.op("Clip", step.y, *inner)


def leaky_relu(step: Step) -> Gradients:
    """1 above 0, alpha below"""
    slope = step.scaled(_below(step), step.number("alpha", 0.01) - 1)
    return {0: step.op("Mul", step.dy, step.op("Add", slope, step.floats(1)))}


def learned_relu(step: Step) -> Gradients:
    """PRelu: 1 above 0, the slope below; by the slope: min(x, 0)"""
    found, slope = {}, step.input(1)
    if step.wants(0):
        factor = step.op("Mul", _below(step), step.op("Sub", slope, step.floats(1)))
        found[0] = step.op("Mul", step.dy, step.op("Add", factor, step.floats(1)))
    if step.wants(1):
        part = step.op("Mul", step.dy, step.op("Mul", step.x, _below(step)))
        found[1] = unbroadcast(step, part, slope)
    return found


def elu(step: Step) -> Gradients:
    """1 above 0, y + alpha below"""
    alpha = step.number("alpha", 1.0)
    slope = step.op("Mul", _below(step), step.op("Add", step.y, step.floats(alpha - 1)))
    return {0: step.op("Mul", step.dy, step.op("Add", slope, step.floats(1)))}


def sigmoid(step: Step) -> Gradients:
    """y(1 − y)"""
    slope = step.op("Mul", step.y, step.op("Sub", step.floats(1), step.y))
    return {0: step.op("Mul", step.dy, slope)}


def tanh(step: Step) -> Gradients:
    """1 − y²"""
    slope = step.op("Sub", step.floats(1), step.op("Mul", step.y, step.y))
    return {0: step.op("Mul", step.dy, slope)}


def softplus(step: Step) -> Gradients:
    """ln(1 + eˣ): the sigmoid"""
    return {0: step.op("Mul", step.dy, step.op("Sigmoid", step.x))}


def hard_sigmoid(step: Step) -> Gradients:
    """alpha where the line is between 0 and 1"""
    _, rising = _gate(step, step.number("alpha", 0.2), step.number("beta", 0.5))
    return {0: step.op("Mul", step.dy, step.scaled(rising, step.number("alpha", 0.2)))}


def hard_swish(step: Step) -> Gradients:
    """x·g: g, and x/6 where the gate g moves"""
    gate, rising = _gate(step, 1 / 6, 0.5)
    slope = step.op("Add", gate, step.op("Mul", rising, step.scaled(step.x, 1 / 6)))
    return {0: step.op("Mul", step.dy, slope)}


def error_function(step: Step) -> Gradients:
    """2/√π·exp(−x²)"""
    bell = step.op("Exp", step.op("Neg", step.op("Mul", step.x, step.x)))
    return {0: step.op("Mul", step.dy, step.scaled(bell, 2 / math.sqrt(math.pi)))}


def gelu(step: Step) -> Gradients:
    """x·Φ(x): Φ + x·φ. With tanh: x·h, h = ½(1 + tanh u), u = √(2/π)(x + .044715x³)"""
    x = step.x
    square = step.op("Mul", x, x)
    if step.text("approximate", "none") == "tanh":
        root, cube = math.sqrt(2 / math.pi), 0.044715
        inner = step.op("Add", step.scaled(square, root * cube), step.floats(root))
        hyperbolic = step.op("Tanh", step.op("Mul", x, inner))
        share = step.scaled(step.op("Add", hyperbolic, step.floats(1)), 0.5)
        outer = step.op("Sub", step.floats(0.5), step.scaled(step.op("Mul", hyperbolic, hyperbolic), 0.5))
        slope = step.op("Mul", outer, step.op("Add", step.scaled(square, 3 * root * cube), step.floats(root)))
    else:
        share = step.op("Erf", step.scaled(x, math.sqrt(0.5)))
        share = step.scaled(step.op("Add", share, step.floats(1)), 0.5)
        slope = step.scaled(step.op("Exp", step.scaled(square, -0.5)), 1 / math.sqrt(2 * math.pi))
    return {0: step.op("Mul", step.dy, step.op("Add", share, step.op("Mul", x, slope)))}


def _zero(step: Step) -> ir.Value:
    return step.floats(0)


def _below(step: Step) -> ir.Value:
    return step.mask(step.op("Less", step.x, _zero(step)))


def _gate(step: Step, alpha: float, beta: float) -> tuple[ir.Value, ir.Value]:
    """clip(alpha·x + beta, 0, 1), and 1 where it is not clipped."""
    line = step.op("Add", step.scaled(step.x, alpha), step.floats(beta))
    gate = step.op("Clip", line, _zero(step), step.floats(1))
    return gate, step.mask(step.op("Equal", gate, line))
