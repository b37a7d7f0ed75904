"""Layers as tuning sees them: found in the graph, turned into matrices, and what they read."""

from quark_onnx.engine.layers.tunable_layers import Unit, match

__all__ = ["Unit", "match"]
