"""Weights in files of their own lie beside the model or below it: no model makes us read a file from elsewhere.

Initializers stay in their files, and are mapped when they are read. Constants of nodes, and sparse ones, come into the
model at once: for those neither the IR nor the checker knows the folder of the model.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from quark_onnx.core.errors import ModelError
from quark_onnx.graph import large_weights
from quark_onnx.graph.model_files import constants


def with_constants(proto: onnx.ModelProto, folder: Path, title: str) -> onnx.ModelProto:
    """The model with the constants of its nodes in itself: as it is where they are, else a copy.

    Raises:
        ModelError: a file is missing, too short, or elsewhere.
    """
    if not any(map(uses_external_data, constants(proto))):
        return proto
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    for tensor in filter(uses_external_data, constants(twin)):
        info = ExternalDataInfo(tensor)
        check_file(folder / info.location, folder, (info.offset or 0) + (info.length or 0), tensor.name, title)
        load_external_data_for_tensor(tensor, str(folder.resolve()))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return twin


def check_initializers(model: ir.Model, title: str) -> None:
    """Weights in other files are read late, by many: that they can be read is made sure of once.

    Raises:
        ModelError: a file is missing, too short, or elsewhere.
    """
    for tensor in large_weights.in_files(model):
        needed = (tensor.offset or 0) + tensor.nbytes
        check_file(Path(tensor.path), Path(tensor.base_dir), needed, tensor.name or "", title)


def check_file(path: Path, folder: Path, needed: int, name: str, title: str) -> None:
    """Nothing, where the file is below the folder and has so many bytes.

    Raises:
        ModelError: it is missing, too short, or elsewhere.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"weight {name!r} of {title} is in {path}, outside the folder of the model, where onnxruntime reads "
            "nothing; move the file beside the model"
        )
    if not path.is_file():
        raise ModelError(f"weight {name!r} of {title} is in {path}, which is missing; pass the path of the model")
    if path.stat().st_size < needed:
        raise ModelError(f"{path} ends before the weight {name!r}; copy or export the model again")
