"""An If whose branch is known gives way to the nodes of that branch."""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.graph.edit import claim, claim_name, forget_names, graph_of, new_node, remove, take_over

BRANCHES = ("then", "else")


def inline_branch(node: ir.Node, branch: str) -> None:
    """Put the nodes and constants of a branch, one of `BRANCHES`, in the place of the If; the other one is lost.

    Tensors and nodes keep their names where these are free. What the If returned is an Identity of what the branch did.
    """
    graph = graph_of(node)
    taken = node.attributes[f"{branch}_branch"].as_graph()
    results = list(taken.outputs)
    taken.outputs.clear()
    constants = list(taken.initializers.values())
    taken.initializers.clear()
    nodes = list(taken)
    taken.remove(nodes)
    for other in BRANCHES:
        release(node.attributes.pop(f"{other}_branch").as_graph())
    forget_names(graph)  # those of both branches are free now
    for constant in constants:
        claim(graph, constant)
        graph.register_initializer(constant)
    for inner in nodes:
        inner.name = claim_name(graph, inner.name or inner.op_type)
        for value in inner.outputs:
            claim(graph, value)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        same = new_node(graph, "Identity", [result], f"{node.name}_{branch}", f"{output.name}_{branch}")
        graph.insert_before(node, same)
        take_over(output, same.outputs[0])
    remove(node)


def release(graph: ir.Graph) -> None:
    """The nodes of a body that is thrown away read nothing any more, so that nobody counts them as readers."""
    for node in graph.all_nodes():
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
