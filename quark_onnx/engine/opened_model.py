"""A model as onnxruntime takes it: what onnx.checker has against it counts only where onnxruntime refuses it, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.missing_types import told_by_session
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, ModelProto, custom_ops, io
from quark_onnx.graph.normal_form import remarks
from quark_onnx.graph.without_weights import complaint


def open_model(source: str | Path | ModelProto, libraries: Sequence[str | Path] = ()) -> Model:
    """Read a model, normalized. What onnxruntime says of its outputs is told where ONNX does not know it.

    Args:
        libraries: files that hold its custom operators.

    Raises:
        ConfigError: there is no such library.
        ModelError: the model cannot be read, or onnxruntime refuses it.
    """
    model = io.read(source)
    custom_ops.attach(model, libraries)
    reason = complaint(model)
    if reason is None:
        return model
    try:
        runner = Runner(model, optimized=False)
    except ModelError as error:
        said = "; ".join((reason, str(error), *remarks(model)))
        raise ModelError(f"{io.title(source)} is not a valid ONNX model: {said}") from error
    told_by_session(model.graph.outputs, runner)
    return model
