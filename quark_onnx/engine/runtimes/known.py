"""The runtimes that there are, by the name that a target has for them."""

from __future__ import annotations

from collections.abc import Callable

from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.runtimes import onnxruntime_cpu
from quark_onnx.engine.runtimes.openvino import cpu as openvino_cpu
from quark_onnx.engine.runtimes.runtime import Missing, Runtime
from quark_onnx.graph import Model, io
from quark_onnx.graph.passes import lift_constants

RUNTIMES: dict[str, Callable[[], Runtime | Missing]] = {
    "onnxruntime": lambda: onnxruntime_cpu.RUNTIME,
    "openvino": openvino_cpu.runtime,
}
"""Name in `Target.runtime` → the runtime, or what it takes to have it. Nothing is imported before it is asked for."""

NOWHERE = "onnxruntime"
"""That models are looked at with whose target has no runtime here."""


def own_runtime(target: Target) -> Runtime | None:
    """The runtime that is meant, where it can be asked here."""
    found = runtime_of(target)
    return found if target.runtime and isinstance(found, Runtime) else None


def runtime_of(target: Target) -> Runtime | Missing:
    """What runs models of the target here: onnxruntime, where the target has nothing that does."""
    return RUNTIMES[target.runtime or NOWHERE]()


def refuse(target: Target, model: Model) -> None:
    """Nothing, where the runtime that a target means loads the float model, or is not here; before any work is done.

    Functions count as what they hold: the quantized model has none, and OpenVINO knows none.
    onnxruntime needs not to be asked: it prepares the model, and is used on the way.

    Raises:
        ModelError: it does not.
    """
    runtime = runtime_of(target)
    if target.runtime not in ("", NOWHERE) and isinstance(runtime, Runtime):
        plain = io.copy(model)
        lift_constants(plain)
        runtime.load(plain)
