"""Automatic mixed precision: which tensors a layer takes with it, and which layers move."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import Feed, graph, run, settings
from text_models import normal, text_model
from tuning_cases import draw

from quark_onnx import ModelQuantizer, Result
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.core.settings.mixed_precision import METRICS
from quark_onnx.engine.compare import compare
from quark_onnx.graph import io
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.stages.mixed_precision import layer_search
from quark_onnx.stages.mixed_precision.type_layout import Layout, layout_of
from quark_onnx.stages.place import place

NARROW = {"activation_type": "int8", "weight_type": "int8"}
WIDE = {"activation_type": "int16", "weight_type": "int16"}
BOTH = {"activation_type": "int16", "weight_type": "int16", "include_auto_mp": True, "include_cle": False}

CHAIN = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
    [a] s = Conv <pads = [1, 1, 1, 1]> (x, wa, ba) [r] t = Relu (s)
    [b] u = Conv <pads = [1, 1, 1, 1]> (t, wb, bb)
    [c] y = Conv (u, wc, bc)
}"""


def chain(outlier: float = 1.0) -> onnx.ModelProto:
    """Three layers; a weight of the second one, whose input is always 0, may be so large that 8 bits leave no other."""
    arrays = {"wa": normal(4, 4, 3, 3) / 6, "wb": normal(4, 4, 3, 3, seed=1) / 6, "wc": normal(4, 4, 1, 1) / 2}
    arrays |= {f"b{layer}": normal(4, seed=i) / 4 for i, layer in enumerate("abc")}
    arrays["wa"][0], arrays["ba"][0] = 0, 0
    arrays["wb"][0, 0, 0, 0] *= outlier
    return text_model(CHAIN, 21, ir_version=10, **arrays)


FEEDS = draw((1, 4, 6, 6), 8)


def quantize(
    model: onnx.ModelProto, feeds: Iterable[Feed] = FEEDS, resume: Plan | None = None, **fields: Any
) -> Result:
    return ModelQuantizer(settings(**fields)).quantize_model(model, None, list(feeds), resume=resume)


def mixed(model: onnx.ModelProto, feeds: Iterable[Feed] = FEEDS, **asked: Any) -> Result:
    """16 bits, and 8 where these settings allow it."""
    return quantize(model, feeds, **BOTH, AutoMixprecision=asked)


def moved(result: Result) -> set[str]:
    return {record.node for record in result.report.mixed if record.moved}


def narrow(plan: Plan) -> set[str]:
    """Activations and weights of 8 bits."""
    return {tensor for tensor, site in plan.sites.items() if site.format.bits == 8}


# which tensors


def layout(text: str, narrows: bool = True, **arrays: Any) -> Layout:
    model = graph(text, 21, **arrays)
    plans = [place(model, settings(**types)) for types in (WIDE, NARROW)]
    base, other = plans if narrows else reversed(plans)
    return layout_of(model, base, other, narrows=narrows)


CONVS = "(float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w1, float[2,2,1,1] w2, float[2,2,1,1] w3> "
IN_A_ROW = CONVS + "{ [a] s = Conv (x, w1) [b] t = Conv (s, w2) [c] y = Conv (t, w3) }"
SUMS = CONVS + "{ [a] s = Conv (x, w1) [m] t = Add (s, x) [n] u = Add (t, t) [b] y = Conv (u, w2) }"
POOL = CONVS + "{ [a] s = Conv (x, w1) [p] t = MaxPool <kernel_shape = [1, 1]> (s) [b] y = Conv (t, w2) }"
SHARED = "(float[2,2] x) => (float[2,2] y) <float[2,2] w> { [a] s = MatMul (x, w) [b] y = MatMul (s, w) }"
SPLIT = CONVS.replace("w3>", "w3, float[2,2,1,1] w4>")
SPLIT += "{ [a] s = Conv (x, w1) [b] t = Conv (s, w2) [c] u = Conv (s, w3) [m] v = Add (t, u) [d] y = Conv (v, w4) }"


@pytest.mark.parametrize("narrows", [True, False])
@pytest.mark.parametrize(
    ("text", "layers", "tensors"),
    [
        (IN_A_ROW, "", ""),
        (IN_A_ROW, "b", "w2"),  # the tensors on both sides belong to layers of 16 bits, too
        (IN_A_ROW, "a", "x w1"),
        (IN_A_ROW, "ab", "x w1 s w2"),
        (IN_A_ROW, "abc", "x w1 s w2 t w3 y"),
        (SUMS, "a", "x w1 s"),
        (SUMS, "b", "w2 u y"),
        (SUMS, "ab", "x w1 s t u w2 y"),  # t touches no layer, and goes with both
        (POOL, "a", "x w1"),  # s and t share a scale
        (POOL, "ab", "x w1 s t w2 y"),
        (SHARED, "a", "x"),
        (SHARED, "ab", "x w s"),
        (SPLIT, "ab", "x w1 w2 t"),
        (SPLIT, "abc", "x w1 s w2 w3 t u"),
        (SPLIT, "abcd", "x w1 s w2 w3 t u v w4 y"),
    ],
)
def test_tensors_are_narrow_when_all_their_layers_are(text: str, layers: str, tensors: str, *, narrows: bool) -> None:
    assert narrow(layout(text, narrows).plan(set(layers))) == set(tensors.split())


@pytest.mark.parametrize("narrows", [True, False])
@pytest.mark.parametrize(
    ("text", "layer", "tensors"),
    [(IN_A_ROW, "b", "s w2 t"), (SUMS, "b", "u w2 y"), (POOL, "b", "s t w2 y"), (SHARED, "a", "x w s")],
)
def test_a_layer_is_judged_with_its_input_and_output(text: str, layer: str, tensors: str, *, narrows: bool) -> None:
    found = layout(text, narrows)
    assert found.moved(layer, found.plan(found.layers), found.plan(())) == set(tensors.split())


@pytest.mark.parametrize(
    ("types", "tensors"), [({"weight_type": "int8"}, "s t"), ({"activation_type": "int8"}, "w2"), (NARROW, "")]
)
def test_a_layer_is_not_judged_by_what_has_as_many_bits_in_any_case(types: dict[str, str], tensors: str) -> None:
    model = graph(IN_A_ROW, 21)
    wide, other = (place(model, settings(**fields)) for fields in ({**WIDE, **types}, NARROW))
    found = layout_of(model, wide, other, narrows=True)
    assert found.moved("b", found.plan(found.layers), found.plan(())) == set(tensors.split())


def test_all_or_none_is_one_of_the_two_placements() -> None:
    for text in (IN_A_ROW, SUMS, POOL, SHARED, SPLIT):
        found = layout(text)
        assert found.plan(()).sites == found.base.sites
        assert found.plan(found.layers).sites == found.other.sites
        assert found.plan(found.layers).remarks == {**found.base.remarks, **found.other.remarks}


def test_what_no_layer_is_near_keeps_its_type() -> None:
    """On a target that quantizes it at all: on the CPU it stays float."""
    text = "(float[2] x, float[1,2,2,2] z) => (float[2] y, float[1,2,2,2] v) <float[2,2,1,1] w> "
    model = graph(text + "{ [m] t = Add (x, x) [n] y = Mul (t, x) [a] v = Conv (z, w) }", 21)
    wide, other = (place(model, settings(target="qnn", activation_type=kind)) for kind in ("uint16", "uint8"))
    assert {"m", "n"} <= wide.nodes.keys()
    found = layout_of(model, wide, other, narrows=True)
    assert set(found.layers) == {"a"}
    assert narrow(found.plan({"a"})) == {"z", "w", "v"}


def test_biases_stay_with_their_accumulator() -> None:
    found = layout(CONVS.replace("w3>", "w3, float[2] b>") + "{ [a] y = Conv (x, w1, b) }")
    assert narrow(found.plan({"a"})) == {"x", "w1", "y"}
    assert found.plan({"a"}).sites["b"] == found.base.sites["b"]


# which layers


def test_where_8_bits_are_enough_all_layers_get_them() -> None:
    model = chain()
    found = mixed(model, MetricThreshold=-100.0)
    assert moved(found) == {"a", "b", "c"}
    assert diff(found.plan, quantize(model, **NARROW, include_cle=False).plan) == []


def test_where_nothing_is_good_enough_no_layer_moves_and_the_user_is_told() -> None:
    model = chain()
    found, plain = mixed(model, MetricThreshold=500.0), quantize(model, **WIDE, include_cle=False)
    assert moved(found) == set()
    assert diff(found.plan, plain.plan) == []
    assert any("MetricThreshold asks for 500" in warning for warning in found.report.warnings)


def test_without_a_threshold_layers_are_ranked_and_stay() -> None:
    model = chain(outlier=300)
    found = mixed(model, MetricThreshold=None)
    assert diff(found.plan, quantize(model, **WIDE, include_cle=False).plan) == []
    assert moved(found) == set()
    assert found.report.mixed[-1].node == "b"
    scores = [record.score for record in found.report.mixed]
    assert scores == sorted(scores, reverse=True)
    assert found.report.warnings == ()


@pytest.mark.parametrize(("outlier", "layers"), [(300, {"a", "c"}), (1, {"a", "b", "c"})])
def test_a_layer_that_8_bits_ruin_keeps_16(outlier: float, layers: set[str]) -> None:
    found = mixed(chain(outlier), MetricThreshold=20.0)
    assert moved(found) == layers
    assert found.plan.sites["wb"].format.bits == (16 if "b" not in layers else 8)
    assert found.plan.sites["wa"].format.bits == 8
    assert min(found.report.sqnr.values()) > 19


@pytest.mark.parametrize("threshold", [-100.0, 20.0, 500.0])
@pytest.mark.parametrize("outlier", [1, 300])
def test_both_directions_end_at_the_same_model(threshold: float, outlier: float) -> None:
    model, asked = chain(outlier), {"MetricThreshold": threshold}
    down = mixed(model, **asked)
    fields = {**NARROW, "include_auto_mp": True, "include_cle": False}
    up = quantize(model, **fields, AutoMixprecision={**asked, "TargetLayerConfig": WIDE})
    assert diff(up.plan, down.plan) == []
    assert moved(up) == {"a", "b", "c"} - moved(down)
    assert [(r.node, r.score) for r in up.report.mixed] == [(r.node, r.score) for r in down.report.mixed]
    assert up.report.warnings == down.report.warnings


def test_weights_alone_may_move() -> None:
    found = mixed(
        chain(), MetricThreshold=-100.0, TargetLayerConfig={"activation_type": "int16", "weight_type": "int4"}
    )
    bits = {tensor: site.format.bits for tensor, site in found.plan.sites.items() if site.role != "bias"}
    assert bits == {"x": 16, "t": 16, "u": 16, "y": 16, "wa": 4, "wb": 4, "wc": 4}


def test_the_default_threshold_keeps_the_outputs_good() -> None:
    found = mixed(chain(outlier=300))
    assert "b" not in moved(found)
    assert min(found.report.sqnr.values()) > 24.9
    assert found.report.warnings == ()


def test_wider_types_that_do_not_help_are_told() -> None:
    options = {"TargetLayerConfig": {"activation_type": "int16"}}
    fields = {**NARROW, "include_auto_mp": True, "include_cle": False}
    found = quantize(chain(outlier=300), **fields, AutoMixprecision=options)
    assert any("had to do" in warning for warning in found.report.warnings)


@pytest.mark.parametrize(
    ("asked", "layers"),
    [
        ({"ExcludeLayers": ["b"]}, "ac"),
        ({"ExcludeLayers": ["^[ab]"]}, "c"),
        ({"IncludeLayers": ["b"]}, "b"),
        ({"IncludeLayers": ["*"], "ExcludeLayers": ["c"]}, "ab"),
        ({"TargetOpType": ["Gemm"]}, ""),
    ],
)
@pytest.mark.parametrize("narrows", [True, False])
def test_layers_by_name(asked: dict[str, Any], layers: str, *, narrows: bool) -> None:
    if narrows:
        found = mixed(chain(), MetricThreshold=-100.0, **asked)
    else:
        fields = {**NARROW, "include_auto_mp": True, "include_cle": False}
        goal = {"MetricThreshold": 500.0, "TargetLayerConfig": WIDE}
        found = quantize(chain(), **fields, AutoMixprecision={**goal, **asked})
    assert moved(found) == {record.node for record in found.report.mixed} == set(layers)
    moved_bits = 8 if narrows else 16
    assert {n for n in "abc" if found.plan.sites[f"w{n}"].format.bits == moved_bits} == set(layers)
    assert any("no quantized layer can move" in w for w in found.report.warnings) == (not layers)


def test_float_layers_are_no_candidates() -> None:
    found = quantize(chain(), **BOTH, nodes_to_exclude=["b"], AutoMixprecision={"MetricThreshold": -100.0})
    assert moved(found) == {"a", "c"}
    assert "wb" not in found.plan.sites


@pytest.mark.parametrize("key", ["IncludeLayers", "ExcludeLayers"])
@pytest.mark.parametrize(
    ("name", "hint"), [("conv9*", "matches no quantized layer"), ("^(", "not a regular expression")]
)
def test_names_that_match_nothing(key: str, name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"AutoMixprecision {key}: .*{hint}"):
        mixed(chain(), **{key: [name]})


# how it is judged


TWO = """g (float[1,4] x) => (float[1,3] y, float[1,3] z, int64[1] c) {
    [a] y = Gemm (x, wa, b) [b] z = Gemm (x, wb, b) [d] c = ArgMax <axis = 1, keepdims = 0> (y)
}"""


def two_outputs() -> onnx.ModelProto:
    """y bears 8 bits well, z does not; c is no number."""
    arrays = {"wa": normal(4, 3), "wb": normal(4, 3, seed=1), "b": np.zeros(3, np.float32)}
    arrays["wb"][0, 0] = 3000
    feeds_zero = {"wa": arrays["wa"], "wb": arrays["wb"], "b": arrays["b"]}
    return text_model(TWO, 21, ir_version=10, **feeds_zero)


def silent() -> list[Feed]:
    """Samples whose first element, that has the huge weight, is tiny."""
    return [{"x": feed["x"] * np.array([1e-4, 1, 1, 1], np.float32)} for feed in draw((1, 4), 8)]


@pytest.mark.parametrize(("index", "layers"), [(None, {"a"}), (0, {"a", "b"}), (1, {"a"})])
def test_the_worst_output_counts_or_the_one_that_is_named(index: int | None, layers: set[str]) -> None:
    found = mixed(two_outputs(), silent(), MetricThreshold=20.0, MetricOutputIndex=index)
    assert moved(found) == layers


KL = {"MetricDefault": "kl", "MetricThreshold": 0.1}


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"MetricOutputIndex": 2} | KL, "'c' is none"), ({"MetricOutputIndex": 3}, "the model has 3 outputs")],
)
def test_outputs_that_cannot_be_judged(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixed(two_outputs(), silent(), **asked)


EASY = {"sqnr": 20.0, "psnr": 30.0, "cosine": 0.99, "l2": 4.0, "kl": 0.1}
HARD = {"sqnr": 300.0, "psnr": 300.0, "cosine": 1.0, "l2": 0.0, "kl": -1.0}


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_tells_good_from_bad(metric: str) -> None:
    assert moved(mixed(chain(), MetricDefault=metric, MetricThreshold=EASY[metric])) == {"a", "b", "c"}
    assert moved(mixed(chain(), MetricDefault=metric, MetricThreshold=HARD[metric])) == set()
    ranked = mixed(chain(outlier=300), MetricDefault=metric, MetricThreshold=None).report.mixed
    assert ranked[-1].node == "b"


def test_few_models_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """One to rank all layers, and those whose first layers are narrow."""
    made: list[str] = []
    for name in ("run_of", "Switchable"):
        real = getattr(layer_search, name)
        monkeypatch.setattr(layer_search, name, lambda *a, n=name, f=real, **k: made.append(n) or f(*a, **k))
    layers = 9
    nodes = " ".join(f"[n{i}] x{i + 1} = Gemm (x{i}, w{i})" for i in range(layers))
    text = f"g (float[1,5] x0) => (float[1,5] x{layers}) {{ {nodes} }}"
    model = text_model(text, 21, ir_version=10, **{f"w{i}": normal(5, 5, seed=i) / 2 for i in range(layers)})
    told: list[tuple[int, int | None]] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        told.extend([(done, total)] if stage == "mix" and total is not None else [])

    asked = {"AutoMixprecision": {"MetricThreshold": 30.0}}
    ModelQuantizer(settings(**BOTH, **asked), progress).quantize_model(model, None, draw((1, 5), 6, "x0"))
    assert len(told) <= layers + 2 + math.ceil(math.log2(layers))
    assert [done for done, _ in told] == list(range(len(told)))
    assert {total for _, total in told} == {layers + 2 + math.ceil(math.log2(layers))}
    assert made.count("Switchable") == 1
    assert made.count("run_of") == len(told) - layers <= 2 + math.ceil(math.log2(layers))


@pytest.mark.parametrize("count", [1, 3])
def test_the_score_is_that_of_the_first_samples(count: int) -> None:
    """With a single layer the model that is judged is the one that comes out, as it is written."""
    text = "g (float[1,5] x) => (float[1,4] y) { [n] y = Gemm (x, w) }"
    model, data = text_model(text, 21, ir_version=10, w=normal(5, 4)), draw((1, 5), 6)
    found = mixed(model, data, MetricThreshold=-100.0, DataSize=count)
    ratio = Sqnr()
    for feed in data[:count]:
        ratio.add(run(io.load(model), feed)[0], run(io.load(found.model), feed)[0])
    assert [record.score for record in found.report.mixed] == [pytest.approx(ratio.db, abs=1e-6)]


@pytest.mark.parametrize("layer", ["a", "b", "c"])
def test_a_layer_is_judged_with_all_else_float(layer: str) -> None:
    """What moves are weights, from 8 bits to 4: activations of 8 bits, which stay, and other weights do not count.

    Biases of 32 bits, which have no switch of their own, stay float here.
    """
    asked = {"MetricThreshold": None, "TargetLayerConfig": {"activation_type": "int8", "weight_type": "int4"}}
    found = quantize(chain(), **{**BOTH, **NARROW}, QuantizeBias=False, AutoMixprecision=asked)
    others = sorted({"a", "b", "c"} - {layer})
    alone = quantize(chain(), weight_type="int4", include_cle=False, WeightsOnly=True, nodes_to_exclude=others)
    (score,) = (record.score for record in found.report.mixed if record.node == layer)
    wanted = compare(io.load(chain()), io.load(alone.model), FEEDS, optimized=False)
    assert score == pytest.approx(wanted.worst, abs=1e-3)


# with the rest


def test_the_same_twice() -> None:
    first, second = (mixed(chain(outlier=300), MetricThreshold=20.0) for _ in range(2))
    assert diff(first.plan, second.plan) == []
    assert first.report.mixed == second.report.mixed
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)


def test_the_report_is_plain() -> None:
    document = json.loads(json.dumps(mixed(chain(), MetricThreshold=20.0).report.to_dict()))
    assert {entry["node"] for entry in document["mixed"]} == {"a", "b", "c"}
    assert quantize(chain(), **NARROW, include_cle=False).report.to_dict()["mixed"] == ()


def test_a_plan_is_resumed_as_it_is() -> None:
    model, asked = chain(outlier=300), {"AutoMixprecision": {"MetricThreshold": 20.0}}
    found = quantize(model, **BOTH, **asked)
    again = quantize(model, **BOTH, **asked, resume=found.plan)
    assert diff(found.plan, again.plan) == []
    assert again.report.mixed == ()


def test_layers_are_tuned_in_the_types_they_got() -> None:
    options = {"AutoMixprecision": {"MetricThreshold": 20.0}, "FastFinetune": {"NumIterations": 20}}
    found = quantize(chain(outlier=300), FEEDS, **BOTH, include_fast_ft=True, **options)
    assert moved(found) == {"a", "c"}
    formats = {tensor: site.format for tensor, site in found.plan.sites.items()}
    assert [formats[w].bits for w in ("wa", "wb", "wc")] == [8, 16, 8]
    assert {"wa", "wc"} <= found.plan.codes.keys()
    for tensor, coded in found.plan.codes.items():
        assert formats[tensor].lo <= coded.codes.min() and coded.codes.max() <= formats[tensor].hi


def test_8_bit_models_get_the_operator_set_that_16_bits_need() -> None:
    proto = chain()
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", 13))
    fields = {**NARROW, "include_auto_mp": True, "include_cle": False}
    asked = {"MetricThreshold": 500.0, "TargetLayerConfig": WIDE}
    found = quantize(proto, **fields, AutoMixprecision=asked)
    assert found.model.opset_import[0].version == 21
    assert moved(found) == {"a", "b", "c"}


def test_integer_kernels_run_where_the_neighbours_are_8_bits_too() -> None:
    found = mixed(chain(outlier=300), MetricThreshold=20.0)
    status = {row.node: (row.status, row.reason) for row in found.report.ledger if row.op_type == "Conv"}
    assert status["b"][0] == "float"
    assert all("int16 has no integer kernel" in status[node][1] for node in "ac")  # both are next to b
    every = mixed(chain(), MetricThreshold=-100.0)
    assert {row.status for row in every.report.ledger if row.op_type == "Conv"} == {"integer"}
