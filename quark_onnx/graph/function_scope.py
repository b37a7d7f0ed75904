"""Functions stand for themselves: one that reads a value of the model around it means something else in each place."""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.core.errors import ModelError


def refuse_open_functions(model: ir.Model) -> None:
    """Look at what the nodes of functions read.

    Raises:
        ModelError: a function reads what is neither its input nor made in it.
    """
    for function in model.functions.values():
        own = {value for graph in (function.graph, *function.subgraphs()) for value in graph.inputs}
        own |= {value for graph in function.subgraphs() for value in graph.initializers.values()}
        nodes = list(function.all_nodes())
        own |= {value for node in nodes for value in node.outputs}
        for value in (value for node in nodes for value in node.inputs):
            if value is not None and value not in own:
                raise ModelError(
                    f"the function {function.domain}.{function.name} reads {value.name!r}, which is neither its input "
                    "nor made in it; make it an input of the function"
                )
