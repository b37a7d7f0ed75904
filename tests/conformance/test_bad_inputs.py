"""Bad inputs: each is a clear error of our own, exit code and one line on stderr, and nothing is left on disk."""

from __future__ import annotations

import json
import os
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
import pytest
from onnx_text import parse_model
from typer.testing import CliRunner

import quark_onnx
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
from quark_onnx.engine.apply_plan import apply
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
    model = parse_model(text)
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


MODELS: dict[str, tuple[str, ...]] = {
    "missing": ("model.onnx does not exist",),
    "folder": ("model.onnx is not a file",),
    "empty": ("model.onnx is not a valid ONNX model",),
    "garbage": ("model.onnx is not a valid ONNX model",),
    "truncated": ("model.onnx is not a valid ONNX model",),
    "text_file": ("model.onnx is not a valid ONNX model",),
    "pytorch_file": ("model.onnx is not a valid ONNX model",),
    "without_its_data": ("model.onnx", "w.bin"),
    "short_of_data": ("w.bin ends before the weight 'w'", "copy or export"),
    "already_quantized": ("quantized already", "QuantizeLinear", "pass the float model"),
    "foreign_operator": ("onnxruntime", "my.ops", "Fancy"),
    "unknown_operator": ("model.onnx is not a valid ONNX model", "Rleu"),
    "future_opset": ("opset",),
    "dangling_input": ("model.onnx is not a valid ONNX model", "nowhere"),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, world: World) -> None:
    spoil(name)(world)
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(ModelError, MODELS[name], world, lambda: quantizer.quantize_model(*world.arguments()))
    refused_in_shell(ModelError, MODELS[name], world, "quantize", world.model, "-o", world.output, "-d", world.samples)


def test_model_of_another_type(world: World) -> None:
    world.model = valid_model().SerializeToString()
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    says = ("path", "ModelProto", "bytes")
    refused(ModelError, says, world, lambda: quantizer.quantize_model(*world.arguments()))


def test_proto_without_its_data(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ModelProto does not know the folder of its weights."""
    without_its_data(world)
    world.model = onnx.load(world.model, load_external_data=False)
    monkeypatch.chdir(world.root)
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(ModelError, ("w.bin", "pass the path"), world, lambda: quantizer.quantize_model(*world.arguments()))


# The data


class Reader:
    """The protocol of onnxruntime."""

    def __init__(self, feeds: list[dict[str, Any]]) -> None:
        self.feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


FEEDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "wrong name": (feed(x=None, X=feed()["x"]), ("no input 'X'", "did you mean 'x'")),
    "missing input": (feed(m=None), ("'m' is missing", "sample 1")),
    "other input": (feed(m=None, label=np.zeros(2)), ("'m' is missing", "no input 'label'", "known: m, x")),
    "wrong type": (feed(x=feed()["x"].astype(np.uint8)), ("'x'", "uint8", "float32", "preprocess")),
    "wrong rank": (feed(x=np.zeros((2, 3), np.float32)), ("'x'", "rank is 2", "[?, 3, 8, 8]", "reshape")),
    "wrong fixed dimension": (feed(x=np.zeros((2, 3, 9, 8), np.float32)), ("'x'", "dimension 2 is 9", "resize")),
    "wrong layout": (feed(x=np.zeros((2, 8, 8, 3), np.float32)), ("'x'", "NHWC", "transpose(0, 3, 1, 2)")),
    "wrong batch": (feed(x=feed()["x"][:1], m=np.zeros((0, 4), np.float32)), ("'m'", "a batch of 0", "cut or pad it")),
    "NaN": (feed(x=filled(np.nan)), ("'x'", "NaN", "(1, 2, 3, 4)", "preprocessing")),
    "infinity": (feed(x=filled(np.inf)), ("'x'", "infinite", "(1, 2, 3, 4)", "preprocessing")),
    "text": (feed(x=np.array([["a"]])), ("'x'", "float32", "preprocess")),
}


@pytest.mark.parametrize("name", FEEDS)
def test_sample(name: str, world: World) -> None:
    """The second sample is bad: as a list, from a reader, and from a folder."""
    bad, says = FEEDS[name]
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    for data in ([feed(), bad], Reader([feed(), bad])):
        refused(
            DataError, (*says, "sample 1"), world, lambda d=data: quantizer.quantize_model(world.model, world.output, d)
        )
    world.sample(bad, "1.npz")
    arguments = "quantize", world.model, "-o", world.output, "-d", world.samples
    refused_in_shell(DataError, (*says, "1.npz"), world, *arguments)


DATA: dict[str, tuple[object, tuple[str, ...]]] = {
    "nothing": (None, ("no calibration data", "pass a reader", "UseRandomData")),
    "an empty list": ([], ("no samples", "pass a reader")),
    "an empty reader": (Reader([]), ("no samples", "pass a reader")),
    "a number": (7, ("cannot read", "7", "pass a reader")),
    "a file that is not there": ("no/such/folder", ("no/such/folder does not exist", "pass a reader")),
    "two of one": ([(feed()["x"], feed()["m"], feed()["m"])], ("3 array(s)", "x, m", "[2] could be 'm', too")),
    "lists of unequal length": ([feed(x=[[1.0], [1.0, 2.0]])], ("'x'", "not an array", "pass a numpy array")),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, world: World) -> None:
    data, says = DATA[name]
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(DataError, says, world, lambda: quantizer.quantize_model(world.model, world.output, data))


def test_reader_that_was_read_before(world: World) -> None:
    reader = Reader([feed()])
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    quantizer.quantize_model(world.model, None, reader)
    refused(DataError, ("no samples",), world, lambda: quantizer.quantize_model(world.model, world.output, reader))


def test_data_twice(world: World) -> None:
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    world.data = [feed()]
    says = ("both", "pass only one")
    refused(ConfigError, says, world, lambda: quantizer.quantize_model(*world.arguments()))


def test_data_on_which_the_model_fails(world: World) -> None:
    model = valid_model(TEXT.replace("float[1, 4] m", "float[A, B] m").replace("float[N, 4] y", "float[C, D] y"))
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    data = [feed(m=np.ones((1, 7), np.float32))]
    says = ("m (1, 7)", "gate", "use inputs that it can run on")
    refused(DataError, says, world, lambda: quantizer.quantize_model(model, world.output, data))


def no_folder(world: World) -> None:
    shutil.rmtree(world.samples)


def empty_folder(world: World) -> None:
    (world.samples / "0.npz").unlink()


def other_files(world: World) -> None:
    (world.samples / "0.npz").rename(world.samples / "0.csv")


def mixed_folder(world: World) -> None:
    np.save(world.samples / "1.npy", feed()["x"])


def broken_file(world: World) -> None:
    (world.samples / "1.npz").write_bytes(b"PK broken")


def pickled_file(world: World) -> None:
    world.sample({"x": np.array([{}, []], dtype=object)}, "1.npz")


FOLDERS: dict[str, tuple[str, ...]] = {
    "no_folder": ("samples does not exist", "pass a reader"),
    "empty_folder": ("samples holds nothing", ".npy, .npz or images"),
    "other_files": ("samples holds 1 other files", ".npy, .npz or images"),
    "mixed_folder": ("1 .npz files, 1 .npy files", "one kind"),
    "broken_file": ("cannot read", "1.npz", "numpy.savez"),
    "pickled_file": ("cannot read", "1.npz", "numpy.savez"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(name: str, world: World) -> None:
    spoil(name)(world)
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(DataError, FOLDERS[name], world, lambda: quantizer.quantize_model(*world.arguments()))
    arguments = "quantize", world.model, "-o", world.output, "-d", world.samples
    refused_in_shell(DataError, FOLDERS[name], world, *arguments)


def test_no_data_in_the_shell(world: World) -> None:
    says = ("no calibration data", "--data", "--random-data")
    refused_in_shell(DataError, says, world, "quantize", world.model, "-o", world.output)


# The configuration


@dataclass(frozen=True)
class Setting:
    """A configuration that is refused; `flags` say the same on the command line, where that can be said."""

    make: Callable[[], Any]
    says: tuple[str, ...]
    flags: tuple[str, ...] = ()


def config(**fields: Any) -> Callable[[], QuantizationConfig]:
    return lambda: QuantizationConfig(**fields)


def option(**options: Any) -> Callable[[], QuantizationConfig]:
    return config(extra_options=options)


CONFIGS: dict[str, Setting] = {
    "preset": Setting(
        lambda: get_default_config("S8S8_AASW"), ("'S8S8_AASW'", "did you mean 'S8S8_AAWS'"), ("-p", "S8S8_AASW")
    ),
    "option": Setting(
        option(Percentil=99.9), ("'Percentil'", "did you mean 'Percentile'"), ("--option", "Percentil=99.9")
    ),
    "field": Setting(
        lambda: QuantizationConfig.from_dict({"weight_typ": "int8"}), ("'weight_typ'", "did you mean 'weight_type'")
    ),
    "type": Setting(
        config(weight_type="int17"), ("weight_type", "'int17'", "did you mean 'int"), ("--weight-type", "int17")
    ),
    "float activations": Setting(
        config(activation_type="float16"), ("'float16'", "convert both"), ("--activation-type", "float16")
    ),
    "int8 with uint8": Setting(
        config(activation_type="int8", weight_type="uint8"),
        ("int8 activations", "uint8 weights", "use weight_type='int8'"),
        ("--activation-type", "int8", "--weight-type", "uint8"),
    ),
    "method": Setting(config(calibrate_method="?"), ("calibrate_method", "'?'", "known: ", "MinMax")),
    "percentile": Setting(
        option(Percentile=101), ("Percentile", "above 50 and at most 100", "101"), ("--option", "Percentile=101")
    ),
    "type of an option": Setting(
        option(Percentile="high"), ("Percentile", "'high'", "in percent"), ("--option", "Percentile=high")
    ),
    "size": Setting(option(CalibDataSize=0), ("CalibDataSize", "at least 1"), ("--option", "CalibDataSize=0")),
    "names that are no list": Setting(config(nodes_to_exclude="conv"), ("nodes_to_exclude", "list", "'conv'")),
    "no configuration": Setting(lambda: Config("S8S8_AAWS"), ("QuantizationConfig", "get_default_config", "str")),
    "node": Setting(
        config(nodes_to_exclude=["cnv"]), ("nodes_to_exclude", "'cnv'", "did you mean 'conv'"), ("-x", "cnv")
    ),
    "operator type": Setting(
        config(op_types_to_quantize=["Konv"]), ("op_types_to_quantize", "'Konv'", "did you mean 'Conv'")
    ),
    "regular expression": Setting(
        config(nodes_to_exclude=["^(conv"]),
        ("nodes_to_exclude", "'^(conv'", "not a regular expression"),
        ("-x", "^(conv"),
    ),
    "subgraph": Setting(
        config(subgraphs_to_exclude=[(["conv"], ["gaet"])]), ("subgraphs_to_exclude", "'gaet'", "did you mean 'gate'")
    ),
    "subgraph that is no pair": Setting(
        config(subgraphs_to_exclude=["conv"]), ("subgraphs_to_exclude", "pairs", "'conv'")
    ),
    "random data beside data": Setting(option(UseRandomData=True), ("calibration data are given", "UseRandomData")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config(name: str, world: World) -> None:
    make, says, flags = CONFIGS[name].make, CONFIGS[name].says, CONFIGS[name].flags
    refused(ConfigError, says, world, lambda: ModelQuantizer(make()).quantize_model(*world.arguments()))
    if flags:
        arguments = "quantize", world.model, "-o", world.output, "-d", world.samples, *flags
        refused_in_shell(ConfigError, says, world, *arguments)


def test_random_data_for_no_input(world: World) -> None:
    config = option(UseRandomData=True, RandomDataReaderInputShape={"z": [1]})()
    model, output, *_ = world.arguments()
    says = ("no input 'z'", "known: m, x")
    refused(ConfigError, says, world, lambda: ModelQuantizer(config).quantize_model(model, output))


FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "not JSON": ("{weight_type: int8", ("config.json", "not JSON", "line 1")),
    "not an object": ("[1, 2]", ("config.json", "JSON object")),
    "unknown field": ('{"weight_typ": "int8"}', ("config.json", "'weight_typ'", "did you mean 'weight_type'")),
    "wrong type": ('{"extra_options": 3}', ("config.json", "extra_options", "dictionary")),
    "number for a list": ('{"subgraphs_to_exclude": 3}', ("config.json", "subgraphs_to_exclude")),
}


@pytest.mark.parametrize("name", FILES)
def test_config_file(name: str, world: World) -> None:
    text, says = FILES[name]
    file = world.root / "config.json"
    file.write_text(text)
    refused(ConfigError, says[1:], world, lambda: QuantizationConfig.from_json(text))
    arguments = "quantize", world.model, "-o", world.output, "-d", world.samples, "--config", file
    refused_in_shell(ConfigError, says, world, *arguments)


def test_no_config_file(world: World) -> None:
    arguments = "quantize", world.model, "-o", world.output, "-d", world.samples, "--config", world.root / "none.json"
    refused_in_shell(ConfigError, ("none.json", "cannot read"), world, *arguments)


# The output


def input_model(world: World) -> None:
    world.output = world.model


def link_to_the_input(world: World) -> None:
    world.output.symlink_to(world.model)


def some_folder(world: World) -> None:
    world.output = world.samples


def below_a_file(world: World) -> None:
    world.output = world.model / "out.onnx"


OUTPUTS: dict[str, tuple[str, ...]] = {
    "input_model": ("model.onnx is the input model", "choose another name"),
    "link_to_the_input": ("out.onnx is the input model", "choose another name"),
    "some_folder": ("samples is a folder", "give a file name"),
    "below_a_file": ("out.onnx cannot be written", "model.onnx is not a folder"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output(name: str, world: World) -> None:
    spoil(name)(world)
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(ConfigError, OUTPUTS[name], world, lambda: quantizer.quantize_model(*world.arguments()))
    arguments = "quantize", world.model, "-o", world.output, "-d", world.samples
    refused_in_shell(ConfigError, OUTPUTS[name], world, *arguments)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_output_that_not_even_root_may_write(world: World) -> None:
    world.output = Path("/proc/quark/out.onnx")
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(ConfigError, ("out.onnx", "/proc"), world, lambda: quantizer.quantize_model(*world.arguments()))


def test_output_is_replaced_only_by_a_whole_one(world: World) -> None:
    world.output.write_bytes(b"an earlier result")
    world.data, world.use_path = [feed(), feed(x=filled(np.nan))], False
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"))
    refused(DataError, ("NaN",), world, lambda: quantizer.quantize_model(*world.arguments()))


# Plans


def make_plan(world: World) -> None:
    """As the command line writes it."""
    arguments = "plan", world.model, "-o", world.plan, "-d", world.samples
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def edit_plan(world: World, **changes: Any) -> None:
    file = world.plan / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def no_plan(world: World) -> None:
    shutil.rmtree(world.plan)


def plan_is_not_json(world: World) -> None:
    (world.plan / "plan.json").write_text("{")


def plan_is_a_list(world: World) -> None:
    (world.plan / "plan.json").write_text("[]")


def plan_of_another_version(world: World) -> None:
    edit_plan(world, version=99)


def plan_without_nodes(world: World) -> None:
    edit_plan(world, nodes=None)


def plan_with_bad_sites(world: World) -> None:
    edit_plan(world, sites=[{"tensor": "x"}])


def plan_without_arrays(world: World) -> None:
    (world.plan / "arrays.npz").unlink()


def plan_with_bad_arrays(world: World) -> None:
    (world.plan / "arrays.npz").write_bytes(b"PK broken")


PLANS: dict[str, tuple[str, ...]] = {
    "no_plan": ("plan.json is missing", "quark-onnx plan"),
    "plan_is_not_json": (
        "plan holds no plan",
        "make a new one",
    ),
    "plan_is_a_list": (
        "plan holds no plan",
        "make a new one",
    ),
    "plan_of_another_version": ("plan.json", "version 99"),
    "plan_without_nodes": (
        "plan holds no plan",
        "make a new one",
    ),
    "plan_with_bad_sites": (
        "plan holds no plan",
        "make a new one",
    ),
    "plan_without_arrays": ("arrays.npz is missing", "quark-onnx plan"),
    "plan_with_bad_arrays": ("plan",),
}


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str, world: World) -> None:
    make_plan(world)
    spoil(name)(world)
    refused(PlanError, PLANS[name], world, lambda: Plan.load(world.plan))
    refused_in_shell(PlanError, PLANS[name], world, "apply", world.model, world.plan, "-o", world.output)


def test_plan_of_another_model(world: World) -> None:
    make_plan(world)
    onnx.save(valid_model(TEXT.replace("Relu", "Sigmoid")), world.model)
    prepared = prepare(io.load(world.model), opset=17).model
    says = ("the plan was made for model", "make a new plan")
    refused(PlanError, says, world, lambda: apply(prepared, Plan.load(world.plan)))
    refused_in_shell(PlanError, says, world, "apply", world.model, world.plan, "-o", world.output)


# The process


def test_the_process_ends_with_the_exit_code_and_without_a_traceback(world: World) -> None:
    before = world.files()
    code = "from quark_onnx.cli import main; main()"
    command = [sys.executable, "-c", code, "quantize", "nowhere.onnx", "-o", "out.onnx", "-d", "samples"]
    environment = {**os.environ, "PYTHONPATH": str(Path(quark_onnx.__file__).parents[1])}
    ended = subprocess.run(command, cwd=world.root, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_CODES[ModelError]
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: model nowhere.onnx does not exist")
    assert ended.stderr.count("\n") == 1
    assert world.files() == before
