"""Types and ranks that shape inference does not know, or that the file says wrongly: who is asked, what is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from onnx_text import parse_model
from quantized_models import run
from text_models import normal

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.missing_types import AT_ONCE, ask_run
from quark_onnx.graph import io
from quark_onnx.graph.value_info import unknown
from quark_onnx.graph.view import rank, shape
from quark_onnx.opened_job import open_job
from quark_onnx.quantsim import QuantizationSimModel

SQUARE = normal(8, 8)
FEEDS = [{"x": normal(2, 3, 8, seed=i)} for i in range(4)]

INDICES = "s = Shape (x) nz = NonZero (s) i = Squeeze <axes = [0]> (nz) t = Gather (s, i) "
RESHAPED = (
    f"a = MatMul (x, w) {INDICES} b = Reshape (a, t) [m] c = MatMul (b, w) [r] d = Relu (c) [n] y = MatMul (d, w)"
)
SQUEEZED = (
    "a = MatMul (x, w) e = Unsqueeze <axes = [1]> (a) b = Squeeze (e) [m] c = MatMul (b, w) [n] y = MatMul (c, w)"
)


def model(nodes: str, *domains: str, opset: int = 12, dims: str = "B, T, 8", **infos: list[int]) -> onnx.ModelProto:
    """`infos`: what its value_info says of values."""
    imports = ", ".join([f'"": {opset}', *(f'"{domain}": 1' for domain in domains)])
    made = parse_model(
        f"<ir_version: 8, opset_import: [{imports}]> g (float[{dims}] x) => (float[{dims}] y) {{ {nodes} }}"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(SQUARE, "w"))
    made.graph.value_info.extend(onnx.helper.make_tensor_value_info(name, 1, dims) for name, dims in infos.items())
    return made


def preset(name: str = "S8S8_AAWS") -> QuantizationConfig:
    return Config(get_default_config(name)).global_quant_config


def quantized(proto: onnx.ModelProto, name: str = "S8S8_AAWS", feeds: Any = FEEDS) -> Any:
    return ModelQuantizer(preset(name)).quantize_model(proto, None, feeds)


@pytest.mark.parametrize(
    ("node", "domains", "opset"),
    [
        ("b = com.microsoft.Trilu (a)", ["com.microsoft"], 12),
        ("b = com.microsoft.Trilu <upper = 0> (a)", ["com.microsoft"], 12),
        ("b = com.microsoft.Trilu (a)", ["com.microsoft"], 17),
    ],
)
def test_the_session_knows_types_that_onnx_does_not(node: str, domains: list[str], opset: int) -> None:
    """No data are needed for it."""
    job = open_job(model(f"a = MatMul (x, w) {node} [m] y = MatMul (b, w)", *domains, opset=opset), preset())
    assert "m" in job.sites.nodes
    assert job.sites.remarks["*"].startswith("onnxruntime told the types of 'b'")


@pytest.mark.parametrize("node", ["Gelu (a)", "FusedMatMul (a, w)", "QuickGelu (a)"])
def test_what_becomes_an_operator_of_onnx_is_known_without_it(node: str) -> None:
    job = open_job(
        model(f"a = MatMul (x, w) b = com.microsoft.{node} [m] y = MatMul (b, w)", "com.microsoft"), preset()
    )
    assert "m" in job.sites.nodes
    assert "onnxruntime told" not in job.sites.remarks["*"]


def test_group_normalization_is_typed_by_the_session() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1,8,4,4] x) => (float[1,8,4,4] y) {
        a = GroupNormalization <num_groups = 2> (x, s, b) [n] y = Conv (a, k) }"""
    proto = parse_model(text)
    for name, array in {"s": np.ones(8, np.float32), "b": normal(8), "k": normal(8, 8, 1, 1)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert "n" in open_job(proto, preset()).sites.nodes


def test_operators_that_onnxruntime_does_not_know_stay_unknown() -> None:
    job = open_job(model("a = MatMul (x, w) b = foo.Own (a) [m] y = MatMul (b, w)", "foo"), preset())
    assert job.sites.notes["m"] == "the type of 'b' is unknown"
    assert "onnxruntime" not in job.sites.remarks["*"]


@pytest.mark.parametrize("nodes", [RESHAPED, SQUEEZED])
@pytest.mark.parametrize("name", ["S8S8_AAWS", "XINT8", "UINT8_DYNAMIC_QUANT"])
def test_one_run_of_the_data_tells_ranks(nodes: str, name: str) -> None:
    proto = model(nodes)
    alone = open_job(proto, preset(name))
    assert "rank of an input is unknown" in alone.sites.notes["m"]
    result = quantized(proto, name)
    assert {"m", "n"} <= result.plan.nodes.keys()
    assert "those of the first calibration sample" in result.report.remarks["*"]
    assert result.plan.model == alone.sites.model  # the prepared model is the same without data
    assert result.report.sqnr["y"] > 25


def test_dimensions_that_one_run_shows_are_not_taken() -> None:
    job = open_job(model(RESHAPED), preset())
    told, new, stale = ask_run(job.prepared, FEEDS[0])
    values = {value.name: value for node in told.graph for value in node.outputs}
    assert [shape(values[name]) for name in "bd"] == [(None, None, None), (None, None, 8)]
    assert {*new} >= {"b", "c", "d"}
    assert not stale
    assert not unknown(told.graph)
    assert (
        rank(next(v for n in job.prepared.graph for v in n.outputs if v.name == "b")) is None
    )  # the job's is not touched


def test_many_unknown_tensors_take_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Squeeze hides the rank anew, and only the first AT_ONCE are asked at once."""
    chain = "a0 = Relu (x)"
    for k in range(2 * AT_ONCE):
        chain += f" e{k} = Unsqueeze <axes = [0]> (a{k}) b{k} = Squeeze (e{k}) a{k + 1} = Relu (b{k})"
    job = open_job(model(f"{chain} [m] y = MatMul (a{2 * AT_ONCE}, w)"), preset())
    runs = []
    runner = ask_run.__globals__["Runner"]
    monkeypatch.setitem(ask_run.__globals__, "Runner", lambda *args, **kw: runs.append(args[1]) or runner(*args, **kw))
    told, _, _ = ask_run(job.prepared, FEEDS[0])
    assert not unknown(told.graph)
    assert max(map(len, runs)) == AT_ONCE
    assert len(runs) <= 3 * 2


@pytest.mark.parametrize("name", ["S8S8_AAWS", "UINT8_DYNAMIC_QUANT"])
def test_a_plan_made_with_ranks_of_the_data_is_applied_without_data(name: str, tmp_path: Path) -> None:
    proto, folder = model(RESHAPED), tmp_path / "plan"
    path, data = tmp_path / "m.onnx", tmp_path / "data"
    onnx.save(proto, path)
    data.mkdir()
    for i, feed in enumerate(FEEDS):
        np.savez(data / f"{i}.npz", **feed)
    done("plan", path, "-o", folder, "--data", data, "--preset", name)
    done("apply", path, folder, "-o", tmp_path / "q.onnx")
    made = quantized(proto, name)
    (a,), (b,) = (run(io.load(source), FEEDS[0]) for source in (tmp_path / "q.onnx", made.model))
    np.testing.assert_array_equal(a, b)


def test_without_data_inspect_tells_what_would_help(tmp_path: Path) -> None:
    onnx.save(model(RESHAPED), tmp_path / "m.onnx")
    assert "a run on calibration data tells it" in done("inspect", tmp_path / "m.onnx", "--json")


def test_data_are_opened_for_a_model_that_has_no_site_without_them() -> None:
    proto = model(f"{INDICES} [move] b = Reshape (x, t) [m] y = MatMul (b, w)")
    config = replace(preset(), nodes_to_exclude=("move",))
    job = open_job(proto, config)
    assert not job.sites.sites
    assert job.data(FEEDS, None) is not None
    assert job.data(None, None) is None
    assert "m" in ModelQuantizer(config).quantize_model(proto, None, FEEDS).plan.nodes


SAID = {
    "another resolution": {"b": [2, 6, 8]},
    "another rank": {"b": [6, 8], "c": [6, 8]},
    "a batch of its own": {"b": [1, 3, 8]},
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("node", ["Reshape (a, t)", "Relu (a)"])
def test_value_info_that_contradicts_what_runs_is_dropped(name: str, node: str) -> None:
    """Behind a Relu inference shows it, and behind a Reshape to a computed shape the data do."""
    nodes = RESHAPED.replace("Reshape (a, t)", node)
    stale, right = quantized(model(nodes, **SAID[name])), quantized(model(nodes))
    assert "what the model's value_info says of" in stale.report.remarks["*"]
    assert stale.plan.nodes == right.plan.nodes
    assert stale.model.graph.node == right.model.graph.node
    assert stale.report.sqnr == right.report.sqnr


def test_a_batch_that_only_value_info_fixes_is_not_folded_into_the_model() -> None:
    """As of a model that was exported with a batch of 1, and whose inputs were made dynamic later."""
    proto = model("a = Relu (x) s = Shape (a) b = MatMul (a, w) y = Reshape (b, s)", a=[1, 3, 8])
    prepared = open_job(proto, preset()).prepared
    (y,) = run(prepared, FEEDS[0])
    assert y.shape == (2, 3, 8)


def test_value_info_that_is_right_is_kept_and_not_remarked() -> None:
    """It may say more than inference, which then needs no data."""
    proto = model(RESHAPED, dims="2, 3, 8", b=[2, 3, 8], c=[2, 3, 8])
    job = open_job(proto, preset())
    assert {"m", "n"} <= job.sites.nodes.keys()
    result = quantized(proto)
    assert "value_info" not in result.report.remarks["*"]
    assert "first calibration sample" not in result.report.remarks["*"]


def test_a_value_info_of_another_type_is_dropped() -> None:
    proto = model("a = MatMul (x, w) b = Relu (a) [m] y = MatMul (b, w)")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.INT64, ["B", "T", 8]))
    assert "m" in open_job(proto, preset()).sites.nodes


def test_conversions_reach_behind_operators_that_onnx_cannot_type() -> None:
    proto = model("a = MatMul (x, w) b = com.microsoft.Gelu (a) [m] y = MatMul (b, w)", "com.microsoft")
    made = quantized(proto, "FP16")
    assert "m" in made.plan.nodes
    assert "onnxruntime told" in made.report.remarks["*"]


def test_a_simulation_quantizes_behind_operators_that_onnx_cannot_type() -> None:
    proto = model("a = MatMul (x, w) b = com.microsoft.Gelu (a) [m] y = MatMul (b, w)", "com.microsoft")
    sim = QuantizationSimModel(proto)
    assert sim.quantizer("y").enabled
