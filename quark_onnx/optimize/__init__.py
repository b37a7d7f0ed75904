"""The smallest, fastest model within a budget: what costs little is tried first, and layers are told apart by a table.

optimize("model.onnx", samples, Budget(max_kl=0.05), output="out.onnx")
"""

from quark_onnx.core.settings.budget import Budget
from quark_onnx.optimize.optimizer import optimize
from quark_onnx.optimize.records import LayerOption, LayerRow, Optimized, Point, Trial

__all__ = ["Budget", "LayerOption", "LayerRow", "Optimized", "Point", "Trial", "optimize"]
