"""Rewrite rules: `match` only reads, `apply` only edits, and every refusal has a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from quark_onnx.core.plan import Skip


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    roots   operator types at which `match` is tried
    match   node → what `apply` needs, or why there is nothing to do
    apply   performs the rewrite with what `match` returned; cannot fail
    domain  of the operators; empty: ONNX's own
    """

    name: str
    roots: tuple[str, ...]
    match: Callable[[ir.Node], Any]
    apply: Callable[[Any], None]
    domain: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one rule at one node; `reason` is None where it was applied."""

    rule: str
    node: str
    reason: str | None


def rewrite(graph: ir.Graph, rules: Sequence[Rule], max_rounds: int = 100) -> list[Outcome]:
    """Apply the rules until none finds anything, in order of the nodes; the log has one entry by rule and node."""
    log: dict[tuple[str, str], Outcome] = {}
    for _ in range(max_rounds):
        changed = [_round(graph, rule, log) for rule in rules]
        if not any(changed):
            break
    return list(log.values())


def _round(graph: ir.Graph, rule: Rule, log: dict[tuple[str, str], Outcome]) -> bool:
    changed = False
    for node in graph:
        if node.op_type not in rule.roots or node.domain.removeprefix("ai.onnx") != rule.domain:
            continue
        name = node.name or "?"
        found = rule.match(node)
        if isinstance(found, Skip):
            if (rule.name, name) not in log:
                log[rule.name, name] = Outcome(rule.name, name, found.reason)
            continue
        rule.apply(found)
        log[rule.name, name] = Outcome(rule.name, name, None)
        changed = True
    return changed
