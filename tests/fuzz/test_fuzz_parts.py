"""The random models themselves, what is checked of them, and how failures are made smaller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import checks
import numpy as np
import onnx
import plain_quantizer
import pytest
from checks import Finding, judge
from layer_operators import OPERATORS as LAYERS
from minimiser import minimised
from model_builder import Builder, Rejected, run
from newer_onnxruntime import needs_opset
from random_models import OPERATORS, Case, random_case
from random_settings import Settings, random_settings
from stored_cases import store, stored
from text_models import normal, text_model
from workers import Worker

from quark_onnx import PRESETS, ModelError
from quark_onnx.core.settings.targets import TARGETS

PLAIN = Settings("S8S8_AAWS")


@pytest.fixture
def case() -> Case:
    """Two layers, and what stands between and behind them."""
    model = text_model(
        "g (float[2,4] x, float[2,4] z) => (float[2,4] y, float[2,4] v) "
        "{ a = MatMul(x,w) b = Tanh(a) s = Add(b,z) c = Erf(s) d = Neg(c) y = MatMul(d,w) v = Abs(s) }",
        w=normal(4, 4),
    )
    feeds = [{"x": normal(2, 4, seed=seed), "z": normal(2, 4, seed=seed + 50)} for seed in range(8)]
    return Case(1, model, feeds[:5], feeds[5:])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_recipe_makes_its_operator(name: str) -> None:
    """At the newest operator set, or at an older one that still has it."""
    pattern = name[0].islower() and "." not in name
    for opset in [24, 18, 13] * 5:
        builder = Builder(np.random.default_rng(opset), opset)
        for shape in ((1, 4, 6, 6), (1, 4, 6, 6), (2, 4, 4), (2, 4, 4), (2, 8), (2, 1, 3)):
            builder.values[builder.name("x")] = builder.rng.standard_normal(shape).astype(np.float32)
        with builder.attempt():
            OPERATORS[name].make(builder)
        types = {f"{node.domain}.{node.op_type}".strip(".") for node in builder.nodes}
        if types if pattern else name in types:
            return
    needs_opset(24)
    pytest.fail("it makes none of what it has to work on")


def test_there_are_operators_enough() -> None:
    assert sum(name[0].isupper() for name in OPERATORS) >= 80


def test_a_seed_is_a_model_that_runs() -> None:
    one, again = random_case(7), random_case(7)
    assert one.model.SerializeToString(deterministic=True) == again.model.SerializeToString(deterministic=True)
    for answer, same in zip(run(one.model, one.judging), run(again.model, again.judging), strict=True):
        assert all(np.array_equal(answer[name], same[name]) for name in answer)
    assert one.model.SerializeToString() != random_case(8).model.SerializeToString()


def test_models_differ_in_what_models_differ_in() -> None:
    cases = [random_case(seed) for seed in range(120)]
    assert len({case.model.opset_import[0].version for case in cases}) >= 10
    operators = Counter(name for case in cases for name in case.operators)
    assert {"If", "Loop", "Scan"} & set(operators)
    assert any(case.model.functions for case in cases)
    assert any(dim.dim_param for case in cases for dim in case.model.graph.input[0].type.tensor_type.shape.dim)
    assert any(len({feed[name].shape for feed in case.feeds}) > 1 for case in cases for name in case.feeds[0])
    assert any(t.name in {v.name for v in c.model.graph.input} for c in cases for t in c.model.graph.initializer)
    names = [name for case in cases for node in case.model.graph.node for name in node.output]
    assert any(len(name) > 200 for name in names)
    assert any("\x1b" in name for name in names)
    assert any("_quantized" in name for name in names)


def test_settings_rotate() -> None:
    settings = [random_settings(seed) for seed in range(600)]
    assert {one.preset for one in settings} >= set(PRESETS)
    assert {one.config.target for one in settings} == set(TARGETS)
    assert len({key for one in settings for key in (*one.fields, *one.options)}) > 25


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_weights_of_any_shape(shape: tuple[int, ...]) -> None:
    builder = Builder(np.random.default_rng(0), 17)
    found = {builder.weight(*shape) for _ in range(200)}
    assert len(found) > 50
    assert {builder.at(name).shape for name in found} == {shape}


def test_a_node_that_cannot_run_is_taken_back() -> None:
    builder = Builder(np.random.default_rng(0), 17)
    builder.values["x"] = np.ones((2, 3), np.float32)
    with builder.attempt():
        builder.add("Relu", ["x"])
        builder.add("MatMul", ["x", "x"])
    assert builder.nodes == []
    assert list(builder.values) == ["x"]
    with pytest.raises(Rejected):
        LAYERS["Conv"].make(builder)


def test_nothing_is_wrong_with_a_plain_model(case: Case) -> None:
    assert judge(case, PLAIN) is None


def _broken(case: Case, monkeypatch: pytest.MonkeyPatch, change: object) -> Finding | None:
    """What is found where the file that was written is changed, or the quantizer raises."""
    real = checks._quantized

    def quantized(source: Path, output: Path, case: Case, settings: Settings) -> object:
        if isinstance(change, Exception):
            raise change
        result = real(source, output, case, settings)
        model = onnx.load(output)
        change(model, source)  # type: ignore[operator]
        onnx.save(model, output)
        return result

    monkeypatch.setattr(checks, "_quantized", quantized)
    return judge(case, PLAIN)


def _renamed(model: onnx.ModelProto, source: Path) -> None:
    name = model.graph.output[1].name
    model.graph.node.append(onnx.helper.make_node("Identity", [name], ["other"]))
    model.graph.output[1].name = "other"


def _scaled(model: onnx.ModelProto, source: Path) -> None:
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale") and tensor.data_type == onnx.TensorProto.FLOAT:
            array = np.float32(30) * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _cyclic(model: onnx.ModelProto, source: Path) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def _touched(model: onnx.ModelProto, source: Path) -> None:
    source.write_bytes(source.read_bytes() + b"\x00")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (KeyError("x"), "foreign exception"),
        (ModelError("no reason"), "refused"),
        (_renamed, "interface"),
        (_scaled, "figures"),
        (_cyclic, "invalid file"),
        (_touched, "input changed"),
    ],
)
def test_what_is_broken_is_found(case: Case, monkeypatch: pytest.MonkeyPatch, change: object, kind: str) -> None:
    found = _broken(case, monkeypatch, change)
    assert found is not None
    assert found.kind == kind


def test_a_ruined_output_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_figures", lambda result, smooth: None)
    found = _broken(case, monkeypatch, _scaled)
    assert found is not None
    assert found.kind == "ruined"


@pytest.mark.parametrize("way", [plain_quantizer.plain, lambda model, feeds, _: plain_quantizer._rounded(model, feeds)])
def test_plain_quantizers_keep_what_is_easy(case: Case, way: Callable[..., onnx.ModelProto]) -> None:
    known, found = run(case.model, case.judging), run(way(case.model, case.feeds, False), case.judging)
    assert all(15 < checks.decibels(known, found, name) < 60 for name in known[0])


def test_outputs_behind_a_discrete_operator_are_no_figures() -> None:
    model = text_model("g (float[4] x) => (float[4] y, float[4] z) { a = Round(x) y = Neg(a) z = Neg(x) }")
    assert checks.continuous(model) == ["z"]


def test_a_failure_gets_smaller(case: Case) -> None:
    """Of all nodes remain the two that it takes."""

    def fails(case: Case, settings: Settings) -> bool:
        run(case.model, case.feeds)
        return {"Erf", "Add"} <= {node.op_type for node in case.model.graph.node}

    smallest, settings = minimised(case, replace(PLAIN, options={"AlignConcat": True}), fails)
    assert sorted(node.op_type for node in smallest.model.graph.node) == ["Add", "Erf"]
    assert settings.options == {}
    assert len(smallest.feeds) == len(smallest.judging) == 1


def test_a_case_in_a_folder_is_the_same(case: Case, tmp_path: Path) -> None:
    store(tmp_path / "one", case, PLAIN, Finding("kind", "signature", "text"))
    again, settings = stored(tmp_path / "one")
    assert again.model == case.model
    assert settings == PLAIN
    for one, other in zip([*case.feeds, *case.judging], [*again.feeds, *again.judging], strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_process_that_hangs_is_ended(case: Case) -> None:
    with Worker(seconds=0.01) as worker:
        found = worker((case, PLAIN))
        assert found is not None
        assert found.kind == "hang"
        worker.seconds = 60.0
        assert worker((case, PLAIN)) is None
