"""Softmax and its logarithm, along one axis."""

from __future__ import annotations

from quark_onnx.graph.gradient.step import Gradients, Step


def softmax(step: Step) -> Gradients:
    """y(dy − Σ y·dy)"""
    whole = step.sum(step.op("Mul", step.y, step.dy), [step.integer("axis", -1)])
    return {0: step.op("Mul", step.y, step.op("Sub", step.dy, whole))}


def log_softmax(step: Step) -> Gradients:
    """dy − eʸ·Σ dy"""
    whole = step.sum(step.dy, [step.integer("axis", -1)])
    return {0: step.op("Sub", step.dy, step.op("Mul", step.op("Exp", step.y), whole))}
