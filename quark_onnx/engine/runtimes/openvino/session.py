"""The one door to OpenVINO: compiled models, and what it says where it compiles none.

Floats are computed as floats. Left to itself the CPU plugin rounds them to bfloat16 on processors that have it: figures
would be those of that rounding, and of its speed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import DataError, ModelError
from quark_onnx.core.resource_faults import shortage
from quark_onnx.core.threads import allowed_threads
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Arrays
from quark_onnx.engine.saturation_certificate import is_quantized
from quark_onnx.graph import Model, io
from quark_onnx.graph.view import numpy_dtype

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


def compiled(path: Path, threads: int = 0, properties: Mapping[str, Property] | None = None) -> Any:
    """A compiled model, in OpenVINO's own type.

    Args:
        path: of the model.
        threads: 0: as many as this process may use.
        properties: of the plugin, beyond those that all models have.
    """
    settings: dict[str, Property] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, **(properties or {})}
    if threads or allowed_threads():
        settings["INFERENCE_NUM_THREADS"] = threads or allowed_threads()
    return core().compile_model(core().read_model(str(path)), "CPU", settings)


def compiled_model(model: Model, threads: int = 0, properties: Mapping[str, Property] | None = None) -> Any:
    """A compiled model, read from a file, which goes when it is read.

    Bytes are converted by other code of OpenVINO than files are: some models load as the one and fail as the other, and
    users deploy files.

    Raises:
        ModelError, ResourceError: OpenVINO cannot load it.
    """
    _refuse_texts(model)
    try:
        with tempfile.TemporaryDirectory(prefix="quark_onnx-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            io.save(model, path, source=model, external=io.is_heavy(model))
            return compiled(path, threads, properties)
    except Exception as error:  # its own are RuntimeErrors, those of its bindings are not
        way = LEAVE if is_quantized(model) else REPLACE
        raise failure(error, maker_names(model), f"OpenVINO {version()} cannot load the model", way) from error


def _refuse_texts(model: Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if (dtype := numpy_dtype(value)) is not None and dtype.kind == "O":
            told = f"{value.name!r} holds texts, on which OpenVINO {version()} ends the process"
            raise ModelError(f"{told}; cut the model where they have become numbers, or choose another target")


def fed_names(model: Model) -> list[str]:
    """Names of the inputs, in the order of OpenVINO's: it drops those that have a value, and one that is passed on as
    it is (an element of a sequence) it calls by what becomes of it, and by that alone."""
    return [value.name or "" for value in model.graph.inputs if not value.is_initializer()]


def fed(feed: Feed, names: Sequence[str]) -> Arrays:
    """The arrays of these inputs.

    Raises:
        DataError: one is missing.
    """
    for name in names:
        if name not in feed:  # it would run on what is in memory
            raise DataError(f"the sample has no array for input {name!r}; give one for each input")
    return [feed[name] for name in names]


def fits(array: NDArray[Any], port: Any) -> bool:
    """Whether an input can have the shape of the array."""
    shape = port.partial_shape
    return bool(shape.compatible(type(shape)(list(array.shape))))


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
    r"""<Node\(\w+\): ([^>]+)>|END: node: \w+::\w+ ([^\n]+?) \(\w+::|"""
    r"""friendly_name '([^']+)'|node (?:with )?(?:the )?name:? ['"]([^'"]+)['"]"""
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
