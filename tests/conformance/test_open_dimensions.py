"""A batch of −1 or 0, as older exporters write it, is a dynamic one: every way in gives what "N" gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import io
from quark_onnx.graph.view import shape
from quark_onnx.quantsim import QuantizationSimModel, equalize_model

TEXT = """g (float[N,3,6,6] x) => (float[N,4] y) {
    c = Conv <pads=[1,1,1,1]> (x, w) r = Relu (c) d = Conv (r, v) p = GlobalAveragePool (d) y = Flatten (p)
}"""
WEIGHTS = {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 3, 3, seed=1)}
FEEDS = [{"x": normal(1, 3, 6, 6, seed=seed)} for seed in range(6)]
WRITTEN = pytest.mark.parametrize("batch", [-1, 0])


def model(batch: int | None) -> onnx.ModelProto:
    """The model with its batch written as a number, also where a value in between has one; None: as "N"."""
    proto = text_model(TEXT, **WEIGHTS)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("r", 1, [1, 4, 6, 6]))
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        info.type.tensor_type.shape.dim[0].dim_param = "N"
        if batch is not None:
            info.type.tensor_type.shape.dim[0].dim_value = batch
    return proto


def scales(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers of a quantized model: scales, zero points and integers."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def quantized(preset: str, **options: Any) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    config = replace(get_default_config(preset), extra_options=options) if options else get_default_config(preset)
    return lambda proto: ModelQuantizer(config).quantize_model(proto, None, None if options else FEEDS).model


def simulated(proto: onnx.ModelProto) -> onnx.ModelProto:
    sim = QuantizationSimModel(proto, threads=1)
    sim.compute_encodings(FEEDS)
    return sim.to_onnx_qdq()


WAYS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "int8": quantized("S8S8_AAWS"),
    "equalized": quantized("XINT8"),
    "float16": quantized("FP16"),
    "random": quantized("S8S8_AAWS", UseRandomData=True),
    "simulation": simulated,
    "equalize_model": lambda proto: equalize_model(proto, FEEDS),
}


@WRITTEN
@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_numbers(way: str, batch: int) -> None:
    want, got = scales(WAYS[way](model(None))), scales(WAYS[way](model(batch)))
    assert want.keys() == got.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@WRITTEN
def test_what_comes_out_takes_any_batch(batch: int) -> None:
    result = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(model(batch), None, FEEDS)
    assert result.report.samples == len(FEEDS)
    assert result.report.sqnr["y"] > 20
    for info in (*result.model.graph.input, *result.model.graph.output):
        assert not info.type.tensor_type.shape.dim[0].HasField("dim_value")
    [spec] = input_specs(io.load(result.model))
    assert spec.shape == (None, 3, 6, 6)


@WRITTEN
def test_commands(tmp_path: Path, batch: int) -> None:
    file, data, out = tmp_path / "m.onnx", tmp_path / "d.npz", tmp_path / "q.onnx"
    onnx.save(model(batch), file)
    np.savez(data, x=np.concatenate([feed["x"] for feed in FEEDS]))
    done("plan", file, "-o", tmp_path / "plan", "--data", data)
    done("apply", file, tmp_path / "plan", "-o", out)
    assert scales(onnx.load(out))["x_scale"] < 0.1  # 1.0 if nothing was seen
    assert '"samples": 6' in done("compare", file, out, "--data", data, "--json")


def test_shapes_of_initializers_and_fixed_dimensions_stay() -> None:
    proto = text_model("g (float[2,4] x) => (float[2,4] y) { y = Concat <axis=0> (x, e) }", e=np.zeros((0, 4), "f4"))
    loaded = io.load(proto)
    assert loaded.graph.initializers["e"].shape == (0, 4)
    assert input_specs(loaded)[0].shape == (2, 4)
    assert io.to_proto(loaded).graph.input[0] == proto.graph.input[0]


def test_bodies_of_branches() -> None:
    branch = "g{0} () => (float[2,4] r{0}) {{ r{0} = {1} (x) }}"
    text = f"""g (float[2,4] x, bool c) => (float[2,4] y) {{
        y = If (c) <then_branch = {branch.format(1, "Neg")}, else_branch = {branch.format(2, "Abs")}> }}"""
    proto = text_model(text)
    for batch, attribute in zip((-1, 0), proto.graph.node[0].attribute, strict=True):
        attribute.g.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    outputs = [value for graph in io.load(proto).graphs() for value in graph.outputs]
    assert [shape(value) for value in outputs] == [(2, 4), (None, 4), (None, 4)]


NAMED = """g (float[N,3,6,6] x) => (float[Batch,A,B] y) {
    c = Conv <pads=[1,1,1,1]> (x, w) r = Relu (c) f = Flatten <axis=2> (r) y = Reshape (f, s)
}"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dims", [["Batch", "A", "B"], [None, 4, None], [1, "A", 36]])
def test_dimensions_of_outputs_are_called_what_they_were(way: str, dims: list[int | str | None]) -> None:
    """Also where inference knows a number, or another name."""
    proto = text_model(NAMED, w=WEIGHTS["w"], s=np.array([-1, 4, 36]))
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, dims)
    proto.graph.output[0].type.CopyFrom(kind)
    found = WAYS[way](proto).graph.output[0].type
    assert found == kind
