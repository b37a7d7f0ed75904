"""The outputs of a quantized model, as it runs and as it is written; and where both differ, which layers do, and why.

Integer kernels and the float arithmetic of a QDQ model round differently, by one step of a quantizer here and there:
noise of the same kind and size as that of quantizing, so both are about equally far from the float model. Not so
where the 16 bits of a processor saturate, where a sum wraps, or where a kernel has a fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from quark_onnx.core.errors import ModelError
from quark_onnx.core.records import Comparison, Departure, Measured, Proof
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import Way, compare_ways
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.departing_layers import departing_layers
from quark_onnx.engine.output_chance import below
from quark_onnx.engine.runtimes import onnxruntime_cpu
from quark_onnx.engine.runtimes.runtime import Runtime
from quark_onnx.engine.saturation_certificate import NAMED, Certificate
from quark_onnx.graph import Model, io

NOISE = 2.0
"""dB that an output may be worse as run: noise of its own, beside that of quantizing, of 58 % of that. On the models of
docs/reports.md it is .5 dB at most where nothing saturates."""

FEW = 2
"""Samples that layers are looked at with, and that are computed as x64 without VNNI does: .3 s each for MobileNet."""


def prove_outputs(
    model: Model,
    quantized: Model,
    feeds: Iterable[Feed],
    certificates: Mapping[str, Certificate],
    counted: Counted | None = None,
    runtime: Runtime = onnxruntime_cpu.RUNTIME,
) -> Proof:
    """Run the quantized model both ways, and explain what differs.

    Args:
        certificates: of its integer nodes (`certify`). Where some may saturate and nothing shows here, the first
            samples are computed as x64 without VNNI does, too; empty: it is not for such processors.
        counted: which positions of the outputs are looked at; None: all.
        runtime: that runs it.

    Raises:
        ModelError: the runtime fails on the quantized model.
    """
    first: list[Feed] = []
    run, written = compare_ways(model, quantized, _keeping(feeds, first), ("run", "written"), counted, runtime)
    if not run.samples:
        return Proof(runtime=runtime.full_title)
    proof = Proof(run, written, runtime=runtime.full_title)
    found = departing(run, written, written)
    if found is not None:
        layers, cause = departing_layers(quantized, first, runtime)
        there = Departure(True, *found, tuple(layers), cause, run.samples, runtime.title)
        return replace(proof, departure=there)
    unsafe = [name for name, found in certificates.items() if found.verdict != "exact"]
    return _elsewhere(model, quantized, first, unsafe, proof, counted, runtime) if unsafe else proof


def _keeping(feeds: Iterable[Feed], first: list[Feed]) -> Iterator[Feed]:
    for feed in feeds:
        if len(first) < FEW:
            first.append(feed)
        yield feed


def _elsewhere(
    model: Model,
    quantized: Model,
    feeds: list[Feed],
    unsafe: list[str],
    proof: Proof,
    counted: Counted | None,
    runtime: Runtime,
) -> Proof:
    """With what x64 without VNNI makes of the first samples."""
    if io.is_large(model):
        return replace(proof, unmeasured="the model is too large to be computed so")
    try:
        ways: tuple[Way, ...] = ("without_vnni", "run", "written")
        saturated, here, written = compare_ways(model, quantized, feeds, ways, counted, runtime)
    except ModelError as error:
        return replace(proof, unmeasured=str(error))
    found, there = departing(saturated, here, written), None  # where this processor saturates, all have told already
    if found is not None:
        there = Departure(False, *found, tuple(unsafe[:NAMED]), "saturation", saturated.samples, runtime.title)
    return replace(proof, without_vnni=saturated, departure=there)


def departing(run: Comparison, usual: Comparison, written: Comparison) -> tuple[str, Measured, Measured] | None:
    """The output that is worth least of those that are worth less as run than usual, by more than quantizing explains.

    A slice that is as bad either way does not hide what becomes of the whole: then the figures have no slice.

    Returns:
        its name, and what it is as run and as written.
    """
    found = []
    for name, one in run.outputs.items():
        sliced = one, usual.outputs[name], written.outputs[name]
        for figures in (sliced, [replace(each, worst=None) for each in sliced]):
            if departs(figures[0], figures[1]):
                found.append((name, figures[0], figures[2]))
                break
    return min(found, key=lambda of: of[1].db or 0.0, default=None)


def departs(run: Measured, written: Measured) -> bool:
    """Whether an output is worse as run by more than `NOISE` and chance make."""
    return below(run, written, NOISE)
