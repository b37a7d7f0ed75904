"""onnx_ir without sympy, which it imports to reckon with open dimensions: that comes when somebody does.

Half of the time that `import quark_onnx` takes, and 33 MB, for what few models need. Only onnx_ir gets what stands for
sympy; whoever else imports it gets the module itself.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

LATE = ("sympy", "onnx_ir._symbolic_shapes")
"""Modules that are loaded when something of them is first used. The second one is onnx_ir's own, and uses the first."""


class StandIn(ModuleType):
    """Has what the module of its name has; to import that is left to Python, so that threads wait for each other."""

    def __getattr__(self, name: str) -> Any:
        _step_back(self)
        return getattr(import_module(self.__name__), name)


def _step_back(module: StandIn) -> None:
    """Leave the name to the module itself."""
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]


_stand_ins = [StandIn(name) for name in LATE if name not in sys.modules]
sys.modules.update({module.__name__: module for module in _stand_ins})
try:
    from onnx_ir import Graph, Model, Node, Value
finally:
    for _module in _stand_ins:
        _step_back(_module)

__all__ = ["Graph", "Model", "Node", "Value"]
