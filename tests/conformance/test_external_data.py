"""Models whose weights are in another file: read from there, never written to, and the result is the same."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from killed_runs import killed_everywhere
from onnx_text import parse_model

from quark_onnx import ConfigError, ModelError, ModelQuantizer, QuantizationConfig, Result, get_default_config
from quark_onnx.core.plan_diff import diff
from quark_onnx.graph import io

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3, 8, 8] x) => (float[N, 8, 6, 6] y)
<float[16, 3, 3, 3] w1, float[16] b1, float[8, 16, 1, 1] w2> {
    [first] c = Conv (x, w1, b1)
    [relu] r = Relu (c)
    [second] y = Conv (r, w2)
}"""
FEEDS = [{"x": np.random.default_rng(seed).standard_normal((2, 3, 8, 8), np.float32)} for seed in range(3)]
PRESET = get_default_config("S8S8_AAWS")
EXTERNAL = replace(PRESET, use_external_data_format=True)
FLOAT_EXTERNAL = replace(EXTERNAL, nodes_to_exclude=("second",))
FLOAT_LAYER = replace(PRESET, nodes_to_exclude=("second",))


@pytest.fixture
def proto() -> onnx.ModelProto:
    model = parse_model(TEXT)
    rng = np.random.default_rng(0)
    for info in model.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    del model.graph.value_info[:]
    return model


@pytest.fixture
def source(proto: onnx.ModelProto, tmp_path: Path) -> Path:
    """The model, every weight in `weights.bin` beside it."""
    folder = tmp_path / "source"
    folder.mkdir()
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    path = folder / "model.onnx"
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def quantize(model: Path | onnx.ModelProto, output: Path | None = None, config: QuantizationConfig = PRESET) -> Result:
    return ModelQuantizer(config).quantize_model(model, output, FEEDS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(model: Path | bytes) -> np.ndarray:
    (y,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, FEEDS[0])
    return y


def whole(path: Path) -> bytes:
    """The model with its weights, wherever they are; where they were is forgotten."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("config", [PRESET, EXTERNAL, FLOAT_LAYER], ids=["inline", "external", "float layer"])
def test_result_is_that_of_the_inline_model(
    config: QuantizationConfig, proto: onnx.ModelProto, source: Path, tmp_path: Path
) -> None:
    before = contents(source.parent)
    from_file = quantize(source, tmp_path / "a" / "out.onnx", config)
    in_memory = quantize(proto, tmp_path / "b" / "out.onnx", config)
    assert contents(source.parent) == before
    assert diff(from_file.plan, in_memory.plan) == []
    assert whole(from_file.output) == whole(in_memory.output)
    np.testing.assert_array_equal(run(from_file.output), run(in_memory.output))


@pytest.mark.parametrize("config", [EXTERNAL, FLOAT_EXTERNAL])
def test_external_output(config: QuantizationConfig, proto: onnx.ModelProto, source: Path, tmp_path: Path) -> None:
    """The weights are in the data file and nowhere else, and the numbers are those of one file."""
    result = quantize(source, tmp_path / "out.onnx", config)
    (data,) = tmp_path.glob("out.onnx.*.data")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out.onnx", data.name}
    assert data.name.split(".")[2] == hashlib.sha256(data.read_bytes()).hexdigest()[:12]
    stored = onnx.load(result.output, load_external_data=False)
    places = {entry.value for t in stored.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert places == {data.name}
    inline = quantize(proto, tmp_path / "inline.onnx", replace(config, use_external_data_format=False))
    np.testing.assert_array_equal(run(result.output), run(inline.output))


def test_model_in_memory_needs_no_file(source: Path) -> None:
    """`Result.model` is complete: a float weight has been read from the file."""
    result = quantize(source, config=FLOAT_LAYER)
    session = ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, FEEDS[0])[0]).all()


def test_output_beside_the_source(source: Path) -> None:
    before = contents(source.parent)
    result = quantize(source, source.with_name("int8.onnx"), EXTERNAL)
    after = contents(source.parent)
    (data,) = source.parent.glob("int8.onnx.*.data")
    assert after.keys() - before.keys() == {"int8.onnx", data.name}
    assert {name: after[name] for name in before} == before
    assert np.isfinite(run(result.output)).all()


def test_output_that_is_written_again(proto: onnx.ModelProto, tmp_path: Path) -> None:
    """Over an earlier result; its data go with it."""
    for config, files in ((EXTERNAL, 1), (PRESET, 0), (EXTERNAL, 1), (FLOAT_EXTERNAL, 1), (FLOAT_EXTERNAL, 1)):
        result = quantize(proto, tmp_path / "out.onnx", config)
        assert np.isfinite(run(result.output)).all()
        assert len(list(tmp_path.iterdir())) == 1 + files


@pytest.mark.parametrize("old", [PRESET, EXTERNAL, FLOAT_EXTERNAL], ids=["one file", "the same", "other data"])
@pytest.mark.parametrize("new", [PRESET, EXTERNAL], ids=["to one file", "to two files"])
def test_the_old_model_or_the_new_one_wherever_it_is_killed(
    old: QuantizationConfig,
    new: QuantizationConfig,
    proto: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "out.onnx"
    models = [io.load(quantize(proto, config=config).model) for config in (old, new)]
    externals = [config.use_external_data_format for config in (old, new)]

    def save(which: int) -> None:
        io.save(models[which], path, source=models[0], external=externals[which])

    save(0)
    (before, after), seen = [run(io.to_proto(model).SerializeToString()) for model in models], []
    for _ in killed_everywhere(partial(save, 1), monkeypatch):
        now = run(path)
        seen.append(np.array_equal(now, after))
        assert seen[-1] or np.array_equal(now, before)
        save(0)
    assert seen[0] == np.array_equal(before, after)
    save(1)
    np.testing.assert_array_equal(run(path), after)
    assert len(list(tmp_path.glob("out.onnx*"))) == 1 + externals[1]


def test_only_data_of_the_same_name_are_cleared(proto: onnx.ModelProto, tmp_path: Path) -> None:
    """What a killed run left goes; what looks like it but is of another model, or the user's, stays."""
    gone = tmp_path / "out.onnx.0123456789ab.data"
    kept = [
        "other.onnx.0123456789ab.data",
        "out.onnx.data",
        "out.onnx.weights.data",
        "out.onnx.0123456789AB.data",
    ]
    for name in (gone.name, *kept):
        (tmp_path / name).write_text("x")
    quantize(proto, tmp_path / "out.onnx", PRESET)
    assert {path.name for path in tmp_path.iterdir()} == {"out.onnx", *kept}


@pytest.mark.parametrize("config", [PRESET, EXTERNAL], ids=["one file", "two files"])
def test_output_over_the_data_of_the_source(config: QuantizationConfig, proto: onnx.ModelProto, tmp_path: Path) -> None:
    """The output may not fall on the weights that the model is read from, nor clear them away."""
    source = tmp_path / "model.onnx"
    location = "out.onnx.0123456789ab.data"
    onnx.save(proto, source, save_as_external_data=True, location=location, size_threshold=0)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"holds weights of the input model; choose another output name"):
        quantize(source, tmp_path / location, config)
    assert contents(tmp_path) == before
    quantize(source, tmp_path / "out.onnx", config)
    assert {name: contents(tmp_path)[name] for name in before} == before


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_weights_lie_beside_the_model_and_not_beside_a_link(proto: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near.onnx").symlink_to("real.onnx")
    (tmp_path / "far.onnx").symlink_to("far/real.onnx")
    assert np.isfinite(run(quantize(proto, tmp_path / "near.onnx", EXTERNAL).output)).all()
    assert np.isfinite(run(quantize(proto, tmp_path / "far.onnx", PRESET).output)).all()
    before = contents(tmp_path / "far")
    with pytest.raises(ConfigError, match=r"far.onnx leads to .*real.onnx, and weights lie beside the model"):
        quantize(proto, tmp_path / "far.onnx", EXTERNAL)
    assert contents(tmp_path / "far") == before


VIEWS = {
    "transpose": "t = Transpose <perm = [1, 0]> (w)",
    "flatten": "t = Flatten <axis = 1> (w)",
    "slice": "t = Slice (w, from, to)",
    "twice": "u = Transpose <perm = [1, 0]> (w) t = Transpose <perm = [1, 0]> (u)",
}
"""What folding makes of a weight without copying it: the array is a part of the file, mapped."""


@pytest.mark.parametrize("view", VIEWS)
def test_a_weight_that_is_read_through_a_view_of_the_file(view: str, tmp_path: Path) -> None:
    model = parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[4, 16] x) => (float[4, 16] y, float[4, 16] z)
        <int64[1] from = {{0}}, int64[1] to = {{16}}> {{ {VIEWS[view]} y = MatMul (x, t) z = MatMul (x, w) }}"""
    )
    weight = np.random.default_rng(0).standard_normal((16, 16), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path, feeds = tmp_path / "model.onnx", [{"x": np.random.default_rng(1).standard_normal((4, 16), np.float32)}]
    quantizer = ModelQuantizer(PRESET)
    expected = quantizer.quantize_model(onnx.ModelProto.FromString(model.SerializeToString()), None, feeds)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = quantizer.quantize_model(path, tmp_path / "int8.onnx", feeds)
    assert not diff(expected.plan, found.plan)
    assert found.report.sqnr == expected.report.sqnr


def elsewhere(source: Path, location: str) -> Path:
    """The model, with its weights in a file at this place."""
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    onnx.save(model, source)
    return source


@pytest.mark.parametrize("how", ["above", "absolute", "a link out of the folder"])
def test_weights_outside_the_folder_are_refused(how: str, source: Path, tmp_path: Path) -> None:
    """As onnxruntime refuses them."""
    outside, link = tmp_path / "weights.bin", source.parent / "link.bin"
    (source.parent / "weights.bin").rename(outside)
    link.symlink_to(outside)
    location = {"above": "../weights.bin", "absolute": str(outside)}.get(how, link.name)
    with pytest.raises(ModelError, match=r"outside the folder of the model, .* move the file beside the model"):
        quantize(elsewhere(source, location))


def test_weights_below_the_folder_are_read(source: Path) -> None:
    below = source.parent / "deep" / "weights.bin"
    below.parent.mkdir()
    (source.parent / "weights.bin").rename(below)
    (source.parent / "link.bin").symlink_to(below)
    for location in ("deep/weights.bin", "link.bin"):
        assert quantize(elsewhere(source, location)).report.sqnr
