"""`quant_pre_process`: the prepared model as a file; what is made of it are the same bytes as without that step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import batchnorm, normal, run, text_model

from quark_onnx import ConfigError, ModelError
from quark_onnx.ort import quantize_dynamic, quantize_static
from quark_onnx.ort.preprocess import main
from quark_onnx.ort.shape_inference import FIXED, quant_pre_process

TEXT = """g (T[1,4,8,8] x) => (T[1,4,6,6] y) {
    a = Conv(x, w)  b = BatchNormalization(a, gamma, beta, mean, var)  c = Identity(b)  h = HardSwish(c)  y = Conv(h, v)
}"""
GELU = """g (float[4,8] x) => (float[4,8] y) {
    a = MatMul(x, w)  b = Add(a, c)
    d = Div(b, r)  e = Erf(d)  f = Add(e, one)  p = Mul(b, f)  q = Mul(p, half)  y = MatMul(q, v)
}"""
NUMBERS = {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}


def planes(dtype: Any = np.float32) -> onnx.ModelProto:
    weights = {"w": normal(4, 4, 1, 1, dtype=dtype), "v": normal(4, 4, 3, 3, dtype=dtype), **batchnorm(4, dtype=dtype)}
    return text_model(TEXT.replace("T", np.dtype(dtype).name.replace("float32", "float")), **weights)


def rows() -> onnx.ModelProto:
    return text_model(GELU, w=normal(8, 8), c=normal(8), v=normal(8, 8, seed=1), **NUMBERS)


@pytest.mark.parametrize(("model", "shape"), [(planes(), (1, 4, 8, 8)), (rows(), (4, 8))])
def test_the_result_is_the_same(model: onnx.ModelProto, shape: tuple[int, ...], tmp_path: Path) -> None:
    prepared, samples = tmp_path / "prepared.onnx", [{"x": normal(*shape, seed=seed)} for seed in range(8)]
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    made = onnx.load(prepared)
    assert {node.op_type for node in made.graph.node}.isdisjoint({"BatchNormalization", "Identity"})
    np.testing.assert_allclose(run(made, samples[0])[0], run(model, samples[0])[0], rtol=1e-4, atol=1e-4)
    for source, output in ((model, "direct"), (prepared, "behind")):
        quantize_static(source, tmp_path / output, samples, per_channel=True)
    assert (tmp_path / "direct").read_bytes() == (tmp_path / "behind").read_bytes()


def test_nothing_is_folded_where_that_is_skipped(tmp_path: Path) -> None:
    quant_pre_process(planes(), tmp_path / "p.onnx", True)
    assert "BatchNormalization" in {node.op_type for node in onnx.load(tmp_path / "p.onnx").graph.node}


def test_float16_stays(tmp_path: Path) -> None:
    quant_pre_process(planes(np.float16), tmp_path / "p.onnx")
    made = onnx.load(tmp_path / "p.onnx")
    half = onnx.TensorProto.FLOAT16
    assert made.graph.input[0].type.tensor_type.elem_type == half
    assert {tensor.data_type for tensor in made.graph.initializer} == {half}
    assert "BatchNormalization" not in {node.op_type for node in made.graph.node}


def test_weights_go_beside_the_model(tmp_path: Path) -> None:
    quant_pre_process(planes(), tmp_path / "p.onnx", save_as_external_data=True, all_tensors_to_one_file=True)
    assert len([*tmp_path.iterdir()]) == 2
    quant_pre_process(planes(), tmp_path / "p.onnx")
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("name", FIXED)
def test_parameters_that_choose_nothing(name: str, tmp_path: Path) -> None:
    (taken,), instead = FIXED[name]
    quant_pre_process(planes(), tmp_path / "p.onnx", **{name: taken})
    with pytest.raises(ConfigError, match=f"{name} does not take 7 here: {instead[:20]}"):
        quant_pre_process(planes(), tmp_path / "p.onnx", **{name: 7})


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    quantize_dynamic(rows(), tmp_path / "q.onnx")
    with pytest.raises(ModelError, match="quantized"):
        quant_pre_process(tmp_path / "q.onnx", tmp_path / "p.onnx")


def test_the_command_is_the_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, one, other = tmp_path / "m.onnx", tmp_path / "a" / "p.onnx", tmp_path / "b" / "p.onnx"
    onnx.save(planes(), source)
    paths = ["--input", str(source), "--output", str(one)]
    for flags, skip in ((["--skip_symbolic_shape", "True"], False), (["--skip_optimization"], True)):
        main([*paths, *flags])
        quant_pre_process(source, other, skip_optimization=skip)
        assert one.read_bytes() == other.read_bytes()
    for flags, told in (
        (["--skip_optimization", "maybe"], "must be True or False, not 'maybe'"),
        (["--verbose", "3"], "verbose does not take 3"),
        (["--input", "nowhere.onnx"], "nowhere.onnx does not exist"),
    ):
        with pytest.raises(SystemExit):
            main([*paths, *flags])
        assert told in capsys.readouterr().err


def test_an_older_name(tmp_path: Path) -> None:
    quant_pre_process(input_model_path=rows(), output_model_path=tmp_path / "a.onnx")
    quant_pre_process(rows(), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"output_model_path": None}, "give its name as output_model_path"),
        ({"output_model_path": 3}, "must be the name of a file, not 3"),
        ({"input_model": None}, "reads one model"),
        ({"input_model_path": rows()}, "reads one model"),
        ({"skip_optimisation": True}, "did you mean 'skip_optimization'"),
        ({"skip_optimization": "x"}, "skip_optimization must be True or False"),
        ({"skip_symbolic_shape": "x"}, "skip_symbolic_shape must be True or False"),
        ({"verbose": np.ones(2)}, "verbose does not take array"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        quant_pre_process(**{"input_model": rows(), "output_model_path": tmp_path / "p.onnx", **given})
    assert [*tmp_path.iterdir()] == []
