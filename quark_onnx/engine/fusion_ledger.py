"""The fusion ledger: for every node, whether the runtime of the target runs it on integers, read from the graph that
this one executes. Where nothing here runs the target, onnxruntime's is looked at."""

from __future__ import annotations

from collections.abc import Iterable

from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.targets import TARGETS, Target
from quark_onnx.engine.ledger_rows import Inside, Row, unseen
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.graph import Model


def ledger(
    model: Model, plan: Plan, quantized: Model, target: Target = TARGETS["cpu"], bodies: Iterable[Inside] = ()
) -> list[Row]:
    """A row for every node of the prepared `model`, from the graph that the target's runtime makes of `quantized`.

    bodies: those inside it whose nodes have rows, too; the reasons of these name the body.

    Raises:
        ModelError: the runtime cannot load `quantized`.
    """
    parts, runtime = (Inside("", model, plan), *bodies), runtime_of(target)
    if isinstance(runtime, Missing):
        return unseen(parts, f"quantized for {runtime.title}, which is not installed here")
    return runtime.ledger(parts, quantized, target)
