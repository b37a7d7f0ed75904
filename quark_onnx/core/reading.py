"""The boundary to files that others wrote: whatever is raised while one is read becomes an error of ours.

Damage takes libraries where nobody has looked: protobuf, numpy, zipfile, json and yaml raise dozens of types between
them, and MemoryError or RecursionError where a header or a bracket asks for it. To list them is to miss some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import QuarkError

DEEPEST = 50
"""Levels of lists and objects in a document; those that we know have eight."""


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


def json_of(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The document in a text; `pairs` makes objects.

    Raises:
        ValueError: it is not JSON, or nested deeper than anything that reads it has to bear.
    """
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    level = [document]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return document


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
