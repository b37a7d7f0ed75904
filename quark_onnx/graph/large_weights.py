"""Weights that would fill the memory stay in files, are mapped where they are read, and let go of afterwards."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from quark_onnx.graph.edit import own_tensor

SMALL = 1024
"""Bytes up to which a tensor is written into the model itself."""

LOOSE = 1 << 27
"""Bytes of weights that a model may hold in memory beside those in files."""

PAGE = 4096
"""Tensors begin at multiples of it, so that each can be mapped alone."""

NAME = "weights"
"""Of the file in a temporary folder."""


def in_files(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """The tensors that are in other files."""
    for value in _initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value.const_value


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from (value for value in graph.initializers.values() if value.const_value is not None)


def home(model: ir.Model) -> Path | None:
    """The one folder that files with the weights of the model are in; None where there are several, or none at all."""
    folders = {Path(tensor.base_dir).absolute() for tensor in in_files(model)}
    return folders.pop() if len(folders) == 1 else None


def settled(model: ir.Model) -> bool:
    """Whether the model can be opened where its files are: all but a little of it lies in one folder."""
    tensors = [value.const_value for value in _initializers(model)]
    loose = sum(tensor.nbytes for tensor in tensors if tensor is not None and not isinstance(tensor, ir.ExternalTensor))
    return loose <= LOOSE and home(model) is not None


_OURS = "quark_onnx.folder"


class _Folder:
    """A temporary folder, which goes with the last tensor in it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="quark_onnx-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def settle(model: ir.Model) -> None:
    """Move the weights of the model, one after the other, to a temporary file."""
    if settled(model):
        return
    folder = _Folder()
    with (folder.path / NAME).open("wb") as file:
        for value in _initializers(model):
            tensor = value.const_value
            if tensor is not None and tensor.nbytes > SMALL and tensor.dtype != ir.DataType.STRING:
                file.seek(-file.tell() % PAGE, 1)
                start, content = file.tell(), tensor.tobytes()
                file.write(content)
                value.const_value = _tensor(folder, start, len(content), tensor)
                let_go(tensor)
    _leave_protobuf(model)


def _leave_protobuf(model: ir.Model) -> None:
    """Small tensors get memory of their own: one that is part of a protobuf keeps all of that in memory."""
    for value in _initializers(model):
        if isinstance(value.const_value, ir.TensorProtoTensor):
            value.const_value = _own(value.const_value)
    functions = (function.graph.all_nodes() for function in model.functions.values())
    for node in chain(model.graph.all_nodes(), *functions):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.TensorProtoTensor):
                node.attributes.add(ir.AttrTensor(name, _own(attribute.value)))


def _own(tensor: Any) -> Any:
    found = own_tensor(tensor)
    found.meta.update(tensor.meta)
    return found


def _tensor(folder: _Folder, start: int, length: int, like: Any) -> ir.ExternalTensor:
    shape = ir.Shape(like.shape.numpy())
    found = ir.ExternalTensor(NAME, start, length, like.dtype, shape=shape, name=like.name or "", base_dir=folder.path)
    found.meta[_OURS] = folder
    return found


def moved(model: ir.Model) -> bool:
    """Whether `settle` has moved weights of the model."""
    return any(_OURS in tensor.meta for tensor in in_files(model))


def compute_late(graph: ir.Graph, makers: Mapping[str, Callable[[], Any]]) -> None:
    """Other numbers, of the same type and shape, for initializers by name; they are made whenever they are read."""
    for name, make in makers.items():
        value = graph.initializers[name]
        like = value.const_value
        assert like is not None
        shape = ir.Shape(like.shape.numpy())
        value.const_value = ir.LazyTensor(partial(_made, make), like.dtype, shape, name=name)


def _made(make: Callable[[], Any]) -> Any:
    return ir.tensor(make())


def spilled(array: Any) -> Any:
    """The array; a large one mapped from a file without a name, which goes with it."""
    if array.nbytes <= LOOSE:
        return array
    with tempfile.TemporaryFile(prefix="quark_onnx-") as file:
        file.write(np.ascontiguousarray(array).data.cast("B"))
        file.flush()
        return np.memmap(file, array.dtype, "r", shape=array.shape)


def read_all(model: ir.Model) -> None:
    """All tensors that are in files come into memory."""
    for value in _initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            close(tensor)


def close(tensor: ir.ExternalTensor) -> None:
    """Give up the mapping of a file: it is mapped again when it is read.

    A constant that was folded may be a view of it, a transpose for one: then the mapping lives as long as that.
    """
    with contextlib.suppress(BufferError):
        tensor.release()


def let_go(tensor: Any) -> None:
    """Have the system take back the memory of what is mapped: it is read again where that is needed.

    A session maps the weights a second time, and a model of some gigabytes should not be in memory twice. Each mapping
    is an open file, too, of which there may be a thousand.
    """
    mapped = tensor.raw if isinstance(tensor, ir.ExternalTensor) else getattr(tensor, "base", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    if isinstance(tensor, ir.ExternalTensor):
        close(tensor)
