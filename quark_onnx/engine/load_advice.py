"""What to do about a model that onnxruntime refuses, by what it says."""

from __future__ import annotations

import re

UNKNOWN = "it must use operators, an opset and an IR version that this onnxruntime knows: export it so, or update it"

_ADVICE = (
    (r"two nodes with same node name", "give each node a name of its own"),
    (
        r"is not a registered function/op|No Op registered for \S+ with domain_version of -?\d+ in domain",
        "if a library of custom operators has it, name that: --custom-ops FILE, or extra option UserCustomOpLibPath",
    ),
    (r"Failed to load library", "it must be a shared library, built for this machine and this onnxruntime"),
    (r"BatchNormalization.*[Tt]raining_mode|[Tt]raining_mode.*BatchNormalization", "export the model in eval mode"),
    (r"tensor\(double\)", "convert the model to float32 before: float64 is computed by few operators"),
    (r"\bdeprecated\b", "export the model again with what replaced it, or with the opset that has it"),
    (r"not acyclic|is not a graph input, initializer, or output of", "the file is damaged: export it again"),
    (r"[Oo]pset import|missing opset", "the file does not say of which opset its operators are: export it again"),
)
"""Pattern of onnxruntime's reason → the way out."""


def advice(reason: str, *, float64: bool = False) -> str:
    """The way out of a reason that onnxruntime gives.

    float64: the model computes in float64, where onnxruntime names no type.
    """
    if float64 and "Could not find an implementation" in reason:
        reason += " tensor(double)"
    return next((way for pattern, way in _ADVICE if re.search(pattern, reason)), UNKNOWN)
