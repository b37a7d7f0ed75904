"""Which nodes the configuration lets us quantize; whatever the user names must exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.name_patterns import matching
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.node_parts import types_of, with_parts


def excluded(graph: Graph, config: QuantizationConfig, known: Collection[str]) -> dict[str, str]:
    """Nodes that the configuration keeps float, with the reason, in the order of the graph.

    Args:
        known: names of nodes that the user's own model has; preparing may have folded some of them away.

    Raises:
        ConfigError: a name, pattern or operator type matches nothing.
    """
    names = {node.name or "" for node in graph} | set(known)
    reasons: dict[str, str] = {}
    if config.nodes_to_quantize:
        wanted = with_parts(graph, matching(config.nodes_to_quantize, names, "nodes_to_quantize"))
        reasons |= dict.fromkeys(names - wanted, "not among nodes_to_quantize")
    ops = config.row.ops
    for op_type in config.op_types_to_quantize:
        if op_type not in ops:
            raise ConfigError(
                f"op_types_to_quantize for target {config.target!r}: {op_type!r} is not in the operator table"
                f"{nearest(op_type, ops)}"
            )
    known_types = {name for target in TARGETS.values() for name in target.ops} | {n.op_type for n in graph}
    for op_type in config.option("OpTypesToExcludeOutputQuantization"):
        if op_type not in known_types:
            raise ConfigError(
                f"OpTypesToExcludeOutputQuantization: no target quantizes {op_type!r}{nearest(op_type, known_types)}"
            )
    if config.op_types_to_quantize:
        others = [n.name or "" for n in graph if types_of(n).isdisjoint(config.op_types_to_quantize)]
        reasons |= dict.fromkeys(others, "operator type not among op_types_to_quantize")
    for starts, ends in config.subgraphs_to_exclude:
        inside = _between(graph, _existing(starts, names), _existing(ends, names))
        reasons |= dict.fromkeys(inside, "inside subgraphs_to_exclude")
    banned = with_parts(graph, matching(config.nodes_to_exclude, names, "nodes_to_exclude"))
    reasons |= dict.fromkeys(banned, "named in nodes_to_exclude")
    return {node.name or "": reasons[node.name or ""] for node in graph if node.name in reasons}


def _existing(wanted: Iterable[str], names: Collection[str]) -> set[str]:
    for name in wanted:
        if name not in names:
            raise ConfigError(f"subgraphs_to_exclude: no node {name!r} in the model{nearest(name, names)}")
    return set(wanted)


def _between(graph: Graph, starts: set[str], ends: set[str]) -> set[str]:
    """All nodes on a path from a start to an end, both included."""
    after = _reach([node for node in graph if node.name in starts], forward=True)
    before = _reach([node for node in graph if node.name in ends], forward=False)
    return {node.name or "" for node in after & before}


def _reach(nodes: Iterable[Node], *, forward: bool) -> set[Node]:
    reached: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(node.successors() if forward else node.predecessors())
    return reached
