"""What was measured of a result, in words: its outputs as figures in tables, and what is wrong with it as warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from quark_onnx.core.records import POOR, Measured

BLOCK = 4096
"""Bytes that a file takes of a disk at a time."""


def decibels_text(value: float) -> str:
    """`36.5 dB`; infinite ratios in words."""
    return "exact" if value == math.inf else "lost" if value == -math.inf else f"{value:.1f} dB"


def measured_text(one: Measured) -> str:
    """`25.0 dB, worst 3.1 dB (axis 1, index 4)`, or `97.95% equal`."""
    if one.db is None:
        return "nothing measured"
    if one.equal is not None:
        return "all equal" if one.equal == 1 else f"{min(one.equal, 0.9999):.2%} equal"
    whole = decibels_text(-math.inf if one.sqnr is None else one.sqnr)
    return whole if one.worst is None else f"{whole}, worst {slice_text(one)}"


def slice_text(one: Measured) -> str:
    """`3.1 dB (axis 1, index 4)`; empty where no slice was measured."""
    if one.worst is None:
        return ""
    return f"{decibels_text(one.worst.sqnr)} (axis {one.worst.axis}, index {one.worst.index})"


def classes_text(one: Measured) -> str:
    """`same arg-max 98.2%, KL 0.0012`; empty where the output holds no classes."""
    if one.agreement is None or one.kl is None:
        return ""
    return f"same arg-max {one.agreement:.2%}, KL {one.kl:.3g}"


def kept_text(one: Measured) -> str:
    """What of an output is kept, in a sentence: by what it is judged, and its dB."""
    if one.equal is not None:
        counts = f", which counts as {decibels_text(one.db)}" if one.db is not None and one.equal < 1 else ""
        return f"has {measured_text(one)} values{counts}"
    return f"keeps {measured_text(one)}"


def output_warnings(outputs: Mapping[str, Measured]) -> tuple[str, ...]:
    """What the user must know of outputs that a single ratio does not tell."""
    return tuple(f"output {name!r} {text}" for name, one in outputs.items() for text in _doubts(one))


def _doubts(one: Measured) -> Iterator[str]:
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
            "and the small ones are lost; have them in outputs of their own, or 16 bits there (TensorQuantOverrides)"
        )


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
