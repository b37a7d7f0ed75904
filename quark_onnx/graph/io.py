"""Models in and out: the only place that reads or writes model files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from quark_onnx.core.atomic_files import unwritable
from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.graph import large_weights
from quark_onnx.graph.edit import forget_names
from quark_onnx.graph.open_dimensions import open_dimensions
from quark_onnx.graph.without_weights import light_proto

EXTERNAL_ABOVE = 1_800_000_000
"""Bytes of weights above which they are stored beside the model: protobuf ends at 2 GB."""


FILES_ABOVE = 1 << 28
"""Bytes of weights above which they lie in files while the model is worked on: each session, and each copy in a
protobuf, would hold them once more."""


def load(source: str | Path | onnx.ModelProto) -> ir.Model:
    """Read a model; weights in external files are memory-mapped, not copied. Dimensions of −1 or 0 are dynamic.

    Raises:
        ModelError: the file is missing, is not an ONNX model, or is invalid.
    """
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source)
    if not isinstance(source, (str, Path)):
        raise ModelError(f"the model must be a path or an onnx.ModelProto, not {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ModelError(f"model {path} {what}; give the path of an .onnx file")
    try:
        onnx.checker.check_model(str(path))
        model: ir.Model = ir.load(path)
    except Exception as error:  # protobuf, checker and IR each have errors of their own
        raise ModelError(f"{path} is not a valid ONNX model: {_first_lines(error)}; export or copy it again") from error
    _check_external(model)
    open_dimensions(model)
    return model


def _from_proto(proto: onnx.ModelProto) -> ir.Model:
    try:
        if proto.ByteSize() < EXTERNAL_ABOVE:
            onnx.checker.check_model(proto)
        model: ir.Model = ir.from_proto(proto)
    except Exception as error:
        reason = _first_lines(error)
        raise ModelError(
            f"the ModelProto is not a valid ONNX model: {reason}; if its weights are in other files, pass the path"
        ) from error
    _check_external(model)
    open_dimensions(model)
    return model


def _check_external(model: ir.Model) -> None:
    """Weights in other files are read late, by many: that they can be read is made sure of once.

    Raises:
        ModelError: a file is missing or too short.
    """
    for tensor in large_weights.in_files(model):
        path = Path(tensor.path)
        if not path.is_file():
            raise ModelError(f"weight {tensor.name!r} is in {path}, which is missing; pass the path of the model")
        if path.stat().st_size < (tensor.offset or 0) + tensor.nbytes:
            raise ModelError(f"{path} ends before the weight {tensor.name!r}; copy or export the model again")


def _first_lines(error: Exception, lines: int = 3) -> str:
    return " ".join(str(error).strip().splitlines()[:lines]).rstrip(". ") or type(error).__name__


def copy(model: ir.Model) -> ir.Model:
    """A copy whose graph can be edited. Tensors are shared, but for those that a pass may rename."""
    twin = model.clone()
    forget_names(twin.graph)
    for graph in twin.graphs():
        if graph is not twin.graph:  # these may move to the main graph, and get another name there
            for value in graph.initializers.values():
                value.const_value = _own(value.const_value)
        for node in graph:
            tensor = node.attributes.get_tensor("value") if node.op_type == "Constant" else None
            if tensor is not None:  # it gets a name when it becomes an initializer
                node.attributes.add(ir.AttrTensor("value", _own(tensor)))
    return twin


def _own(tensor: Any) -> Any:
    """A tensor with a name of its own over the same data."""
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a protobuf, complete; above 1.8 GB tensors in external files stay there."""
    return ir.to_proto(model if is_large(model) else _inlined(model))


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def node_bytes(node: ir.Node) -> int:
    """Bytes of a node in a file, without its constants."""
    return int(ir.to_proto(node).ByteSize())


def stored_bytes(source: str | Path | onnx.ModelProto, held: int) -> int:
    """Bytes of a model as it is stored, in a file or a protobuf, with weights that are beside it.

    held: of all weights.
    """
    size = int(source.ByteSize()) if isinstance(source, onnx.ModelProto) else Path(source).stat().st_size
    return size if size >= held else size + held


def data_file(path: Path) -> Path:
    """Where the weights of the model at `path` go when they are not in it."""
    return path.with_name(path.name + ".data")


def spare_data(source: ir.Model, path: Path) -> None:
    """Make sure that a model written to `path` does not replace weights that `source` is read from.

    Raises:
        ConfigError: it would.
    """
    written = {path.resolve(), data_file(path).resolve()}
    for tensor in large_weights.in_files(source):
        if Path(tensor.path).resolve() in written:
            raise ConfigError(f"{tensor.path} holds weights of the input model; choose another output name")


def save(model: ir.Model, path: Path, *, source: ir.Model, external: bool = False) -> None:
    """Write the model whole or not at all; weights go to `<name>.data` when asked or above 1.8 GB.

    Args:
        source: the model that it was made from; its files are spared.

    Raises:
        ConfigError, ResourceError: the folder cannot be written, or the file would replace weights that the source is
            read from.
    """
    spare_data(source, path)
    data = data_file(path)
    external = external or is_large(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as folder:
            if external:
                ir.save(model, folder / path.name, external_data=data.name)
            else:
                ir.save(_inlined(model), folder / path.name)
            if (folder / data.name).exists():
                os.replace(folder / data.name, data)
            os.replace(folder / path.name, path)
    except OSError as error:
        raise unwritable(path, error) from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_large(model: ir.Model) -> bool:
    """Whether the model has more weights than a protobuf can hold."""
    return weight_bytes(model) > EXTERNAL_ABOVE


def is_heavy(model: ir.Model) -> bool:
    """Whether the weights of the model stay in files while it is worked on."""
    return weight_bytes(model) > min(FILES_ABOVE, EXTERNAL_ABOVE)


def settle(model: ir.Model) -> None:
    """Weights of a heavy model that are in memory, where a pass made them, go to a temporary file."""
    if is_heavy(model):
        large_weights.settle(model)


def runnable(model: ir.Model) -> tuple[bytes, Path | None]:
    """What onnxruntime can open: the serialized model, and the folder of its weights if they stay in a file."""
    if not is_heavy(model) and not large_weights.moved(model):
        return to_proto(model).SerializeToString(), None
    large_weights.settle(model)
    let_go(model)
    return ir.to_proto(model).SerializeToString(), large_weights.home(model)


def let_go(model: ir.Model) -> None:
    """Have the system take back the memory of files that are mapped: it reads them again where that is needed."""
    for tensor in large_weights.in_files(model):
        large_weights.let_go(tensor)


def _inlined(model: ir.Model) -> ir.Model:
    """The model with tensors of external files read into memory, so that its bytes stand alone."""
    if next(large_weights.in_files(model), None) is None:
        return model
    return ir.external_data.load_to_model(model.clone())


def check(model: ir.Model) -> None:
    """Have `onnx.checker` prove the model, those of many weights without these.

    Raises:
        ModelError: the checker refuses it.
    """
    try:
        onnx.checker.check_model(light_proto(model) if is_heavy(model) else to_proto(model))
    except Exception as error:
        raise ModelError(f"the resulting model is invalid: {_first_lines(error)}") from error


def fingerprint(model: ir.Model) -> str:
    """A hash of everything that decides what the model computes: nodes, attributes, weights, interface."""
    digest = hashlib.sha256()
    graph = model.graph
    interface = [[v.name, str(v.dtype), str(v.shape)] for v in (*graph.inputs, *graph.outputs)]
    digest.update(repr((interface, sorted(graph.opset_imports.items()))).encode())
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name].const_value
        if tensor is not None:
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.tobytes())
            large_weights.let_go(tensor)
    for node in graph:
        digest.update(ir.to_proto(node).SerializeToString(deterministic=True))
    return digest.hexdigest()[:16]


def load_executed(path: Path) -> ir.Model:
    """A model file of onnxruntime's own, whose operators no checker knows."""
    model: ir.Model = ir.load(path)
    return model


def close(model: ir.Model) -> None:
    """Let go of the files of a model that is needed no more, so that they can be removed."""
    for tensor in large_weights.in_files(model):
        tensor.release()


def with_outputs(model: ir.Model, names: list[str]) -> ir.Model:
    """The model, or a copy, that also returns these tensors; names of present outputs are left as they are."""
    wanted = set(names) - {value.name for value in model.graph.outputs}
    if not wanted:
        return model
    tapped = model.clone()
    for node in tapped.graph:
        for value in node.outputs:
            if value.name in wanted:
                tapped.graph.outputs.append(value)
    return tapped


def refuse_quantized(model: ir.Model) -> None:
    """Only float models can be quantized.

    Raises:
        ModelError: the model already holds quantizers.
    """
    found = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if found:
        raise ModelError(
            f"the model is quantized already: it holds {len(found)} QuantizeLinear/DequantizeLinear nodes, "
            f"the first is {found[0].name or found[0].op_type!r}; pass the float model"
        )
