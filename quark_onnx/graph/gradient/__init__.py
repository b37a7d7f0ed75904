"""Reverse-mode differentiation of an ONNX graph into an ONNX graph, of standard operators only."""

from quark_onnx.graph.gradient.differentiation import Differentiated, Stop, differentiate, raise_opset

__all__ = ["Differentiated", "Stop", "differentiate", "raise_opset"]
