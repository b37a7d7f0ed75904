"""Libraries that hold operators of a model: they go with it, and with all that is made of it, to onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from quark_onnx.core.errors import ConfigError

_LIBRARIES = "quark_onnx.custom_ops"  # graph.meta, which copies of a graph share


def attach(model: ir.Model, files: Sequence[str | Path]) -> None:
    """Some of the model's operators are in these shared libraries.

    Raises:
        ConfigError: there is no such file, or it is not a list of them.
    """
    if isinstance(files, (str, Path)):
        raise ConfigError(f"libraries of custom operators must be a list of paths, not {str(files)!r}")
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(f"there is no library of custom operators {file}; give the path of a shared library")
    model.graph.meta[_LIBRARIES] = tuple(str(Path(file).absolute()) for file in files)


def libraries(model: ir.Model) -> tuple[str, ...]:
    """Paths of the libraries that onnxruntime has to load before the model."""
    return tuple(model.graph.meta.get(_LIBRARIES, ()))


def carry(source: ir.Graph, target: ir.Graph) -> None:
    """A graph that is no copy, but made of another one, has its operators."""
    if _LIBRARIES in source.meta:
        target.meta[_LIBRARIES] = source.meta[_LIBRARIES]
