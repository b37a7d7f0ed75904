"""Models in and out: the only place that reads or writes model files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from quark_onnx.core.atomic_files import behind_links, new_file
from quark_onnx.core.errors import ConfigError, ModelError, reading, reason
from quark_onnx.graph import data_files, large_weights, normal_form, weights_apart
from quark_onnx.graph.beside_the_model import check_initializers, with_constants
from quark_onnx.graph.edit import forget_names, own_tensor
from quark_onnx.graph.function_scope import refuse_open_functions
from quark_onnx.graph.open_dimensions import open_dimensions
from quark_onnx.graph.tensor_data import check_constants
from quark_onnx.graph.without_weights import complaint, refusal

INVALID, AGAIN = "is not a valid ONNX model", "export or copy it again"

EXTERNAL_ABOVE = 1_800_000_000
"""Bytes of weights above which they are stored beside the model: protobuf ends at 2 GB."""


FILES_ABOVE = 1 << 28
"""Bytes of weights above which they lie in files while the model is worked on: each session, and each copy in a
protobuf, would hold them once more."""


def load(source: str | Path | onnx.ModelProto) -> ir.Model:
    """Read a model, normalized, and have `onnx.checker` prove it.

    Raises:
        ModelError: see `read`, or the checker refuses it.
    """
    model = read(source)
    if (fault := complaint(model)) is not None:
        raise invalid(source, fault)
    return model


def read(source: str | Path | onnx.ModelProto) -> ir.Model:
    """A model in its normal form; weights in external files are memory-mapped, not copied.

    Dimensions of −1 or 0 are dynamic. What `onnx.checker` has to say is not asked.

    Raises:
        ModelError: the file is missing, is not an ONNX model, or one that cannot be held.
    """
    proto = source if isinstance(source, onnx.ModelProto) else _protobuf(source)
    try:
        proto = with_constants(proto, _folder(source), title(source))
        filled, said = normal_form.dense(proto)
        model: ir.Model = ir.from_proto(filled)
        if not isinstance(source, onnx.ModelProto):
            ir.external_data.set_base_dir(model.graph, _folder(source))
        check_constants(model)
        refuse_open_functions(model)
        open_dimensions(model)
        said += normal_form.normalize(model)
    except ModelError:
        raise
    except Exception as error:  # numpy, the IR and the checker each have errors of their own
        raise invalid(source, refusal(proto) or reason(error)) from error
    if not model.graph.outputs:
        raise invalid(source, "it has no outputs, so that nothing can be seen of what it computes")
    normal_form.keep(model, said)
    check_initializers(model, title(source))
    return model


def _protobuf(source: str | Path) -> onnx.ModelProto:
    if not isinstance(source, (str, Path)):
        raise ModelError(f"the model must be a path or an onnx.ModelProto, not {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ModelError(f"model {path} {what}; give the path of an .onnx file")
    try:
        os.fsencode(path).decode("utf-8")  # what onnx takes, whatever the encoding of this system
    except UnicodeDecodeError as error:
        raise ModelError(
            f"the name of {path} holds bytes that are no UTF-8, which onnx cannot open; rename it"
        ) from error
    with reading(source, ModelError, AGAIN, INVALID):
        return onnx.load(str(path), load_external_data=False)


def _folder(source: str | Path | onnx.ModelProto) -> Path:
    """Where the files of a model are; those of a protobuf, which has no place, in the working directory."""
    return Path() if isinstance(source, onnx.ModelProto) else Path(source).parent


def title(source: str | Path | onnx.ModelProto) -> str:
    """What to call the model in a message."""
    return "the ModelProto" if isinstance(source, onnx.ModelProto) else str(source)


def invalid(source: str | Path | onnx.ModelProto, fault: str) -> ModelError:
    """The error about a model that is none."""
    return ModelError(f"{title(source)} {INVALID}: {fault}; {AGAIN}")


def copy(model: ir.Model) -> ir.Model:
    """A copy whose graph can be edited. Tensors are shared, but for those that a pass may rename."""
    twin = model.clone()
    forget_names(twin.graph)
    for graph in twin.graphs():
        if graph is not twin.graph:  # these may move to the main graph, and get another name there
            for value in graph.initializers.values():
                value.const_value = None if value.const_value is None else own_tensor(value.const_value)
        for node in graph:
            tensor = node.attributes.get_tensor("value") if node.op_type == "Constant" else None
            if tensor is not None:  # it gets a name when it becomes an initializer
                node.attributes.add(ir.AttrTensor("value", own_tensor(tensor)))
    return twin


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a protobuf, complete; above 1.8 GB tensors in external files stay there."""
    return ir.to_proto(model if is_large(model) else inlined(model))


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those of bodies included."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def node_bytes(node: ir.Node) -> int:
    """Bytes of a node in a file, without its constants."""
    return int(ir.to_proto(node).ByteSize())


def stored_bytes(source: str | Path | onnx.ModelProto, held: int) -> int:
    """Bytes of a model as it is stored, in a file or a protobuf, with weights that are beside it.

    held: of all weights.
    """
    size = int(source.ByteSize()) if isinstance(source, onnx.ModelProto) else Path(source).stat().st_size
    return size if size >= held else size + held


def spare_data(source: ir.Model, path: Path) -> None:
    """Make sure that a model written to `path` does not replace weights that `source` is read from.

    Raises:
        ConfigError: it would.
    """
    for tensor in large_weights.in_files(source):
        if Path(tensor.path).resolve() == path.resolve():
            raise ConfigError(f"{tensor.path} holds weights of the input model; choose another output name")


def save(model: ir.Model, path: Path, *, source: ir.Model, external: bool = False) -> None:
    """Write the model whole or not at all; weights go beside it, see `data_files`, when asked or above 1.8 GB.

    Args:
        source: the model that it was made from; its files are spared.

    Raises:
        ConfigError, ResourceError: the folder cannot be written, or the file would replace weights that the source is
            read from, or weights would lie beside a link and not beside the model.
    """
    spare_data(source, path)
    external = external or is_large(model)
    target = behind_links(path)
    if external and target.parent != path.parent.resolve() and path.is_symlink():
        raise ConfigError(f"{path} leads to {target}, and weights lie beside the model: give the name of that file")
    spared = {Path(tensor.path).resolve() for tensor in large_weights.in_files(source)}
    with new_file(path) as temporary:
        if external:
            ir.save(model, temporary, external_data=data_files.WRITTEN)
            spared |= data_files.put_beside(temporary, target)
        else:
            ir.save(inlined(model), temporary)
    data_files.clear(target, spared)


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


class Runnable(NamedTuple):
    """What onnxruntime can open: a serialized model, and large weights, which are the caller's to keep; or the folder
    of weights that stay in a file."""

    model: bytes
    weights: weights_apart.Weights
    folder: Path | None = None


def runnable(model: ir.Model, *, whole: bool = False) -> Runnable:
    """The model for onnxruntime; `whole`: all weights that are in memory in its bytes."""
    if not is_heavy(model) and not large_weights.moved(model):
        light, weights = (inlined(model), {}) if whole else weights_apart.parted(inlined(model))
        return Runnable(ir.to_proto(light).SerializeToString(), weights)
    large_weights.settle(model)
    let_go(model)
    return Runnable(ir.to_proto(model).SerializeToString(), {}, large_weights.home(model))


def let_go(model: ir.Model) -> None:
    """Have the system take back the memory of files that are mapped: it reads them again where that is needed."""
    for tensor in large_weights.in_files(model):
        large_weights.let_go(tensor)


def inlined(model: ir.Model) -> ir.Model:
    """The model with tensors of external files read into memory, so that its bytes stand alone."""
    if next(large_weights.in_files(model), None) is None:
        return model
    twin = model.clone()
    large_weights.read_all(twin)
    return twin


def check(model: ir.Model, source: ir.Model | None = None) -> None:
    """Have `onnx.checker` prove a model, which may have been made of another one, large weights left out of the proof.

    Raises:
        ModelError: the checker refuses it, and not what it was made of.
    """
    if (fault := complaint(model)) is not None and (source is None or complaint(source) is None):
        raise ModelError(f"the resulting model is invalid: {fault}")


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
            text = tensor.dtype == ir.DataType.STRING
            digest.update(repr(tensor.numpy().tolist()).encode() if text else tensor.tobytes())
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
        large_weights.close(tensor)


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
