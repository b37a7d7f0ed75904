"""Outputs of all layers in files: which tensors, under which names, with which numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from simulations import FEEDS, model, ready
from text_models import text_model

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.quantsim.layer_output_utils import LayerOutputUtil

PAIR = "g (float[N,4] a, float[N,4] b) => (float[N,4] y) { s = Add(a, b) y = Relu(s) }"


def written(folder: Path, index: int = 0) -> dict[str, np.ndarray]:
    return {path.stem: np.fromfile(path, np.float32) for path in (folder / f"outputs/layer_outputs_{index}").iterdir()}


def order(folder: Path) -> list[str]:
    names: list[str] = json.loads((folder / "layer_output_name_order.json").read_text())["layer_output_names"]
    return names


def values(source: onnx.ModelProto, tensors: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    loaded = io.load(source)
    return [array.ravel() for array in Runner(io.with_outputs(loaded, tensors), tensors)(feed)]


def test_the_float_model(tmp_path: Path) -> None:
    util = LayerOutputUtil(model(), tmp_path)
    for feed in FEEDS[:2]:
        util.generate_layer_outputs(feed)
    assert order(tmp_path) == ["c", "r", "d", "y"]
    for index, feed in enumerate(FEEDS[:2]):
        found = written(tmp_path, index)
        for name, want in zip(order(tmp_path), values(model(), order(tmp_path), feed), strict=True):
            np.testing.assert_array_equal(found[name], want)
        np.testing.assert_array_equal(
            np.fromfile(tmp_path / f"inputs/input_{index}.raw", np.float32), feed["x"].ravel()
        )


def test_the_simulation_has_the_names_of_the_float_model(tmp_path: Path) -> None:
    sim = ready()
    LayerOutputUtil(sim.model, tmp_path).generate_layer_outputs(FEEDS[0]["x"])
    found = written(tmp_path)
    on = {
        tensor for tensor, quantizer in sim.qc_quantize_op_dict.items() if quantizer.enabled and not quantizer.is_param
    }
    assert found.keys() == on == set(order(tmp_path))
    np.testing.assert_allclose(found["y"], sim.session.run(None, FEEDS[0])[0].ravel(), atol=1e-6)
    for tensor in on:
        steps = found[tensor] / sim.quantizer(tensor).get_encodings()[0].delta
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-2)


def test_several_inputs_are_a_folder(tmp_path: Path) -> None:
    feed = {name: np.full((2, 4), number, np.float32) for name, number in (("a", 1), ("b", -3))}
    LayerOutputUtil(text_model(PAIR, 17), tmp_path).generate_layer_outputs(feed)
    found = {path.name: np.fromfile(path, np.float32) for path in (tmp_path / "inputs/input_0").iterdir()}
    assert found.keys() == {"a.raw", "b.raw"}
    assert (written(tmp_path)["s"] == -2).all()


def test_names_become_names_of_files(tmp_path: Path) -> None:
    source = text_model(PAIR, 17)
    source.graph.node[0].output[0] = source.graph.node[1].input[0] = "/block/Add:0"
    source.graph.node[1].output[0] = source.graph.output[0].name = "_block_Add_0"
    LayerOutputUtil(source, tmp_path).generate_layer_outputs(
        (np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32))
    )
    assert order(tmp_path) == ["_block_Add_0", "_block_Add_0_"]
    assert len(written(tmp_path)) == 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [({"x": np.zeros((1, 3, 8, 8), np.float32)}, DataError, "'x'"), ({"z": FEEDS[0]["x"]}, DataError, "no input 'z'")],
)
def test_what_does_not_fit_writes_nothing(given: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    util = LayerOutputUtil(model(), tmp_path)
    with pytest.raises(error, match=message):
        util.generate_layer_outputs(given)
    assert [path.name for path in tmp_path.iterdir()] == ["layer_output_name_order.json"]


def test_there_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device=0 cannot be had"):
        LayerOutputUtil(model(), tmp_path, device=0)
