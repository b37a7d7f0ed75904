"""The models that the onnx package comes with, each with inputs to run it on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import DATA_DIR

from quark_onnx.core.operators import CPU

Feed = dict[str, Any]

LARGE = ("light_vgg19", "light_zfnet512")
"""Left out: chains of the operators of light_bvlc_alexnet, with up to two gigabytes for the same."""


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


def cases() -> list[Case]:
    """All of them, in an order that does not depend on the file system."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package computes with infinities on purpose
        try:
            nodes = collect_testcases(None)
        except AttributeError as error:  # one of them needs numpy 2 in onnx 1.18
            pytest.skip(f"onnx {onnx.__version__}: {error}", allow_module_level=True)
    found = [Case("node", n.name, proto=n.model, inputs=tuple(map(_array, n.data_sets[0][0]))) for n in nodes]
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        folders = sorted(path.parent for path in Path(DATA_DIR, kind).glob("*/model.onnx"))
        found += [Case(kind, folder.name, path=folder / "model.onnx") for folder in folders]
    found += [Case("light", path.stem, path=path) for path in sorted(Path(DATA_DIR, "light").glob("*.onnx"))]
    return [case for case in found if case.name not in LARGE]


def varied(found: list[Case]) -> list[Case]:
    """One small model for every combination of operators of which at least one can be quantized."""
    chosen: dict[frozenset[str], Case] = {}
    for case in found:
        if case.kind != "light":
            kinds = frozenset(node.op_type for node in case.model().graph.node)
            if kinds & CPU.keys():
                chosen.setdefault(kinds, case)
    return list(chosen.values())


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
