"""A job whose plan is complete; and the way on where the runtime fails on a kernel that the plan asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from quark_onnx.core.errors import ModelError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import UNFIT, Correction, LayerRecord, MixRecord, ProtectedRegion, SmoothRecord, Training
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.kept_feeds import Kept, keep
from quark_onnx.engine.onnxruntime_ledger import made_from
from quark_onnx.job import Job
from quark_onnx.result import Probed
from quark_onnx.stages.place.idle_operators import tidied

T = TypeVar("T")

logger = logging.getLogger("quark_onnx")


@dataclass(frozen=True, eq=False)
class Decided:
    """A job whose plan is complete, and what was learned on the way, of `feeds`; `probes` are to prove it, at positions
    that are `counted`."""

    job: Job
    plan: Plan
    feeds: Kept = field(default_factory=partial(keep, ()))
    warnings: tuple[str, ...] = ()
    records: tuple[LayerRecord, ...] = ()
    untuned: Mapping[str, str] = field(default_factory=dict)
    correction: Correction | None = None
    training: Training | None = None
    mixed: tuple[MixRecord, ...] = ()
    protected: tuple[ProtectedRegion, ...] = ()
    smoothed: tuple[SmoothRecord, ...] = ()
    probes: Sequence[Feed] = ()
    probed: Probed = ""
    counted: Counted | None = None

    def sparing(self, error: ModelError) -> Decided:
        """The same with the node float whose integer kernel the runtime fails at, be that inside a body; or else the
        nearest in front of the float one that it fails at.

        Raises:
            ModelError: the error again, where it names no such node, or none here is for the target.
        """
        found = _spared(self.job, self.plan, error) if self.job.config.row.runtime else None
        if found is None:
            raise error
        logger.warning("%s stays float: %s", error.node, error)
        job, plan = found
        return replace(self, job=job, plan=plan)


def _spared(job: Job, plan: Plan, error: ModelError) -> tuple[Job, Plan] | None:
    """Job and plan without the node that is named; None where they do not quantize it."""
    names = (error.node, *made_from(error.node))
    failing = next((name for name in names if name in plan.nodes), None) or _in_front(job, plan, names)
    if failing is not None:
        sites, plan = (_without(job, one, failing, str(error)) for one in (job.sites, plan))
        return replace(job, sites=sites), plan
    for key, inside in plan.bodies.items():
        if (found := _spared(job.bodies[key], inside, error)) is not None:
            bodies = {**job.bodies, key: found[0]}, {**plan.bodies, key: found[1]}
            return replace(job, bodies=bodies[0]), replace(plan, bodies=bodies[1])
    return None


def _in_front(job: Job, plan: Plan, names: Sequence[str]) -> str | None:
    """The quantized node nearest in front of a float one: a runtime may fail where it carries scales through it."""
    row = [node for node in job.prepared.graph if node.name and node.name in names]
    seen = set(row)
    for node in row:  # which grows
        if node.name in plan.nodes:
            return node.name
        makers = [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]
        row += [maker for maker in dict.fromkeys(makers) if maker not in seen]
        seen.update(makers)
    return None


def _without(job: Job, plan: Plan, failing: str, reason: str) -> Plan:
    """The plan without a node, and without what its kernel takes in, which has the same tensors."""
    gone = [node for node, tensors in plan.nodes.items() if tensors == plan.nodes.get(failing)]
    left = {node: tensors for node, tensors in plan.nodes.items() if node not in gone}
    spared = plan.keeping(left, dict.fromkeys(gone, UNFIT + reason))
    return tidied(job.prepared.graph, spared, job.config.row)


def running(decided: Decided, work: Callable[[Decided], T]) -> T:
    """What `work` makes of it; it is done again without the node, wherever an integer kernel of the runtime fails.

    Raises:
        ModelError: it fails elsewhere.
    """
    while True:
        try:
            return work(decided)
        except ModelError as error:
            decided = decided.sparing(error)
