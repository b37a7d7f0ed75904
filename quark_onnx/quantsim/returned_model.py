"""What functions that change a float model give back, as AIMET's users expect it."""

from __future__ import annotations

from quark_onnx.graph import Model, ModelProto, io
from quark_onnx.quantsim.simulated_model import Source


def hand_back(source: Source, model: Model) -> ModelProto:
    """A changed model: in the very object that the user gave, so that it is changed in place; of a path, a new one.

    Files are never changed.
    """
    changed = io.to_proto(model)
    if not isinstance(source, ModelProto):
        return changed
    source.CopyFrom(changed)
    return source
