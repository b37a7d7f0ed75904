"""The only home of onnx and onnx_ir: load and save, look, match, edit, rewrite. Knows nothing of quantization."""

from onnx import ModelProto

from quark_onnx.graph.onnx_ir_alone import Graph, Model, Node, Value

__all__ = ["Graph", "Model", "ModelProto", "Node", "Value"]
