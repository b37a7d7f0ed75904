"""The ledger and the proof of a quantized model for its target.

Both look at what onnxruntime's CPU provider makes of the model. Where that is the target, what it fails on is an
error. A model for another target may hold what this provider has no kernel for, or one with other limits: that is told,
and the model is judged as it is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from quark_onnx.core.errors import ModelError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Proof
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import compare
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.fusion_ledger import Inside, Row, certificates_of, ledger, unseen
from quark_onnx.engine.prove_outputs import prove_outputs
from quark_onnx.graph import Model


def prove_for(
    target: Target,
    model: Model,
    plan: Plan,
    quantized: Model,
    feeds: Sequence[Feed],
    bodies: Sequence[Inside] = (),
    counted: Counted | None = None,
) -> tuple[list[Row], Proof]:
    """A row for every node of `model`, and of bodies inside it, and the outputs on these feeds.

    counted: which positions of the outputs are looked at; None: all.

    Raises:
        ModelError: onnxruntime's CPU provider, which is the target, fails on the quantized model.
    """
    if target.on_cpu:
        rows = ledger(model, plan, quantized, target, bodies)
        proof = prove_outputs(model, quantized, feeds, certificates_of(rows), counted) if feeds else Proof()
        return rows, proof
    try:
        rows = ledger(model, plan, quantized, target, bodies)
    except ModelError as error:
        return unseen((Inside("", model, plan), *bodies)), _as_written(model, quantized, feeds, error, counted)
    try:
        return rows, prove_outputs(model, quantized, feeds, {}, counted) if feeds else Proof()
    except ModelError as error:
        return rows, _as_written(model, quantized, feeds, error, counted)


def _as_written(
    model: Model, quantized: Model, feeds: Sequence[Feed], why: ModelError, counted: Counted | None
) -> Proof:
    """Judged without the provider's optimizations, where it has kernels for what is written; else not at all."""
    try:
        written = compare(model, quantized, feeds, optimized=False, counted=counted)
    except ModelError:
        return Proof(failure=str(why))
    return Proof(written, written, failure=str(why))
