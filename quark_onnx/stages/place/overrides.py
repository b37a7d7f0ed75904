"""What users ask of tensors and operator types, put on the finished sites.

What is asked of the output of an operator type gives way to what is asked of the input of the one that reads it, and
both to what is asked of the tensor by name. Sites that share a scale take what is asked of any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.plan import Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.tensor_overrides import Override
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import is_op, sole_reader
from quark_onnx.stages.place.overridden_site import asked, output_axis

Sites = Mapping[str, Site]
Nodes = Mapping[str, tuple[str, ...]]
Remarks = dict[str, str]
Wanted = dict[str, tuple[Override, str]]
"""Group → what is asked of it, and by which option."""

NEAR = 3
"""Operators between a tensor without a quantizer and those that its error names."""


def overridden(graph: Graph, sites: Sites, nodes: Nodes, config: QuantizationConfig) -> tuple[dict[str, Site], Remarks]:
    """The sites as the options TensorQuantOverrides and OpTypeQuantOverrides want them, and remarks by tensor.

    Args:
        sites: with their groups set.
        nodes: quantized node → its sites.

    Raises:
        ConfigError: no such tensor, operator type or quantizer, or it does not take what is asked for.
    """
    by_tensor, by_type = config.tensor_overrides, config.type_overrides
    if not by_tensor and not by_type:
        return dict(sites), {}
    values = _values(graph)
    types = _Types(sites, nodes, by_type, config.row.ops)
    wanted = types.wanted(graph)
    named = _of_tensors(by_tensor, sites, values)
    for group, (keys, reason) in types.open.items():
        if group not in named or not keys <= named[group][0].told.keys():
            raise ConfigError(reason)
    for group, (override, where) in named.items():
        wanted[group] = override.over(wanted[group][0] if group in wanted else Override()), where
    changed = {
        name: asked(site, values[name], *wanted[site.group], config) if site.group in wanted else site
        for name, site in sites.items()
    }
    _check_conversions(by_tensor, changed, values)
    return _with_axes_of_weights(changed, sites, values, config), types.remarks


def _values(graph: Graph) -> dict[str, Value]:
    found = {value.name or "": value for value in (*graph.inputs, *graph.initializers.values())}
    return found | {value.name or "": value for node in graph for value in node.outputs}


def _of_tensors(overrides: Mapping[str, Override], sites: Sites, values: Mapping[str, Value]) -> Wanted:
    found: Wanted = {}
    names: dict[str, str] = {}
    for tensor, override in overrides.items():
        where = f"TensorQuantOverrides[{tensor!r}]"
        if tensor not in sites:
            raise ConfigError(f"{where}: {_missing(tensor, sites, values)}")
        own = replace(override, convert=None, readers=())
        pairs = [(tensor, own)] if own != Override() else []
        if override.convert is not None:
            behind = converted(values[tensor])
            if behind not in sites:
                raise ConfigError(f"{where}: no quantized node reads the converted tensor; remove 'convert'")
            pairs.append((behind, override.convert))
        for name, one in pairs:
            group = sites[name].group
            if group in found and found[group][0] != one:
                raise ConfigError(
                    f"TensorQuantOverrides: {names[group]!r} and {name!r} share one scale, but are to be quantized in "
                    "different ways; override one of them"
                )
            found[group], names[group] = (one, where), name
    return found


def converted(value: Value) -> str:
    """The tensor behind the Identity that preparing put in front of readers that want another type; "" without one.

    Any other Identity that preparing leaves gives a graph output its name.
    """
    readers = [node for node in value.consumers() if is_op(node, "Identity")]
    return next((n.outputs[0].name or "" for n in readers if not n.outputs[0].is_graph_output()), "")


def _check_conversions(overrides: Mapping[str, Override], sites: Sites, values: Mapping[str, Value]) -> None:
    for tensor, override in overrides.items():
        if override.convert is None:
            continue
        if sites[converted(values[tensor])].format.bits == sites[tensor].format.bits:
            raise ConfigError(
                f"TensorQuantOverrides[{tensor!r}]: 'convert' leads from {sites[tensor].format.bits} bits to as many; "
                "give a quant_type of another width, or remove it"
            )


def _missing(tensor: str, sites: Sites, values: Mapping[str, Value]) -> str:
    """Why an override finds no quantizer, and where the next ones are."""
    if tensor not in values:
        return f"the prepared model has no such tensor{nearest(tensor, sites)}"
    near = _near(values[tensor], sites)
    told = "; near it they stand on " + ", ".join(map(repr, near)) if near else nearest(tensor, sites)
    return f"the tensor carries no quantizer{told}"


def _near(value: Value, sites: Sites) -> list[str]:
    """Sites around a tensor, the nearest ones."""
    seen, ring = {value}, [value]
    for _ in range(NEAR):
        around = [near for one in ring for near in _neighbours(one) if near not in seen]
        ring = list(dict.fromkeys(around))
        seen.update(ring)
        found = [near.name or "" for near in ring if _is_activation(near, sites)]
        if found:
            return sorted(found)[:4]
    return []


def _is_activation(value: Value, sites: Sites) -> bool:
    site = sites.get(value.name or "")
    return site is not None and site.role == "activation"


def _neighbours(value: Value) -> Iterator[Value]:
    producer = value.producer()
    for node in (*value.consumers(), *(() if producer is None else (producer,))):
        yield from (near for near in (*node.inputs, *node.outputs) if near is not None)


@dataclass
class _Types:
    """What is asked of operator types, told to the groups of sites that it concerns.

    open  group → what two operator types want in different ways, and the error unless the tensor is named
    """

    sites: Sites
    nodes: Nodes
    overrides: Mapping[str, Mapping[str, Override]]
    ops: Collection[str]
    remarks: Remarks = field(default_factory=dict)
    open: dict[str, tuple[set[str], str]] = field(default_factory=dict)

    def wanted(self, graph: Graph) -> Wanted:
        """Inputs and weights over outputs; where these disagree a remark says so."""
        for op_type in self.overrides:
            if op_type not in self.ops:
                raise ConfigError(
                    f"OpTypeQuantOverrides: {op_type!r} is not in the operator table{nearest(op_type, self.ops)}"
                )
        layers: dict[str, Wanted] = {"input": {}, "weight": {}, "output": {}}
        met: dict[str, bool] = {}
        for node in graph:
            if (node.name or "") not in self.nodes or not is_op(node, *self.overrides):
                continue
            for part, override in self.overrides[node.op_type].items():
                where = f"OpTypeQuantOverrides[{node.op_type!r}][{part!r}]"
                tensors = self.tensors(node, part)
                met[where] = met.get(where, False) or bool(tensors)
                for tensor in tensors:
                    self._add(layers[part], tensor, override, where)
        for where in (where for where, some in met.items() if not some):
            raise ConfigError(f"{where}: nothing of the model has a quantizer there; remove it")
        found = layers["output"] | layers["weight"]
        for group, (override, where) in layers["input"].items():
            below, other = found.get(group, (Override(), ""))
            if _differences(override, below):
                self.remarks[group] = f"{where} wins over {other}"
            found[group] = override.over(below), where
        return found

    def tensors(self, node: Node, part: str) -> list[str]:
        """The tensors with a site that are the inputs, the weights, or the output of a node."""
        if part == "output":
            names = [value.name or "" for value in node.outputs if value.name in self.sites]
            return names or self._behind(node)
        here = [value.name or "" for value in node.inputs if value is not None and value.name in self.sites]
        roles = ("weight",) if part == "weight" else ("activation", "dynamic", "constant")
        return [name for name in here if self.sites[name].role in roles]

    def _behind(self, node: Node) -> list[str]:
        """The output of the last node that this one takes in, where there is one."""
        name = node.name or ""
        follower = sole_reader(node.outputs[0])
        while follower is not None and self.nodes.get(follower.name or "") == self.nodes[name]:
            if follower.outputs[0].name in self.sites:
                return [follower.outputs[0].name or ""]
            follower = sole_reader(follower.outputs[0])
        return []

    def _add(self, layer: Wanted, tensor: str, override: Override, where: str) -> None:
        group = self.sites[tensor].group
        if group not in layer:
            layer[group] = override, where
            return
        present, other = layer[group]
        if keys := _differences(override, present):
            told = self.open.get(group, (set(), ""))[0]
            self.open[group] = (
                told | keys,
                f"{other} and {where} want {tensor!r} in different ways, which has one scale for both; say in "
                f"TensorQuantOverrides[{tensor!r}] which, or take one out",
            )
        layer[group] = override.over(present), other


def _differences(one: Override, other: Override) -> set[str]:
    """What both ask for, in different ways."""
    return {name for name, value in one.told.items() if value != other.told.get(name, value)}


def _with_axes_of_weights(
    changed: dict[str, Site], before: Sites, values: Mapping[str, Value], config: QuantizationConfig
) -> dict[str, Site]:
    """int32 biases have a scale for each scale of the weight; scales along other axes than the outputs have no bias."""
    biased = {site.factors[1]: name for name, site in changed.items() if site.role == "bias" and site.factors}
    for name, site in changed.items():
        axis = site.format.axis
        if site.role != "weight" or site.format.block or axis in (None, before[name].format.axis):
            continue
        outputs = output_axis(values[name], config.row.ops)
        if axis != outputs and (name in biased or config.tunes):
            why = f"its bias {biased[name]!r} needs" if name in biased else "fine-tuning needs"
            raise ConfigError(
                f"TensorQuantOverrides[{name!r}]: axis {axis} is not that of the output channels, whose scales {why}; "
                f"give {'one scale' if outputs is None else f'axis {outputs}'}"
            )
    for name, site in list(changed.items()):  # layers that share a weight have a bias each
        if site.role != "bias" or not site.factors:
            continue
        weight = site.factors[1]
        axis = changed[weight].format.axis
        if axis != before[weight].format.axis:
            changed[name] = replace(site, format=replace(site.format, axis=None if axis is None else 0))
    return changed
