"""Tuning along the activation walk: for one layer after the other something better is found, and the plan takes it.

A fold: what is found at a layer is found under the plan as the layers before it have left it. How it is found is the
business of a finder, one for each kind of layer; all else is the same for every kind, and is here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import LayerRecord, Tuning
from quark_onnx.engine.activation_walk import Frontier, Visitor
from quark_onnx.engine.kept_feeds import quarter_of_memory
from quark_onnx.engine.tuning_pace import OutOfTime, Pace
from quark_onnx.graph import Node

logger = logging.getLogger("quark_onnx")

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for a layer, or for all that share its weight.

    plan        with it; the very plan under which it was looked for, where nothing is better
    nodes       the layers
    choice      what it makes of them, see `LayerRecord`
    losses      of them without it and with it, on the samples that taught
    held        the same on the held-out samples
    iterations  of the optimizer
    signal      power of the output, as losses count it, on the held-out samples; None: nobody asked
    """

    plan: Plan
    nodes: tuple[Node, ...]
    choice: str
    losses: tuple[float, float]
    held: tuple[float, float]
    iterations: int = 0
    signal: float | None = None


Finder = Callable[[Node, Frontier, Plan], Found | Skip | None]
"""What is better for a layer under a plan, or why nothing can be; None: that is told at a later layer."""


def along(
    walk: Callable[[Visitor], object],
    plan: Plan,
    finders: Mapping[str, Finder],
    reasons: Mapping[str, str],
    tell: Tell,
    helps: Callable[[Plan, Plan], bool] | None = None,
    sharing: Mapping[str, Collection[str]] | None = None,
    pace: Pace | None = None,
) -> Tuning:
    """Tune layer by layer; Ctrl-C or the end of the time ends it, and what is done until then is kept.

    Args:
        walk: visits the layers in the order of the graph, see `activation_walk.walk`.
        plan: to begin with.
        finders: of each layer, by name.
        reasons: why other layers are left out.
        tell: called as `tell(text, layers done, layers)`: at a layer with its name, and what `Pace` tells of the time.
        helps: whether the plan may become another; None: it may.
        sharing: layers that stay as they are when a layer does, as they share its weight.
        pace: how long layers may take; None: any time, of which nothing is told.
    """
    interrupted, late = False, ""
    fold = _Fold(plan, finders, {**reasons}, tell, helps or (lambda *plans: True), sharing or {}, pace or Pace({}))
    if pace is not None:
        logger.info("to be tuned: %s", pace)
    try:
        walk(fold.visit)
    except KeyboardInterrupt:
        interrupted = True
    except OutOfTime as error:
        late = str(error)
    known = fold.reasons.keys() | {record.node for record in fold.records}
    left = {name: "fine-tuning ended earlier" for name in finders if name not in known}
    return Tuning(fold.plan, tuple(fold.records), fold.reasons | left, interrupted, late, fold.done, len(finders))


def beyond_memory(needed: int) -> str | None:
    """Why a layer cannot be tuned that takes so many bytes; None if it can."""
    if needed <= 2 * quarter_of_memory():
        return None
    return f"it takes {needed >> 20:,} MiB to tune, more than half of the memory"


@dataclass
class _Fold:
    """The plan so far, and what became of the layers."""

    plan: Plan
    finders: Mapping[str, Finder]
    reasons: dict[str, str]
    tell: Tell
    helps: Callable[[Plan, Plan], bool]
    sharing: Mapping[str, Collection[str]]
    pace: Pace
    records: list[LayerRecord] = field(default_factory=list)
    done: int = 0

    def visit(self, node: Node, frontier: Frontier, _: Plan) -> Plan:
        """One layer. The plan that the walk runs with may be another, so it is not looked at."""
        begin, name = perf_counter(), node.name or ""
        self.tell(self.pace.begin(name), self.done, len(self.finders))
        found = self.finders[name](node, frontier, self.plan)
        self.done += 1
        if isinstance(found, Skip):
            others = dict.fromkeys(self.sharing.get(name, ()), f"shares its weight with {name!r}: {found.reason}")
            self.reasons = {**others, **self.reasons, name: found.reason}
        elif found is not None:
            self._judge(name, found, begin)
        return self.plan

    def _judge(self, name: str, found: Found, begin: float) -> None:
        """Take it or not, and record which."""
        gains = found.plan is not self.plan
        choice = found.choice if gains else "raw"
        losses, held = (pair if gains else (pair[0], pair[0]) for pair in (found.losses, found.held))
        taken = gains and self.helps(self.plan, found.plan)
        self.plan = found.plan if taken else self.plan
        seconds = round(perf_counter() - begin, 4)
        for node in found.nodes:
            record = LayerRecord(
                node.name or "", node.op_type, choice, taken, found.iterations, seconds, *losses, *held
            )
            self.records.append(record)
        if found.signal is not None:
            text = " → ".join(f"{_decibel(found.signal, loss):.1f}" for loss in held)
            self.tell(f"{name}: {text} dB ({choice})", self.done, len(self.finders))


def _decibel(signal: float, loss: float) -> float:
    """SQNR."""
    return 10 * math.log10(signal / loss) if loss > 0 and signal > 0 else math.inf
