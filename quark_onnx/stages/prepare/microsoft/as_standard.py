"""Which rules are tried, and what has to be known for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quark_onnx.engine.missing_types import ask_session
from quark_onnx.graph import Model
from quark_onnx.graph.passes import infer_shapes
from quark_onnx.graph.rewrite import Outcome, rewrite
from quark_onnx.stages.prepare import gelu
from quark_onnx.stages.prepare.microsoft import (
    attention_weights,
    embedding_norm,
    fused_layers,
    fused_matmul,
    gelus,
    skip_norms,
)
from quark_onnx.stages.prepare.microsoft.nodes_in_front import DOMAIN, UNKNOWN

ALWAYS = (attention_weights.RULE, embedding_norm.RULE, fused_layers.RULE, fused_matmul.RULE, skip_norms.RULE)
"""What holds weights, in which there is something for a quantizer to do, and what is faster apart."""

FORMS = (gelus.RULE, skip_norms.SIMPLIFIED)
"""What stands between layers, and has a form in which all that is done about activations knows it."""

NORMS = (skip_norms.CENTERED, "EmbedLayerNormalization")
"""What becomes a LayerNormalization."""

ROOTS = frozenset(root for rule in (*ALWAYS, *FORMS) for root in rule.roots)


def as_standard(model: Model, *, forms: bool) -> list[Outcome]:
    """Rewrite the model in place; what came of it.

    Args:
        forms: activations have ranges: also what is as good as a whole otherwise.
    """
    rules = (*ALWAYS, *FORMS) if forms else ALWAYS
    log: dict[tuple[str, str], Outcome] = {}
    learn: Callable[[Model], object] = infer_shapes
    asked = False
    while any(node.op_type in ROOTS for node in model.graph):
        learn(model)
        found = rewrite(model.graph, rules)
        log |= {(one.rule, one.node): one for one in found}
        if any(one.reason is None for one in found):  # what is behind may be known now
            learn = infer_shapes
        elif asked or all(one.reason != UNKNOWN for one in found):
            break
        else:  # a session costs more, and is seldom needed
            learn, asked = ask_session, True
    if any(one.reason is None for one in log.values()):
        infer_shapes(model)
    return list(log.values())


def still_inside(log: Sequence[Outcome]) -> list[str]:
    """A remark for each reason why weights could not be taken out of what holds them."""
    reasons: dict[str, list[str]] = {}
    for one in log:
        if one.rule == attention_weights.RULE.name and one.reason is not None:
            reasons.setdefault(one.reason, []).append(one.node)
    return [f"the weights inside {', '.join(map(repr, nodes))} stay float: {why}" for why, nodes in reasons.items()]


def better_opsets(model: Model) -> set[int]:
    """Operator sets that have what operators of the model can be written as."""
    types = {node.op_type for node in model.graph if node.domain == DOMAIN}
    found = {gelu.OPSET} if types.intersection(gelus.GELUS) else set()
    return found | ({skip_norms.OPSET} if types.intersection(NORMS) else set())
