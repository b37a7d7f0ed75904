"""Constants of nodes whose data are in a file: read from beside the model, and from nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from quark_onnx import ModelError
from quark_onnx.graph import io
from quark_onnx.graph.model_files import external_files
from quark_onnx.zoo.result_address import file_hash

VALUES = np.arange(1, 17, dtype=np.float32)
PLACES = numpy_helper.from_array(np.arange(16), "places")
HEAD = '<ir_version: 10, opset_import: ["": 18, "f": 1]> g (float[4, 4] x) => (float[4, 4] y)'


def in_file(location: str, *dims: int, **more: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="c", data_type=1, dims=dims, data_location=onnx.TensorProto.EXTERNAL)
    entries = {"location": location, "offset": "0", "length": str(4 * int(np.prod(dims))), **more}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(location: str, **more: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {{ y = Add (x, c) }}")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=in_file(location, 4, 4, **more)))
    return model


def sparse_constant(location: str) -> onnx.ModelProto:
    model = constant(location)
    sparse = helper.make_sparse_tensor(in_file(location, 16), PLACES, [4, 4])
    model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("sparse_value", sparse))
    return model


def sparse_initializer(location: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {{ y = Add (x, c) }}")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(in_file(location, 16), PLACES, [4, 4]))
    return model


def in_a_function(location: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {{ y = f.F (x) }}")
    function = onnx.parser.parse_function('<opset_import: ["": 18], domain: "f"> F (x) => (y) { y = Add (x, c) }')
    function.node.insert(0, constant(location).graph.node[0])
    model.functions.append(function)
    return model


def in_a_branch(location: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {{ yes = Constant <value = bool {{1}}> () }}")
    result = [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [4, 4])]
    nodes = [constant(location).graph.node[0], helper.make_node("Add", ["x", "c"], ["z"])]
    branch = helper.make_graph(nodes, "branch", [], result)
    model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    return model


KINDS = [constant, sparse_constant, sparse_initializer, in_a_function, in_a_branch]
Make = Callable[[str], onnx.ModelProto]


def written(model: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("make", KINDS)
def test_from_beside_the_model_wherever_one_works(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(make("c.bin"), tmp_path / "model")
    (path.parent / "c.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "c.bin").write_bytes(np.zeros(16, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    assert VALUES.tobytes() in io.to_proto(io.load(path)).SerializeToString()
    assert external_files(path) == [path.parent / "c.bin"]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("how", ["above", "absolute", "a link"])
def test_from_nowhere_else(make: Make, how: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(VALUES.tobytes())
    location = {"above": "../outside.bin", "absolute": str(outside), "a link": "link.bin"}[how]
    path = written(make(location), tmp_path / "model")
    if how == "a link":
        (path.parent / "link.bin").symlink_to(outside)
    with pytest.raises(ModelError, match="outside the folder of the model, where onnxruntime reads nothing"):
        io.load(path)


def test_a_file_that_is_missing_or_too_short(tmp_path: Path) -> None:
    path = written(constant("c.bin"), tmp_path / "model")
    with pytest.raises(ModelError, match=r"c\.bin, which is missing"):
        io.load(path)
    (path.parent / "c.bin").write_bytes(VALUES.tobytes()[:-1])
    with pytest.raises(ModelError, match=r"c\.bin ends before the weight 'c'"):
        io.load(path)


def test_places_that_are_no_numbers(tmp_path: Path) -> None:
    path = written(constant("c.bin", offset="far"), tmp_path / "model")
    (path.parent / "c.bin").write_bytes(VALUES.tobytes())
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        io.load(path)


def test_the_model_of_the_caller_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.bin").write_bytes(VALUES.tobytes())
    model = constant("c.bin")
    before = model.SerializeToString()
    io.load(model)
    assert model.SerializeToString() == before


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there are no such files here")
def test_what_never_ends_is_not_hashed(tmp_path: Path) -> None:
    """A zoo hashes all files of a model before anything looks whether they may be read."""
    assert file_hash(Path("/dev/zero")) == ""
    path = tmp_path / "a"
    path.write_text("a")
    assert file_hash(path).startswith("ca978112")
