"""The ledger and the proof of a quantized model for its target, by the runtime that is meant.

What that one fails on is an error. Where a target has none here, the model is looked at with onnxruntime's CPU
provider; it may hold what this has no kernel for, or one with other limits: that is told, and the model is judged as it
is written. Where a runtime is not installed nothing is run, and that is told, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.errors import ModelError
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Proof
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import compare
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.engine.ledger_rows import Inside, Row, certificates_of, unseen
from quark_onnx.engine.prove_outputs import prove_outputs
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.runtime import Missing, Runtime
from quark_onnx.engine.saturation_certificate import Certificate
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
        ModelError: the runtime of the target fails on the quantized model.
    """
    try:
        rows = ledger(model, plan, quantized, target, bodies)
    except ModelError as error:
        if target.runtime:
            raise
        proof = _as_written(model, quantized, feeds, str(error), counted)
        return unseen((Inside("", model, plan), *bodies)), replace(proof, run=proof.written)
    known = certificates_of(rows) if target.on_cpu else certified(target, quantized)
    if target.runtime:
        rows = [replace(row, certificate=known.get(row.node)) for row in rows]
    runtime = runtime_of(target)
    if not feeds:
        return rows, Proof(runtime=runtime.full_title if isinstance(runtime, Runtime) else "")
    return rows, proof_of(target, model, quantized, feeds, known, counted)


def certified(target: Target, quantized: Model) -> dict[str, Certificate]:
    """A certificate for each integer node of a quantized model of any tool; none, where nothing here runs the target.

    Raises:
        ModelError: the runtime of the target cannot load the model.
    """
    runtime = runtime_of(target)
    return runtime.certify(quantized) if target.runtime and isinstance(runtime, Runtime) else {}


def proof_of(
    target: Target,
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    certificates: Mapping[str, Certificate],
    counted: Counted | None = None,
) -> Proof:
    """The outputs of a quantized model of any tool, on feeds that can be read again.

    certificates: see `certified`.

    Raises:
        ModelError: the runtime of the target fails on the model.
    """
    runtime = runtime_of(target)
    if isinstance(runtime, Missing):
        return _as_written(model, quantized, feeds, runtime.told, counted)
    try:
        return prove_outputs(model, quantized, feeds, certificates, counted, runtime)
    except ModelError as error:
        if target.runtime:
            raise
        proof = _as_written(model, quantized, feeds, str(error), counted)
        return replace(proof, run=proof.written)


def _as_written(model: Model, quantized: Model, feeds: Iterable[Feed], why: str, counted: Counted | None) -> Proof:
    """Judged without optimizations in onnxruntime, where it has kernels for what is written; else not at all."""
    try:
        return Proof(written=compare(model, quantized, feeds, optimized=False, counted=counted), failure=why)
    except ModelError:
        return Proof(failure=why)
