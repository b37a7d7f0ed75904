"""Fold every BatchNormalization into a layer beside it, and rewrite nothing else.

The layers behind or in front of them keep their names and those of their outputs. What a BatchNormalization knew of its
output is handed on: a channel is about N(β, γ²), as its statistics are those of the data it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.io import copy
from quark_onnx.graph.passes import infer_shapes, remove_unused
from quark_onnx.graph.rewrite import Outcome, rewrite
from quark_onnx.graph.view import constant, is_op
from quark_onnx.stages.prepare import fold_bn, fold_bn_forward, gemm_scalars
from quark_onnx.stages.prepare.affine_layer import Array

BN = "BatchNormalization"


@dataclass(frozen=True, eq=False)
class Folded:
    """A model without the BatchNormalizations that could be folded.

    log     what became of every rule at every node where it was tried
    spread  output of a layer that one was folded into → its β and |γ|, one per channel
    left    BatchNormalization that is still there → why
    """

    model: Model
    log: tuple[Outcome, ...]
    spread: Mapping[str, tuple[Array, Array]]
    left: Mapping[str, str]


def fold_batch_norms(model: Model) -> Folded:
    """Fold in a copy of a model whose constants are lifted and whose nodes are named: prepared, optimized or not."""
    model = copy(model)
    seen: dict[Value, tuple[Array, Array]] = {}
    near = replace(gemm_scalars.RULE, match=_beside_bn(gemm_scalars.match))
    behind = replace(fold_bn.RULE, apply=_noting(seen))
    log = rewrite(model.graph, [near, behind, fold_bn_forward.RULE])
    if any(outcome.reason is None for outcome in log):
        remove_unused(model)
        infer_shapes(model)
    spread = {value.name or "": found for value, found in seen.items()}
    left = {node.name or "": _why(log, node) for node in model.graph if is_op(node, BN)}
    return Folded(model, tuple(log), spread, left)


def _beside_bn(match: Callable[[Node], Any]) -> Callable[[Node], Any]:
    def only_there(node: Node) -> Any:
        producers = (value.producer() for value in node.inputs if value is not None)
        if any(is_op(other, BN) for other in (*producers, *node.outputs[0].consumers())):
            return match(node)
        return Skip(f"it is not beside a {BN}")

    return only_there


def _noting(seen: dict[Value, tuple[Array, Array]]) -> Callable[[fold_bn.Found], None]:
    """`fold_bn.apply`, that notes β and |γ| of what is now the output of the layer."""

    def apply(found: fold_bn.Found) -> None:
        gamma, beta = (constant(found.bn.inputs[index]) for index in (1, 2))
        value = found.bn.inputs[0]
        assert gamma is not None and beta is not None and value is not None
        fold_bn.apply(found)
        if found.shift is None:
            seen[value] = beta.astype(np.float64), np.abs(gamma.astype(np.float64))

    return apply


def _why(log: list[Outcome], node: Node) -> str:
    """In front, where a layer feeds it; behind it; both where neither side has one."""
    reasons = {outcome.rule: outcome.reason or "" for outcome in log if outcome.node == node.name}
    source = None if node.inputs[0] is None else node.inputs[0].producer()
    behind, ahead = reasons[fold_bn.RULE.name], reasons[fold_bn_forward.RULE.name]
    if is_op(source, *LAYERS):
        return behind
    return ahead if any(is_op(reader, *LAYERS) for reader in node.outputs[0].consumers()) else f"{behind}; {ahead}"
