"""Models that count as large: their weights stay in files, nothing is computed in another way, and no file is left."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig, Result, get_default_config
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io, large_weights
from quark_onnx.numerics.equalization import Link, equalize
from quark_onnx.stages.equalize import rescale

TEXT = """g (float[N, 24] x) => (float[N, 8] y) {
    [first] a = MatMul (x, w1)
    b = Relu (a)
    [second] c = MatMul (b, w2)
    d = Relu (c)
    [third] y = MatMul (d, w3)
}"""
WEIGHTS = {"w1": normal(24, 32), "w2": normal(32, 40), "w3": normal(40, 8)}
FEEDS = [{"x": normal(4, 24, seed=seed)} for seed in range(4)]
PRESET = get_default_config("S8S8_AAWS")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The model, its weights in a file beside it; channels of different sizes, so that there is much to equalize."""
    uneven = {n: array * np.float32([1, 4, 16, 64, 256])[np.arange(array.shape[1]) % 5] for n, array in WEIGHTS.items()}
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "model.onnx"
    onnx.save(text_model(TEXT, **uneven), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, which all models now have."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(io, "EXTERNAL_ABOVE", 1000)
    monkeypatch.setattr(large_weights, "LOOSE", 100)
    return tmp_path / "temporary"


def quantize(source: Path, output: Path, config: QuantizationConfig = PRESET) -> Result:
    return ModelQuantizer(config).quantize_model(source, output, FEEDS)


def answer(path: Path) -> np.ndarray:
    (y,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, FEEDS[0])
    return y


@pytest.mark.parametrize(
    "config",
    [
        PRESET,
        replace(PRESET, include_cle=False),
        replace(PRESET, nodes_to_exclude=("second",)),
        get_default_config("FP16"),
    ],
    ids=["equalized", "plain", "a float layer", "float16"],
)
def test_the_result_is_that_of_a_small_model(
    config: QuantizationConfig, source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    small = quantize(source, tmp_path / "small" / "int8.onnx", config)
    temporary = request.getfixturevalue("temporary")
    result = quantize(source, tmp_path / "large" / "int8.onnx", config)
    assert result.plan.model == small.plan.model  # the fingerprint of the equalized weights
    assert result.plan.factors.keys() == small.plan.factors.keys()
    assert bool(small.plan.factors) == (config.include_cle and config.conversion is None)
    for name, factor in small.plan.factors.items():
        np.testing.assert_array_equal(result.plan.factors[name], factor)
    for group, q in small.plan.qparams.items():
        np.testing.assert_allclose(result.plan.qparams[group].scale, q.scale, rtol=1e-5)
    assert result.report.fused == small.report.fused
    np.testing.assert_allclose(
        answer(tmp_path / "large" / "int8.onnx"), answer(tmp_path / "small" / "int8.onnx"), rtol=1e-3, atol=1e-3
    )
    result.plan.save(tmp_path / "plan")
    del result
    gc.collect()
    assert list(temporary.iterdir()) == []


def given_as(kind: str, source: Path, tmp_path: Path) -> str | Path | onnx.ModelProto:
    """The model in another form than with its weights beside it."""
    whole = onnx.load(source)
    if kind == "protobuf":
        return whole
    if kind == "file":
        onnx.save(whole, tmp_path / "whole.onnx")
        return tmp_path / "whole.onnx"
    for node in (whole.graph.node[0], whole.graph.node[4]):  # weights that are constants of nodes
        (weight,) = (w for w in whole.graph.initializer if w.name == node.input[1])
        whole.graph.node.insert(0, onnx.helper.make_node("Constant", [], [weight.name], value=weight))
        whole.graph.initializer.remove(weight)
    return whole


@pytest.mark.parametrize("kind", ["protobuf", "file", "constants"])
@pytest.mark.parametrize("preset", ["S8S8_AAWS", "INT8_PROTECTED", "S8S8_AAWS_ADAROUND"])
def test_a_heavy_model_stays_one_file(
    kind: str, preset: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are in a temporary file while it is worked on, and the result is that of any other model."""
    given, config = given_as(kind, source, tmp_path), get_default_config(preset)
    if config.include_fast_ft:
        config = replace(config, extra_options={**config.extra_options, "FastFinetune": {"NumIterations": 20}})
    light = ModelQuantizer(config).quantize_model(given, tmp_path / "light.onnx", FEEDS)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(io, "FILES_ABOVE", 1000)
    moved: list[str] = []
    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: moved.append(mkdtemp(*a, **k)) or moved[-1])
    heavy = ModelQuantizer(config).quantize_model(given, tmp_path / "heavy" / "int8.onnx", FEEDS)
    assert moved
    assert [path.name for path in (tmp_path / "heavy").iterdir()] == ["int8.onnx"]
    assert heavy.plan.model == light.plan.model
    assert heavy.report.fused == light.report.fused
    for name, one in light.plan.rounded.items():
        np.testing.assert_array_equal(heavy.plan.rounded[name].codes, one.codes)
    np.testing.assert_allclose(
        answer(tmp_path / "heavy" / "int8.onnx"), answer(tmp_path / "light.onnx"), rtol=1e-3, atol=1e-3
    )
    del heavy
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_heavy_model_whose_quantized_one_is_light(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in a temporary file all the same, with what stayed float: there the ledger finds its weights."""
    monkeypatch.setattr(io, "FILES_ABOVE", 6000)
    monkeypatch.setattr(large_weights, "LOOSE", 100)
    monkeypatch.setattr(large_weights, "SMALL", 100)
    config = replace(get_default_config("S8S8_AAWS"), nodes_to_exclude=("third",))
    found = ModelQuantizer(config).quantize_model(given_as("protobuf", source, source.parent), None, FEEDS)
    assert found.report.bytes["quantized"] < 6000 < found.report.bytes["float"]
    assert found.report.ledger[0].certificate is not None


def test_weights_in_one_folder_stay_where_they_are(source: Path, temporary: Path) -> None:
    model = io.load(source)
    assert large_weights.settled(model)
    io.settle(model)
    assert io.runnable(model).folder == source.parent
    assert not large_weights.moved(model)
    assert list(temporary.iterdir()) == []


def test_weights_in_memory_are_moved(source: Path, temporary: Path) -> None:
    """Also those that nothing is changed in: onnxruntime looks in one folder only."""
    model = io.load(source)
    before = io.fingerprint(model)
    model.graph.initializers["w2"].const_value = ir.tensor(model.graph.initializers["w2"].const_value.numpy() + 1)
    changed = io.fingerprint(model)
    assert not large_weights.settled(model)
    io.settle(model)
    assert large_weights.settled(model)
    assert large_weights.moved(model)
    assert before != changed == io.fingerprint(model)
    assert large_weights.home(model) == next(temporary.iterdir())
    expected = Runner(model)(FEEDS[0])[0]
    copy = io.copy(model)
    del model
    gc.collect()
    np.testing.assert_array_equal(Runner(copy)(FEEDS[0])[0], expected)  # the copy holds on to the file
    del copy
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_small_weights_leave_the_protobuf(source: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is part of it would keep all of it in memory, in constants of nodes as well."""
    monkeypatch.setattr(large_weights, "SMALL", 4000)
    model = io.load(given_as("constants", source, source.parent))

    def tensors() -> list[ir.TensorProtocol]:
        constants = [node.attributes["value"].value for node in model.graph if node.op_type == "Constant"]
        return [*constants, *(value.const_value for value in model.graph.initializers.values())]

    before = [tensor.numpy() for tensor in tensors()]
    assert all(isinstance(tensor, ir.TensorProtoTensor) for tensor in tensors())
    large_weights.settle(model)
    assert not any(isinstance(tensor, ir.TensorProtoTensor) for tensor in tensors())
    for tensor, array in zip(tensors(), before, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_small_models_have_no_files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("a small model went to a file"))
    model = io.load(source)
    io.settle(model)
    assert io.runnable(model).folder is None
    rescale(model, {"w1": np.float32([2])}, {})


def test_rescaled_weights_are_made_one_after_the_other(source: Path, temporary: Path) -> None:
    factors = {"w1": normal(1, 32), "w3": normal(40, 8)}
    scaled = rescale(io.load(source), factors, {"w3": normal(40, 8, seed=1)})
    arrays = {name: value.const_value.numpy() for name, value in io.load(source).graph.initializers.items()}
    found = {name: value.const_value for name, value in scaled.graph.initializers.items()}
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in found.values())
    np.testing.assert_array_equal(found["w1"].numpy(), arrays["w1"] * factors["w1"])
    np.testing.assert_array_equal(found["w2"].numpy(), arrays["w2"])
    np.testing.assert_array_equal(found["w3"].numpy(), arrays["w3"] * factors["w3"] + normal(40, 8, seed=1))


def test_spilled_arrays(temporary: Path) -> None:
    array = normal(30, 20)
    for given in (array, array.T, array[::2, ::3]):
        found = large_weights.spilled(given)
        np.testing.assert_array_equal(found, given)
        assert isinstance(found, np.memmap)
        large_weights.let_go(found)
        np.testing.assert_array_equal(found, given)
        assert list(temporary.iterdir()) == []  # the file has no name
    assert large_weights.spilled(array[0, :3]) is not None
    assert not isinstance(large_weights.spilled(array[0, :3]), np.memmap)


def test_what_is_let_go_of_is_read_again(source: Path) -> None:
    model = io.load(source)
    before = io.fingerprint(model)
    io.let_go(model)
    assert io.fingerprint(model) == before
    for nothing in (None, normal(3), ir.tensor(normal(3))):
        large_weights.let_go(nothing)


@pytest.mark.parametrize("part", [1, 100, 1 << 20])
def test_sizes_are_scaled_a_few_rows_at_a_time(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same factors for any number of them."""
    sizes = [abs(normal(12, 7)), abs(normal(5, 12, seed=1)), abs(normal(3, 5, seed=2))]
    links = [Link((i,), (i + 1,), np.full(n, np.inf), np.zeros(n, bool)) for i, n in enumerate((12, 5))]
    expected = equalize(sizes, links)
    monkeypatch.setattr("quark_onnx.numerics.equalization.PART", part)
    for total, other in zip(equalize(sizes, links), expected, strict=True):
        np.testing.assert_array_equal(total, other)
