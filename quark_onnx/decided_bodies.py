"""What is decided of the bodies of control flow inside a job, each of which is a job of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.decided import Decided
from quark_onnx.engine.body_feeds import body_feeds
from quark_onnx.engine.kept_feeds import Kept
from quark_onnx.graph import io
from quark_onnx.graph.bodies import bodies
from quark_onnx.graph.view import is_op
from quark_onnx.job import Job

NEVER = "it never runs on the data, so its ranges are not known"
SELDOM = 8
"""Samples below which those that take a branch may not stand for all that will."""

GROWS = "others read its weights as floats, and integers beside these would make the file larger"


def with_bodies(
    decided: Decided, decide: Callable[[Job, Kept, Plan | None], Decided], resume: Plan | None = None
) -> Decided:
    """With the plans of the bodies, on what goes into each while the model runs on the feeds.

    Args:
        decide: of a body, its feeds, and its plan to go on from.
        resume: the plan that `decided` goes on from; bodies that it lacks stay float.
    """
    job = decided.job
    wanted = {key: body for key, body in job.bodies.items() if resume is None or key in resume.bodies}
    if not wanted:
        return decided
    watched = {key: body.plain for key, body in wanted.items() if not body.idle and body.config.needs_data}
    try:
        seen = body_feeds(job.prepared, decided.feeds, watched)
    except (ModelError, DataError) as error:
        unseen = {key: body.unseen(f"what goes into it cannot be seen: {error}") for key, body in wanted.items()}
        return replace(decided, plan=replace(decided.plan, bodies=unseen))
    found = dict[str, Decided]()
    for key, body in wanted.items():
        if body.idle or (key in watched and not seen[key]):
            found[key] = Decided(body, body.unseen(NEVER))
        else:
            found[key] = decide(body, seen.get(key, Kept((), None)), None if resume is None else resume.bodies[key])
    remarks = dict(decided.plan.remarks) | _of_branches(job, seen, len(decided.feeds))
    job = replace(job, bodies={**job.bodies, **{key: one.job for key, one in found.items()}})
    plan = replace(decided.plan, bodies={key: one.plan for key, one in found.items()}, remarks=remarks)
    plan = plan if resume is not None else _not_larger(job, plan)
    inside = tuple(f"inside {one.job.title}: {text}" for one in found.values() for text in one.warnings)
    return replace(
        decided,
        job=job,
        plan=plan,
        warnings=(*decided.warnings, *inside),
        untuned={**decided.untuned, **(_untuned(job, plan) if job.config.tunes else {})},
        protected=(*decided.protected, *(region for one in found.values() for region in one.protected)),
    )


def _untuned(job: Job, plan: Plan) -> dict[str, str]:
    """The layers inside that fine-tuning would work on."""
    return {
        node.name or "": f"inside {title}: only layers of the main graph are tuned"
        for title, model, part in job.inside(plan)
        for node in model.graph
        if is_op(node, *LAYERS) and node.name in part.nodes
    }


def _not_larger(job: Job, plan: Plan) -> Plan:
    """The plan without bodies that would make the file larger, as others read their weights as floats."""
    for key, body in job.bodies.items():
        if body.shares and not plan.bodies.get(key, plan).empty:
            without = replace(plan, bodies={**plan.bodies, key: body.unseen(GROWS)})
            if io.weight_bytes(job.realize(without)) < io.weight_bytes(job.realize(plan)):
                plan = without
    return plan


def _of_branches(job: Job, seen: Mapping[str, Kept], samples: int) -> dict[str, str]:
    """If → that its branches are taken seldom or never, and what can be done about it: inside other bodies, nothing."""
    remarks: dict[str, list[str]] = {}
    for body in bodies(job.prepared.graph):
        if not is_op(body.node, "If") or body.key not in seen or not samples:
            continue
        count, name = len(seen[body.key]), body.node.name or ""
        other = "else" if body.attribute == "then_branch" else "then"
        if 0 < count < min(SELDOM, samples):
            told = f"{count} of {samples} samples take {body.title}, and its ranges are of these alone"
            remarks.setdefault(name, []).append(told)
        elif not count and not job.title:
            told = f"all {samples} samples take its {other} branch; if all inputs do, extra option "
            told += f"InlineIf={{{name!r}: {other!r}}} leaves {body.title} out of the model"
            remarks.setdefault(name, []).append(told)
    return {name: "; ".join(texts) for name, texts in remarks.items()}
