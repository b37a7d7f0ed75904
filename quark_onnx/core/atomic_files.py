"""Outputs are written to a temporary name beside the target and renamed: whole, or not there at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quark_onnx.core.errors import ConfigError, QuarkError
from quark_onnx.core.resource_faults import shortage


def unwritable(target: Path, error: OSError) -> QuarkError:
    """Why `target` cannot be written: for want of space, or for a reason of its own."""
    return shortage(error, target) or ConfigError(f"cannot write {target}: {error.strerror or error}")


@contextlib.contextmanager
def new_folder(target: Path, replaces: str) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes otherwise.

    An existing `target` is replaced only when it holds a file named `replaces`, i.e. is an output of the same kind.

    Raises:
        ConfigError, ResourceError: `target` exists and is something else, or cannot be written.
    """
    if target.exists() and not (target / replaces).is_file():
        raise ConfigError(f"{target} exists and holds no {replaces}; choose another output folder or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
            temporary = Path(beside) / target.name  # not `beside` itself, which only its owner can read
            temporary.mkdir()
            yield temporary
            if target.exists():
                os.replace(target, Path(beside) / "replaced")
            os.replace(temporary, target)
    except OSError as error:
        raise unwritable(target, error) from error


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A temporary path that becomes the file `target`, in place of one that exists, when the block ends well.

    Raises:
        ConfigError, ResourceError: `target` cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
            temporary = Path(beside) / target.name
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        raise unwritable(target, error) from error
