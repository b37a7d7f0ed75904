"""The errors a user can meet, and the help each message owes them.

    QuarkError
    ├── ConfigError   an option, preset, node name or operator type that we do not know or cannot combine
    ├── ModelError    the model file: unreadable, invalid, or not executable by onnxruntime
    ├── DataError     the calibration data: missing, of another shape or type, not finite
    ├── PlanError     a saved plan that does not belong to this model, or cannot be read
    └── ResourceError the machine: memory, disk or open files that have run out

Every message names the thing that is wrong and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuarkError(Exception):
    """Base of every error that quark_onnx raises on purpose."""


class ConfigError(QuarkError):
    """An option, preset, node name or operator type that is unknown or cannot be combined."""


class ModelError(QuarkError):
    """The model cannot be read, is invalid, or cannot be executed.

    Attributes:
        node: the one that onnxruntime fails at, by its name in the graph that is executed; empty where it tells none.
    """

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(message)
        self.node = node


class DataError(QuarkError):
    """The calibration data does not fit the model."""


class PlanError(QuarkError):
    """A saved plan does not belong to this model, or cannot be read."""


class ResourceError(QuarkError):
    """The machine lacks something: `resource` is "memory", "threads", "disk", "files" or "temporary files"."""

    def __init__(self, message: str, resource: str = "") -> None:
        super().__init__(message)
        self.resource = resource


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name closest to `name`, or a short list of what is known."""
    choices = sorted(set(known))
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if not choices:
        return ""
    listed = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"; known: {listed}"
