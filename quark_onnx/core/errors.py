"""The errors a user can meet, and the help each message owes them.

    QuarkError
    ├── ConfigError   an option, preset, node name or operator type that we do not know or cannot combine
    ├── ModelError    the model file: unreadable, invalid, or not executable by onnxruntime
    ├── DataError     the calibration data: missing, of another shape or type, not finite
    ├── PlanError     a saved plan that does not belong to this model, or cannot be read
    └── ResourceError the machine: memory, disk or open files that have run out

Every message names the thing that is wrong and the way out.

`reading` is the boundary to files that others wrote: damage takes libraries where nobody has looked, and protobuf,
numpy, zipfile, json and yaml raise dozens of types between them, MemoryError and RecursionError included.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


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


def nearest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name closest to `name`, or a short list of what is known.

    name: as the user gave it, so it may be anything.
    """
    choices = sorted(set(known))
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if not choices:
        return ""
    listed = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"; known: {listed}"


@contextmanager
def reading(what: str | Path, kind: type[QuarkError], way_out: str, fault: str | None = None) -> Iterator[None]:
    """A block that reads something, and knows nothing of what may go wrong; errors of ours pass.

    Args:
        what: is read, e.g. a path.
        kind: of the error.
        way_out: what the user can do then, if the system itself could read it.
        fault: what it is then, e.g. "is not a valid ONNX model"; None: no more is known than that it cannot be read.
    """
    try:
        yield
    except QuarkError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise kind(f"cannot read {what}: {error.strerror or error}") from error
        told = f"cannot read {what}" if fault is None else f"{what} {fault}"
        raise kind(f"{told}: {reason(error)}; {way_out}") from error


def reason(error: BaseException, lines: int = 3) -> str:
    """What an error of another library says, or what is at the root of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):  # its text is the key alone
        return f"there is no {error}"
    return " ".join(str(error).split("\n")[:lines]).strip().rstrip(". ") or type(error).__name__
