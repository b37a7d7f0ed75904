"""What a rule may ask, and what it answers: the sites that one node needs, or why it stays float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Role, Site, Skip
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, is_op
from quark_onnx.stages.place.handed_codes import hands_on


@dataclass
class SiteRequest:
    """Sites that one node needs, and which tensors follow the range of another one (`ties`: follower → leader).

    `absorbed`: nodes behind this one that its output quantizer, or its accumulator, takes in.
    """

    rule: str
    sites: list[Site] = field(default_factory=list)
    ties: dict[str, str] = field(default_factory=dict)
    absorbed: list[Node] = field(default_factory=list)

    def want(self, value: Value, role: Role, format: Format, **more: object) -> None:
        name = value.name or ""
        if all(site.tensor != name for site in self.sites):
            self.sites.append(Site(name, role, format, name, self.rule, **more))  # type: ignore[arg-type]

    def want_data(self, value: Value, config: QuantizationConfig, **more: object) -> None:
        self.want(value, "activation" if constant(value) is None else "constant", config.activation, **more)

    def give_floats(self, node: Node) -> list[Node]:
        """No quantizers behind `node`, whose request this is. Returns the clamp that one of them took in."""
        behind = {value.name or "" for one in (node, *self.absorbed) for value in one.outputs}
        self.sites = [site for site in self.sites if site.tensor not in behind]
        self.ties = {follower: leader for follower, leader in self.ties.items() if follower not in behind}
        clamps = [one for one in self.absorbed if not is_op(one, "Add")]
        self.absorbed = [one for one in self.absorbed if is_op(one, "Add")]
        return clamps


@dataclass(frozen=True)
class Context:
    """What rules may ask: the configuration, which nodes must stay float, and which layers have one of their own."""

    config: QuantizationConfig
    barred: Collection[str]
    own: Mapping[str, QuantizationConfig] = field(default_factory=dict)

    def of(self, node: Node) -> Context:
        """The same for a node: what is asked of it alone counts."""
        config = self.own.get(node.name or "")
        return self if config is None else replace(self, config=config)

    def leaves_float(self, node: Node) -> bool:
        """Whether what the node reads and makes is asked to stay float, whatever others read and make."""
        own = self.own.get(node.name or "")
        return own is not None and bool(own.option("WeightsOnly"))

    @property
    def ops(self) -> Mapping[str, Op]:
        """The operator table of the target."""
        return self.config.row.ops

    @property
    def aligned(self) -> Collection[str]:
        """Operator types whose inputs and outputs share one scale."""
        return self.config.row.aligned(self.config.option("AlignConcat"), self.config.option("AlignPool"))

    def silent(self, node: Node) -> bool:
        """Whether the output gets no quantizer for the sake of this node."""
        row = self.config.row
        if row.inputs_only and not (row.hands_on and hands_on(node, self.ops)):
            return True
        return node.op_type in self.config.option("OpTypesToExcludeOutputQuantization")


Rule = Callable[[Node, Op, Context], "SiteRequest | Skip"]
