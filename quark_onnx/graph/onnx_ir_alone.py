"""onnx_ir without sympy, which it imports to reckon with open dimensions: that comes when somebody does.

Half of the time that `import quark_onnx` takes, and 33 MB, for what few models need.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

LATE = ("sympy", "onnx_ir._symbolic_shapes")
"""Modules that are loaded when something of them is first used. The second one is onnx_ir's own, and uses the first."""


class _Late:
    """Finds these modules as Python does, and has them loaded late."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _Late)
try:
    from onnx_ir import Graph, Model, Node, Value
finally:
    sys.meta_path.remove(_Late)

__all__ = ["Graph", "Model", "Node", "Value"]
