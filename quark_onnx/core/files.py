"""Outputs are written to a temporary name beside the target and renamed: whole, or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quark_onnx.core.errors import ConfigError


@contextlib.contextmanager
def new_folder(target: Path, replaces: str) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes otherwise.

    An existing `target` is replaced only when it holds a file named `replaces`, i.e. is an output of the same kind.

    Raises:
        ConfigError: `target` exists and is something else.
    """
    if target.exists() and not (target / replaces).is_file():
        raise ConfigError(f"{target} exists and holds no {replaces}; choose another output folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
