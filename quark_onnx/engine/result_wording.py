"""What was measured of a result, in words: its outputs as figures in tables, and what is wrong with it as warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from quark_onnx.core.records import GOOD, POOR, Cause, Correction, Departure, Measured, Proof, Training, Tuning
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.saturation_certificate import NAMED

BLOCK = 4096
"""Bytes that a file takes of a disk at a time."""


def decibels_text(value: float) -> str:
    """`36.5 dB`; infinite ratios in words."""
    return "exact" if value == math.inf else "lost" if value == -math.inf else f"{value:.1f} dB"


def grade(value: float | None) -> str:
    """How good a ratio of an output is: good, fair or poor; empty where it is unknown."""
    if value is None:
        return ""
    return "good" if value >= GOOD else "fair" if value >= POOR else "poor"


def measured_text(one: Measured) -> str:
    """`25.0 dB, worst 3.1 dB (axis 1, index 4)`, or `97.95% equal`."""
    if one.db is None:
        return "nothing measured"
    if one.equal is not None:
        return "all equal" if one.equal == 1 else f"{min(one.equal, 0.9999):.2%} equal"
    whole = decibels_text(-math.inf if one.sqnr is None else one.sqnr)
    return whole if one.worst is None else f"{whole}, worst {slice_text(one)}"


def brief_text(one: Measured) -> str:
    """`25.0 dB, worst 3.1 dB`, or `97.95% equal`."""
    worst = "" if one.worst is None else f", worst {decibels_text(one.worst.sqnr)}"
    return measured_text(replace(one, worst=None)) + worst


def worth_text(one: Measured) -> str:
    """`3.1 dB`, what the output is worth; or `97.95% equal`."""
    return measured_text(one) if one.db is None or one.equal is not None else decibels_text(one.db)


def slice_text(one: Measured) -> str:
    """`3.1 dB (axis 1, index 4)`; empty where no slice was measured."""
    if one.worst is None:
        return ""
    return f"{decibels_text(one.worst.sqnr)} (axis {one.worst.axis}, index {one.worst.index})"


def classes_text(one: Measured) -> str:
    """`same arg-max 98.2%, KL 0.0012`; empty where the output holds no classes."""
    if one.agreement is None or one.kl is None:
        return ""
    return f"{agreement_text(one.agreement)}, KL {one.kl:.3g}"


def agreement_text(share: float) -> str:
    """`same arg-max 98.20%`; only all of them are 100 %."""
    return f"same arg-max {min(share, 0.9999) if share < 1 else 1:.2%}"


def kept_text(one: Measured) -> str:
    """What of an output is kept, in a sentence: by what it is judged, and its dB."""
    if one.equal is not None:
        counts = f", which counts as {decibels_text(one.db)}" if one.db is not None and one.equal < 1 else ""
        return f"has {measured_text(one)} values{counts}"
    return f"keeps {measured_text(one)}"


def output_warnings(outputs: Mapping[str, Measured], target: str = "cpu") -> tuple[str, ...]:
    """What the user must know of outputs that a single ratio does not tell, and what the target offers for them."""
    types = TARGETS[target].activation_types
    wide = not types or any(name.endswith("int16") for name in types)
    return tuple(f"output {name!r} {text}" for name, one in outputs.items() for text in _doubts(one, wide=wide))


def _doubts(one: Measured, *, wide: bool) -> Iterator[str]:
    if not one.values:
        yield "holds nothing that could be measured: whether quantization harms it is not known"
    if one.lost:
        yield f"is NaN or infinite in the quantized model only, {one.lost} values: a range is wrong, or values overflow"
    if one.infinite:
        yield f"is NaN or infinite in the float model, {one.infinite} values, which cannot be measured"
    if one.shapes is not None:
        yield (
            f"has another shape in the quantized model, e.g. {one.shapes[1]} for {one.shapes[0]}: what one of them "
            "lacks counts as lost"
        )
    whole = -math.inf if one.sqnr is None else one.sqnr
    if one.worst is not None and one.worst.sqnr < POOR <= whole:
        yield (
            f"keeps {decibels_text(whole)} as a whole, but only {slice_text(one)}: values of several sizes share it, "
            "and the small ones are lost; have them in outputs of their own"
            + (", or 16 bits there (TensorQuantOverrides)" if wide else "")
        )


CAUSES = {
    "saturation": "products of two neighbouring 8-bit weights are added in 16 bits there, and some do not fit",
    "wrap": "the int32 bias leaves too little room for the products, so the sum wraps",
    "rounded input": "onnxruntime's kernel for weights in blocks rounds the floats that it reads to 8 bits",
    "kernel": "an integer kernel of {runtime} computes something else",
    "unknown": "no layer alone differs by more than a rounding",
}
WAYS = {
    "saturation": "quantize it with `weight_pairs` auto, which keeps every pair small enough, or with `target` "
    "cpu-avx2, or run it on processors with VNNI only",
    "wrap": "quantize it here, which keeps half of int32 for products, or leave the layer float (`nodes_to_exclude`)",
    "rounded input": "it computes as written in sessions whose options have the entry "
    "`session.qdq_matmulnbits_accuracy_level` 1",
    "kernel": "leave the layer float (`nodes_to_exclude`), or run the model without onnxruntime's graph optimizations",
    "unknown": "run the model without onnxruntime's graph optimizations, or on another release of it",
}
"""What can be done in onnxruntime …"""

WAYS_ELSEWHERE = {
    "saturation": "quantize it with `weight_pairs` auto, which keeps every pair small enough, or run it on processors "
    "with VNNI only",
    "kernel": "leave the layer float (`nodes_to_exclude`)",
    "unknown": "it is what {runtime} makes of several at once: leave some of them float (`nodes_to_exclude`), or run "
    "the model on another release of it",
}
"""… and in other runtimes."""


def way_out(cause: Cause, target: str, runtime: str) -> str:
    """What can be done about it, by the target that the model is for, and what has run it."""
    row = TARGETS[target]
    if not row.runtime:
        return f"it is no fault of the model, which is for {target}: the figure as it is written is the one to go by"
    ways = WAYS if row.on_cpu else WAYS | WAYS_ELSEWHERE
    return ways[cause].format(runtime=runtime)


def correction_text(found: Correction | None) -> str:
    """`kept: the worst output is worth 22.7 dB with it, 13.7 dB without, …`; empty where it was not judged."""
    if found is None:
        return ""
    if not found.samples:
        return "left out: too few samples to judge it by"
    if found.without is None:
        return "left out: no output holds a value that could judge it"
    if found.corrected is None:
        return f"not needed: the worst output is worth {decibels_text(found.without)} without it"
    figures = f"{decibels_text(found.corrected)} with it, {decibels_text(found.without)} without"
    said = f"the worst output is worth {figures}, on {found.samples} samples that it did not learn from"
    return f"kept: {said}" if found.kept else f"left out, as it gains no more than chance would: {said}"


STOPPED = "fine-tuning was interrupted"
"""How the warning begins that tells of it."""


def stopped_text(done: Tuning, limit: float | None) -> str:
    """That tuning ended before its time or at its limit in seconds, how far it was, and how to go on."""
    why, what = ("", "") if done.interrupted else (f" by its time limit of {limit:g} s", f", {done.late}")
    return (
        f"{STOPPED}{why}: {done.done} of {done.layers} layers are done{what}; those left are rounded "
        "to the nearest; resume with the plan of this result"
    )


def training_text(found: Training) -> str:
    """What training brought on the held-out samples, and after how many steps."""
    first, best = found.curve[0], found.best
    right = "" if first.metric is None or best.metric is None else f" ({first.metric:.1%} → {best.metric:.1%} right)"
    gained = f"loss {first.held:.4g} → {best.held:.4g}{right}" if found.accepted else f"loss {first.held:.4g}, no less"
    of = f"of {found.planned:,} " if found.steps < found.planned else ""
    return (
        f"{gained} on {found.judges:,} samples held out of it, best after {best.step:,}, {found.steps:,} {of}steps made"
    )


def training_warnings(found: Training) -> tuple[str, ...]:
    """That training ended before its time, or brought nothing."""
    told = []
    if found.ended:
        told.append(
            f"training ended after {found.steps} of {found.planned} steps: {found.ended}; the state that the held-out "
            f"samples liked best, after {found.best.step}, is what counts"
        )
    if not found.accepted:
        told.append(
            f"training found nothing better than it began with, on {found.judges} held-out samples, so that the model "
            "is as it was before: more samples, or another learning_rate, may help"
        )
    return tuple(told)


def departure_text(found: Departure, target: str = "cpu") -> str:
    """What runs otherwise than it is written: the figures, the layers, the cause and the way out."""
    few = f"the first {found.samples} samples" if found.samples > 1 else "the first sample"
    where = f"as {found.runtime} runs it on this processor" if found.here else f"on x64 without VNNI, for {few},"
    figures = " and ".join(
        f"{decibels_text(-math.inf if one.db is None else one.db)} {how}"
        for one, how in ((found.run, where), (found.written, "as it is written"))
    )
    agreed, classes = (found.run.agreement, found.written.agreement), ""
    if agreed[0] is not None and agreed[1] is not None and agreed[0] < agreed[1]:
        classes = f" (same arg-max {agreed[0]:.1%} and {agreed[1]:.1%})"
    named = f", the first to differ: {', '.join(found.layers[:NAMED])}" if found.layers else ""
    cause, way = CAUSES[found.cause].format(runtime=found.runtime), way_out(found.cause, target, found.runtime)
    return f"output {found.output!r} is worth {figures}{classes}{named}: {cause}; {way}"


def proof_warnings(proof: Proof, target: str = "cpu") -> tuple[str, ...]:
    """What the user must know of the ways in which the model runs."""
    if proof.failure:
        figures = "the figures are those of the model as it is written"
        if TARGETS[target].runtime:
            told = figures if proof.written.samples else "nothing was measured"
            return (f"the model is for {target}, and nothing was run there: {proof.failure}; {told}",)
        told = figures if proof.run.samples else "nothing was measured"
        return (f"the model is for {target}, and here, on onnxruntime's CPU provider, {told}: {proof.failure}",)
    if proof.departure is not None:
        return (departure_text(proof.departure, target).replace("`", ""),)
    if proof.unmeasured:
        return (f"layers may saturate on x64 without VNNI, and how much was not measured: {proof.unmeasured}",)
    return ()


def grown(before: int, after: int) -> bool:
    """Whether a model takes more of a disk than before: some hundred bytes of a tiny one are nobody's loss."""
    return -(-after // BLOCK) > -(-before // BLOCK)


def size_warning(before: int, after: int) -> tuple[str, ...]:
    """A warning where the quantized model is larger than the float one, in bytes as they are stored; else nothing."""
    if not grown(before, after):
        return ()
    return (
        f"the quantized model is larger than the float one, {after:,} bytes for {before:,}: what quantizers add takes "
        "more than smaller weights save; exclude what does not pay (nodes_to_exclude), or keep the float model",
    )
