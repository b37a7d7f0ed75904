"""Bad inputs: each is a clear error of our own, exit code and one line on stderr, and nothing is left on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner

from quark_onnx import (
    Config,
    ConfigError,
    DataError,
    ModelError,
    ModelQuantizer,
    Plan,
    PlanError,
    QuantizationConfig,
    QuarkError,
    get_default_config,
)
from quark_onnx.cli import EXIT_CODES, app
from quark_onnx.engine.apply import apply
from quark_onnx.graph import io
from quark_onnx.stages.prepare import prepare

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3, 8, 8] x, float[1, 4] m) => (float[N, 4] y)
<float[4, 3, 3, 3] w> {
    [conv] c = Conv (x, w)
    [relu] r = Relu (c)
    [pool] p = GlobalAveragePool (r)
    [flat] f = Flatten (p)
    [gate] y = Mul (f, m)
}"""


def valid_model(text: str = TEXT) -> onnx.ModelProto:
    """Two inputs, one dynamic batch axis, a weight, names on all nodes."""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def feed(**changes: Any) -> dict[str, Any]:
    """A valid feed, changed; None takes an input away."""
    rng = np.random.default_rng(1)
    good = {"x": rng.standard_normal((2, 3, 8, 8), np.float32), "m": rng.standard_normal((1, 4), np.float32)}
    return {name: value for name, value in (good | changes).items() if value is not None}


def filled(value: float) -> np.ndarray:
    array = feed()["x"]
    array[1, 2, 3, 4] = value
    return array


@dataclass
class World:
    """A folder with a valid model and valid samples, and a way to use them; a case spoils something."""

    root: Path
    data: object = None
    use_path: bool = True

    def __post_init__(self) -> None:
        self.model: Any = self.root / "model.onnx"
        self.output = self.root / "out.onnx"
        self.samples = self.root / "samples"
        self.plan = self.root / "plan"
        onnx.save(valid_model(), self.model)
        self.samples.mkdir()
        self.sample(feed())

    def sample(self, values: dict[str, Any], file: str = "0.npz") -> None:
        np.savez(self.samples / file, **values)

    def files(self) -> dict[str, bytes | None]:
        """Everything on disk; None stands for a folder."""
        return {
            str(p.relative_to(self.root)): None if p.is_dir() else p.read_bytes() for p in sorted(self.root.rglob("*"))
        }

    def arguments(self) -> list[Any]:
        return [self.model, self.output, self.data, self.samples if self.use_path else None]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Temporary files go into the same folder, so that one left behind is seen."""
    root = tmp_path / "world"
    (root / "tmp").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    return World(root)


def refused(error: type[QuarkError], says: tuple[str, ...], world: World, act: Callable[[], object]) -> None:
    """`act` raises just this error, its message says these words in one line, and the disk is as it was."""
    before = world.files()
    with pytest.raises(QuarkError) as caught:
        act()
    assert caught.type is error
    check_words(str(caught.value), says)
    assert world.files() == before


def refused_in_shell(error: type[QuarkError], says: tuple[str, ...], world: World, *arguments: object) -> None:
    """The same on the command line: the exit code of the error, nothing on stdout, one line on stderr."""
    before = world.files()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == EXIT_CODES[error], result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    check_words(lines[0], says)
    assert world.files() == before


def check_words(text: str, says: tuple[str, ...]) -> None:
    assert "\n" not in text
    assert "Traceback" not in text
    for word in says:
        assert word in text


# The model


def spoil(name: str) -> Callable[[World], None]:
    """The function below that makes the model bad."""
    return globals()[name]


def missing(world: World) -> None:
    world.model.unlink()


def folder(world: World) -> None:
    world.model.unlink()
    world.model.mkdir()


def empty(world: World) -> None:
    world.model.write_bytes(b"")


def garbage(world: World) -> None:
    world.model.write_bytes(np.random.default_rng(0).bytes(4096))


def truncated(world: World) -> None:
    world.model.write_bytes(world.model.read_bytes()[:-60])


def text_file(world: World) -> None:
    world.model.write_text("this is not a model\n" * 40)


def pytorch_file(world: World) -> None:
    world.model.write_bytes(b"PK\x03\x04" + bytes(400))


def without_its_data(world: World) -> None:
    onnx.save(valid_model(), world.model, save_as_external_data=True, location="w.bin", size_threshold=0)
    (world.root / "w.bin").unlink()


def short_of_data(world: World) -> None:
    onnx.save(valid_model(), world.model, save_as_external_data=True, location="w.bin", size_threshold=0)
    (world.root / "w.bin").write_bytes(b"1234")


def already_quantized(world: World) -> None:
    result = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(world.model, None, [feed()])
    onnx.save(result.model, world.model)


def foreign_operator(world: World) -> None:
    model = valid_model()
    model.graph.node.insert(1, onnx.helper.make_node("Fancy", ["c"], ["d"], "fancy", domain="my.ops"))
    model.graph.node[2].input[0] = "d"
    model.opset_import.append(onnx.helper.make_opsetid("my.ops", 1))
    onnx.save(model, world.model)


def unknown_operator(world: World) -> None:
    model = valid_model()
    model.graph.node[1].op_type = "Rleu"
    onnx.save(model, world.model)


def future_opset(world: World) -> None:
    model = valid_model()
    model.opset_import[0].version = 9999
    onnx.save(model, world.model)


def dangling_input(world: World) -> None:
    model = valid_model()
    model.graph.node[1].input[0] = "nowhere"
    onnx.save(model, world.model)


def shapes_that_do_not_fit(world: World) -> None:
    model = valid_model()
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 5, 3, 3), np.float32), "w"))
    onnx.save(model, world.model)


MODELS: dict[str, tuple[str, ...]] = {
    "missing": ("model.onnx does not exist",),
    "folder": ("model.onnx is not a file",),
    "empty": ("model.onnx is not a valid ONNX model",),
    "garbage": ("model.onnx is not a valid ONNX model",),
    "truncated": ("model.onnx is not a valid ONNX model",),
    "text_file": ("model.onnx is not a valid ONNX model",),
    "pytorch_file": ("model.onnx is not a valid ONNX model",),
    "without_its_data": ("model.onnx", "w.bin"),
    "short_of_data": ("model.onnx", "w.bin"),
    "already_quantized": ("quantized already", "QuantizeLinear", "pass the float model"),
    "foreign_operator": ("onnxruntime", "my.ops", "Fancy"),
    "unknown_operator": ("model.onnx is not a valid ONNX model", "Rleu"),
    "future_opset": ("opset",),
    "dangling_input": ("model.onnx is not a valid ONNX model", "nowhere"),
    "shapes_that_do_not_fit": ("onnxruntime", "conv"),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, world: World) -> None:
    spoil(name)(world)
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(ModelError, MODELS[name], world, lambda: quantizer.quantize_model(*world.arguments()))
    refused_in_shell(
        ModelError, MODELS[name], world, "quantize", world.model, "-o", world.output, "-d", world.samples
    )


def test_model_of_another_type(world: World) -> None:
    world.model = valid_model().SerializeToString()
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    says = ("path", "ModelProto", "bytes")
    refused(ModelError, says, world, lambda: quantizer.quantize_model(*world.arguments()))
