"""Layers with number types of their own, as the option LayerTypes asks for them.

The rules place a named layer with a configuration of its own, so that weight and bias have the formats it says. Types
of activations are found when all is placed: the widest that one of the layers which decide a tensor's type wants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.name_patterns import matching
from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.layer_types import OF_WEIGHTS, OPTION
from quark_onnx.engine.type_owners import type_owners
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.node_parts import with_parts
from quark_onnx.graph.view import constant, input_at, is_op
from quark_onnx.stages.place.parameter_formats import input_axis

NO_WEIGHT = f"its activations stay float ({OPTION}), and it has no weight"

Configs = Mapping[str, QuantizationConfig]


@dataclass(frozen=True)
class _Asked:
    """What a pattern asks of a layer, and whether it is the layer's name."""

    pattern: str
    exact: bool
    config: QuantizationConfig


def configs_of_layers(graph: Graph, config: QuantizationConfig, known: Collection[str]) -> Configs:
    """Layer → the configuration that it is placed with, where it is named.

    Args:
        known: names of nodes of the user's model, which may be named even if preparing has folded them away.

    Raises:
        ConfigError: a name or pattern takes no layer, or what is asked does not go with the layer, or with what another
            pattern asks of it.
    """
    found: dict[str, _Asked] = {}
    plain = config.option(OPTION) or {}
    for pattern, typed in config.layers.items():
        exact, layers = _layers(graph, pattern, known)
        for node in layers:
            _check(node, pattern, plain[pattern])
            found[node.name or ""] = _stronger(node, found.get(node.name or ""), _Asked(pattern, exact, typed))
    own = {name: asked.config for name, asked in found.items()}
    _check_shared(graph, config, own)
    return own


def _layers(graph: Graph, pattern: str, known: Collection[str]) -> tuple[bool, list[Node]]:
    """Whether it is the name of a node, and the layers that it takes; none where it is about bodies inside alone."""
    names = {node.name or "" for node in graph} | set(known)
    taken = with_parts(graph, matching([pattern], names, OPTION))
    nodes = [node for node in graph.all_nodes() if node.name in taken]
    layers = [node for node in nodes if is_op(node, *LAYERS)]
    if not layers:
        told = ", ".join(f"{node.op_type} {node.name!r}" for node in nodes[:3])
        why = f"takes {told}" if nodes else "takes nothing that is left of the model after preparing"
        every = [node.name or "" for node in graph.all_nodes() if is_op(node, *LAYERS)]
        raise ConfigError(
            f"{OPTION}[{pattern!r}] {why}, and only {', '.join(LAYERS)} are layers; name one{nearest(pattern, every)}"
        )
    return pattern in names, [node for node in layers if node.graph is graph]


def _check(node: Node, pattern: str, asked: Mapping[str, Any]) -> None:
    """What is asked of a weight needs one; a pattern may take layers without one besides."""
    weight, where = _weight(node), f"{OPTION}[{pattern!r}]"
    told = [key for key in OF_WEIGHTS if key in asked]
    if weight is None:
        if node.name == pattern and told:
            raise ConfigError(f"{where}: {node.op_type} {node.name!r} has no constant weight; leave {told[0]!r} out")
    elif asked.get("BlockSize") and input_axis(node, weight) is None:
        raise ConfigError(
            f"{where}: the weight of {node.op_type} {node.name!r} has no blocks, only matrices of MatMul and Gemm "
            "have; name it without 'BlockSize'"
        )


def _weight(node: Node) -> Value | None:
    """The constant that is quantized as its weight."""
    values = [input_at(node, i) for i in ((1, 0) if is_op(node, "MatMul") else (1,))]
    return next((value for value in values if value is not None and constant(value) is not None), None)


def _stronger(node: Node, present: _Asked | None, other: _Asked) -> _Asked:
    """Of two that ask for one layer, its name counts more than a pattern."""
    if present is None or (other.exact and not present.exact):
        return other
    if present.config != other.config and present.exact == other.exact:
        raise ConfigError(
            f"{OPTION}: {present.pattern!r} and {other.pattern!r} want {node.op_type} {node.name!r} in different ways; "
            "name it alone, which counts more than a pattern, or change one of the two"
        )
    return present


def _check_shared(graph: Graph, config: QuantizationConfig, own: Configs) -> None:
    """A weight that several layers read has one type."""
    first: dict[str, str] = {}
    for node in graph if own else ():
        weight = _weight(node) if is_op(node, *LAYERS) else None
        if weight is None:
            continue
        name, other = node.name or "", first.setdefault(weight.name or "", node.name or "")
        if len({_of_weight(own.get(reader, config)) for reader in (name, other)}) > 1:
            raise ConfigError(
                f"{OPTION}: {other!r} and {name!r} share the weight {weight.name!r}, which has one type; ask the same "
                "of both"
            )


def _of_weight(config: QuantizationConfig) -> tuple[Format, bool, int | None]:
    return config.weight, config.per_channel, config.option("BlockSize")


def widest_activations(
    graph: Graph,
    sites: Mapping[str, Site],
    nodes: Mapping[str, Iterable[str]],
    config: QuantizationConfig,
    own: Configs,
) -> dict[str, Site]:
    """The sites, with activations and constants in the widest type that a layer which decides it wants.

    Args:
        sites: with their groups set.
        nodes: quantized node → its tensors.
        own: of the layers that are named.
    """
    owners = type_owners(graph, sites, nodes).owners if own else {}
    changed = dict(sites)
    for tensor, site in sites.items():
        deciding = owners.get(site.group)
        if site.role not in ("activation", "constant") or not deciding:
            continue
        types = sorted({own.get(name, config).activation_type for name in deciding})
        bits, signed = TYPES[max(types, key=lambda name: TYPES[name][0])]
        changed[tensor] = replace(site, format=replace(site.format, bits=bits, signed=signed))
    return changed
