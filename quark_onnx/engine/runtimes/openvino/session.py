"""The one door to OpenVINO: compiled models, and what it says where it compiles none.

Floats are computed as floats. Left to itself the CPU plugin rounds them to bfloat16 on processors that have it: figures
would be those of that rounding, and of its speed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ModelError
from quark_onnx.core.resource_faults import shortage
from quark_onnx.core.threads import allowed_threads
from quark_onnx.engine.saturation_certificate import is_quantized
from quark_onnx.graph import Model, io

REPLACE = "replace what it does not know by operators that it has, or choose another target"
"""What to do about a float model that OpenVINO refuses …"""

LEAVE = "leave the operator float (nodes_to_exclude, with its neighbours)"
"""… and about a quantized one."""

Property = str | int | bool


@lru_cache(1)
def core() -> Any:
    """OpenVINO's own; the first one takes half a second.

    Raises:
        Exception: it is not installed, or not for this machine; its libraries have types of their own.
    """
    import openvino  # late: half a second, and it need not be installed

    return openvino.Core()


def version() -> str:
    """Of the package, without its build."""
    import openvino

    return str(openvino.get_version()).partition("-")[0]


def compiled(source: bytes | Path, threads: int = 0, properties: Mapping[str, Property] | None = None) -> Any:
    """A compiled model, in OpenVINO's own type.

    Args:
        source: the bytes of a model, or its file.
        threads: 0: as many as this process may use.
        properties: of the plugin, beyond those that all models have.
    """
    settings: dict[str, Property] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, **(properties or {})}
    if threads or allowed_threads():
        settings["INFERENCE_NUM_THREADS"] = threads or allowed_threads()
    read = core().read_model(source if isinstance(source, bytes) else str(source))
    return core().compile_model(read, "CPU", settings)


def compiled_model(model: Model, threads: int = 0, properties: Mapping[str, Property] | None = None) -> Any:
    """A compiled model; large weights are read from a file, which goes when they are read.

    Raises:
        ModelError, ResourceError: OpenVINO cannot load it.
    """
    try:
        if not io.is_heavy(model):
            return compiled(io.to_proto(model).SerializeToString(), threads, properties)
        with tempfile.TemporaryDirectory(prefix="quark_onnx-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            io.save(model, path, source=model, external=True)
            return compiled(path, threads, properties)
    except Exception as error:  # its own are RuntimeErrors, those of its bindings are not
        way = LEAVE if is_quantized(model) else REPLACE
        raise failure(error, maker_names(model), f"OpenVINO {version()} cannot load the model", way) from error


def failure(error: Exception, makers: Mapping[str, str], told: str, way_out: str) -> Exception:
    """The error to raise: of the machine, or one that holds OpenVINO's words and names the node, where it does."""
    said = said_by(error)
    if (lack := shortage(error, said=said)) is not None:
        return lack
    return ModelError(f"{told}: {said}; {way_out}", named(error, makers))


_FRAME = re.compile(
    r"^(Exception from |Check '|FrontEnd API failed|Model wasn't fully converted|Errors during ONNX|Summary:|"
    r"To facilitate the conversion|\S+ with a message|While validating )"
)
_NODE = re.compile(
    r"""<Node\(\w+\): ([^>]+)>|friendly_name '([^']+)'|node (?:with )?(?:the )?name:? ['"]([^'"]+)['"]"""
)


def said_by(error: Exception) -> str:
    """What is wrong: the first line that is not about where in OpenVINO's source it was noticed."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    told = [line for line in lines if line and not _FRAME.match(line)]
    return (told or [line for line in lines if line] or [type(error).__name__])[0][:400].rstrip(". ")


def named(error: Exception, makers: Mapping[str, str]) -> str:
    """The node of the model that an error is about, the innermost; empty where it names none."""
    names = [next(filter(None, found.groups()), "") for found in _NODE.finditer(str(error))]
    return next((node for name in reversed(names) if (node := node_of(name, makers))), "")


def maker_names(model: Model) -> dict[str, str]:
    """Node by its name, and by those of the tensors that it makes, which OpenVINO calls nodes by."""
    nodes = [*model.graph.all_nodes()]
    tensors = {value.name or "": node.name or "" for node in nodes for value in node.outputs}
    return {node.name or "": node.name or "" for node in nodes} | tensors


def node_of(name: str, makers: Mapping[str, str]) -> str:
    """The node that OpenVINO means; empty where it is one of its own. It appends what it makes of a node to its name:
    `y.0`, `y/fq_input_0`."""
    while name and name not in makers:
        name = re.sub(r"[./][^./]*$", "", name) if re.search(r"[./]", name) else ""
    return makers.get(name, "")
