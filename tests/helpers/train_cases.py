"""What tests of training share: a small net, and a training graph's names without the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantized_models import Made, feeds, graph, quantized
from text_models import normal

from quark_onnx.core.plan import Plan
from quark_onnx.graph import Model

NET = """(float[N, 4, 6, 6] x) => (float[N, 5] y) {
    [c1] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [r1] r = Relu (a)
    [c2] c = Conv <group = 2, pads = [1, 1, 1, 1]> (r, w2, b2)
    [p] p = GlobalAveragePool (c)
    [f] f = Flatten (p)
    [g] y = Gemm (f, w3, b3)
}"""


def net() -> Model:
    """A convolution, one in groups, and a classifier."""
    shapes = {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (8, 3, 3, 3), "b2": (8,), "w3": (8, 5), "b3": (5,)}
    return graph(NET, opset=25, **{name: normal(*shape) for name, shape in shapes.items()})


def made(**fields: object) -> Made:
    """The net, quantized on four feeds; fields and extra options of the configuration."""
    model = net()
    return quantized(model, feeds(model), include_cle=False, **fields)


@dataclass(frozen=True)
class Names:
    """The inputs that a training graph of a plan has, each called as its tensor."""

    weights: Mapping[str, str] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, str] = field(default_factory=dict)

    @property
    def gradients(self) -> dict[str, str]:
        return {name: f"d_{name}" for part in (self.weights, self.biases, self.scales) for name in part.values()}


def names_of(model: Model, plan: Plan) -> Names:
    """All weights and biases of a plan, and the groups of its activations."""
    by_role = {role: {t: t for t, site in plan.sites.items() if site.role == role} for role in ("weight", "bias")}
    groups = {site.group: f"scale of {site.group}" for site in plan.sites.values() if site.role == "activation"}
    floats = {name: name for name in model.graph.initializers if name.startswith("b") and name not in plan.sites}
    return Names(by_role["weight"], by_role["bias"] | floats, groups)
