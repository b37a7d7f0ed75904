"""The models that the onnx package comes with, each with inputs to run it on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.case import node
from onnx.backend.test.loader import DATA_DIR
from text_models import normal, text_model

Feed = dict[str, Any]

FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
LARGE = ("light_densenet121", "light_inception_v1", "light_resnet50", "light_vgg19", "light_zfnet512")
"""Left out: what is in them is in alexnet, inception_v2, shufflenet or `DENSE`, and some have up to two gigabytes."""

DENSE = """g (float[1, 4, 8, 8] x) => (float[1, 4, 2, 2] y) {
    pool = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    n1 = BatchNormalization (pool, ones4, row4, row4, ones4)
    r1 = Relu (n1)
    c1 = Conv <pads = [1, 1, 1, 1]> (r1, w1)
    k1 = Concat <axis = 1> (pool, c1)
    n2 = BatchNormalization (k1, ones8, row8, row8, ones8)
    r2 = Relu (n2)
    c2 = Conv <pads = [1, 1, 1, 1]> (r2, w2)
    k2 = Concat <axis = 1> (k1, c2)
    n3 = BatchNormalization (k2, ones12, row12, row12, ones12)
    r3 = Relu (n3)
    c3 = Conv (r3, w3)
    half = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (c3)
    y = BatchNormalization (half, ones4, row4, row4, ones4)
}"""
"""As light_densenet121: normalizations in front of convolutions, of what was put together again and again."""


def dense() -> onnx.ModelProto:
    """The model `DENSE`."""
    weights = {"w1": normal(4, 4, 3, 3), "w2": normal(4, 8, 3, 3), "w3": normal(4, 12, 1, 1)}
    rows = {f"row{n}": normal(n) for n in (4, 8, 12)} | {f"ones{n}": np.ones(n, np.float32) for n in (4, 8, 12)}
    return text_model(DENSE, **weights, **rows)


@dataclass(frozen=True)
class Case:
    """A node model carries its `proto`, the others are read from `path` when they are needed."""

    kind: str
    name: str
    path: Path | None = None
    proto: onnx.ModelProto | None = None
    inputs: tuple[Any, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"

    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path) if self.proto is None else self.proto

    def feeds(self, model: onnx.ModelProto) -> list[Feed]:
        """The test's own inputs; noise for the light models, which come with none."""
        if self.kind == "light":
            (name,) = _inputs(model, 1)
            return [{name: np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)}]
        stored = [self.inputs] if self.proto is not None else _stored(self.path, model)
        return [dict(zip(_inputs(model, len(values)), values, strict=True)) for values in stored]


def groups() -> list[str]:
    """Names of modules, one for each operator, and of folders: known without making the cases, which takes seconds."""
    package = f"{node.__name__}."
    modules = (info.name.removeprefix(package) for info in walk_packages(node.__path__, package))
    return [*(name for name in modules if not name.startswith("_")), *FOLDERS, "light"]


def cases(group: str) -> list[Case]:
    """All of a group, in an order that does not depend on the file system."""
    if group in FOLDERS:
        folders = sorted(path.parent for path in Path(DATA_DIR, group).glob("*/model.onnx"))
        return [Case(group, folder.name, path=folder / "model.onnx") for folder in folders]
    if group == "light":
        found = (Case(group, path.stem, path=path) for path in sorted(Path(DATA_DIR, group).glob("*.onnx")))
        return [case for case in found if case.name not in LARGE]
    known = len(node._NodeTestCases)  # a module adds to them when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package computes with infinities on purpose
        try:
            import_module(f"{node.__name__}.{group}")
        except AttributeError as error:  # one of them needs numpy 2 in onnx 1.18
            pytest.skip(f"onnx {onnx.__version__}: {error}")
    made = node._NodeTestCases[known:]
    return [Case("node", one.name, proto=one.model, inputs=tuple(map(_array, one.data_sets[0][0]))) for one in made]


def operators(case: Case) -> frozenset[str]:
    """Those of the model's own graph."""
    return frozenset(one.op_type for one in case.model().graph.node)


def session(model: onnx.ModelProto) -> ort.InferenceSession | None:
    """None where onnxruntime cannot load the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's errors have no common base
        return None


def _array(value: Any) -> Any:
    """Arrays as arrays; sequences stay lists, absent optionals None."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None or isinstance(value, list) else np.asarray(value)


def _inputs(model: onnx.ModelProto, count: int) -> list[str]:
    """The inputs that `count` values are for: all, or those without a default."""
    names = [value.name for value in model.graph.input]
    defaults = {tensor.name for tensor in model.graph.initializer}
    return names if len(names) == count else [name for name in names if name not in defaults]


def _stored(path: Path, model: onnx.ModelProto) -> Iterator[list[Any]]:
    """The inputs of every data set in the folder of the model."""
    for folder in sorted(path.parent.glob("test_data_set_*")):
        files = sorted(folder.glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        yield [_read(file, value.type) for file, value in zip(files, model.graph.input, strict=False)]


def _read(file: Path, kind: onnx.TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
