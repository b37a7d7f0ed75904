"""Sensitivity of single layers, the PSNR that scores them, and weight scales by output error (SeqMSE)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from text_models import normal, text_model
from tuning_cases import draw

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.number_formats import Format
from quark_onnx.engine.layers.row_grids import all_factors
from quark_onnx.quantsim import QuantizationSimModel, fine_tuning
from quark_onnx.quantsim.sensitivity_analysis import analyze_per_layer_sensitivity
from quark_onnx.quantsim.sequential_mse.seq_mse import apply_seq_mse
from quark_onnx.quantsim.utils import make_psnr_eval_fn, psnr

SHAPE = (1, 4, 6, 6)
CHAIN = """g (float[N,4,6,6] x) => (float[N,5,6,6] y) {
    [a] s = Conv <pads = [1, 1, 1, 1]> (x, v, c) [r] t = Relu (s) [m] u = Transpose <perm = [0, 1, 3, 2]> (t)
    [n] y = Conv <pads = [1, 1, 1, 1]> (u, w, b)
}"""
OWN = {"a": {"x", "v"}, "r": {"t"}, "n": {"w", "y"}}
"""Node → its quantizers: that of `s` is off inside Conv and Relu, `u` has none, `u` is a matter of who makes it."""
SHARED = "g (float[N,7,8] x) => (float[N,7,8] y) { [a] t = MatMul (x, w) [r] u = Relu (t) [n] y = MatMul (u, w) }"
PER_TENSOR = "default_per_tensor"


def chain(outlier: float = 1.0) -> onnx.ModelProto:
    """Two convolutions; one weight of the first is so many times the largest other one."""
    v = normal(4, 4, 3, 3) / 3
    v[0, 0, 0, 0] = outlier * abs(v).max()
    return text_model(CHAIN, 17, v=v, c=normal(4) / 3, w=normal(5, 4, 3, 3, seed=1), b=normal(5))


def samples(count: int = 12) -> list[dict[str, np.ndarray]]:
    """Of the chain; the first channel is small, so that weights on it hardly matter."""
    feeds = draw(SHAPE, count)
    for feed in feeds:
        feed["x"][:, 0] *= 0.02
    return feeds


def calibrated(model: onnx.ModelProto | None = None, **fields: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(chain() if model is None else model, **fields)
    sim.compute_encodings(samples(4))
    return sim


def on(sim: QuantizationSimModel) -> set[str]:
    return {tensor for tensor, quantizer in sim.qc_quantize_op_dict.items() if quantizer.enabled}


def watched(sim: QuantizationSimModel) -> tuple[list[set[str]], Callable[[Any], float]]:
    """A score that only counts its calls, and the quantizers that were on in each."""
    seen: list[set[str]] = []

    def eval_fn(session: Any) -> float:
        assert session is sim.session
        seen.append(on(sim))
        return len(seen)

    return seen, eval_fn


# sensitivity


@pytest.mark.parametrize("enabled", [True, False])
def test_each_node_has_its_own_quantizers_on_or_off(*, enabled: bool) -> None:
    sim = calibrated()
    every = on(sim)
    seen, eval_fn = watched(sim)
    scores = analyze_per_layer_sensitivity(sim, eval_fn, enabled=enabled)
    assert scores == {"a": 1, "r": 2, "n": 3}
    assert seen == [own if enabled else every - own for own in OWN.values()]
    assert on(sim) == every


def test_the_session_computes_with_them() -> None:
    """By runs of simulations in which everything else was switched off by hand."""
    feed, want = samples(1)[0], {}
    for node, own in OWN.items():
        sim = calibrated()
        for tensor in on(sim) - own:
            sim.quantizer(tensor).enabled = False
        want[node] = float(sim.session.run(None, feed)[0].sum())
    assert len(set(want.values())) == 3
    assert analyze_per_layer_sensitivity(calibrated(), lambda s: float(s.run(None, feed)[0].sum())) == want


def test_quantizers_that_are_off_stay_off() -> None:
    sim = calibrated()
    for tensor in ("t", "w", "y"):
        sim.quantizer(tensor).enabled = False
    seen, eval_fn = watched(sim)
    assert list(analyze_per_layer_sensitivity(sim, eval_fn)) == ["a"]
    assert seen == [{"x", "v"}]
    assert on(sim) == {"x", "v"}


@pytest.mark.parametrize("harmed", ["v", "w"])
def test_the_layer_that_suffers_most_is_found(harmed: str) -> None:
    """Three bits for one weight: the lowest score with it alone, the highest with all but it."""
    model, feeds = chain(), samples(4)
    sim = QuantizationSimModel(model)
    sim.quantizer(harmed).bitwidth = 3
    sim.compute_encodings(feeds)
    eval_fn = make_psnr_eval_fn(model, feeds)
    alone = analyze_per_layer_sensitivity(sim, eval_fn)
    without = analyze_per_layer_sensitivity(sim, eval_fn, enabled=False)
    node = {"v": "a", "w": "n"}[harmed]
    assert min(alone, key=alone.__getitem__) == max(without, key=without.__getitem__) == node
    assert without[node] > eval_fn(sim.session)


def test_a_failing_score_leaves_the_simulation_as_it_was(tmp_path: Path) -> None:
    sim, calls = calibrated(), []
    sim.quantizer("w").enabled = False
    before, feed = on(sim), samples(1)[0]
    want = sim.session.run(None, feed)[0]

    def eval_fn(session: Any) -> float:
        calls.append(session)
        if len(calls) == 2:
            raise ZeroDivisionError
        return 1.0

    with pytest.raises(ZeroDivisionError):
        analyze_per_layer_sensitivity(sim, eval_fn, tmp_path / "scores.json")
    assert on(sim) == before
    assert len(calls) == 2
    np.testing.assert_array_equal(sim.session.run(None, feed)[0], want)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_scored_without_encodings() -> None:
    sim = QuantizationSimModel(chain())
    seen, eval_fn = watched(sim)
    with pytest.raises(ConfigError, match=r"no encoding for 'x'.*compute_encodings"):
        analyze_per_layer_sensitivity(sim, eval_fn)
    assert seen == []


def test_a_score_must_be_a_number() -> None:
    sim = calibrated()
    with pytest.raises(ConfigError, match="must return a number; for node 'a' it returned None"):
        analyze_per_layer_sensitivity(sim, lambda session: None)  # type: ignore[arg-type, return-value]
    assert len(on(sim)) == 5


def test_scores_are_written(tmp_path: Path) -> None:
    """What JSON has no number for is null."""
    sim, path = calibrated(), tmp_path / "new" / "scores.json"
    values = iter([1.5, math.inf, np.float32(2)])
    scores = analyze_per_layer_sensitivity(sim, lambda session: next(values), path)
    assert scores == {"a": 1.5, "r": math.inf, "n": 2.0}
    assert json.loads(path.read_text()) == {"a": 1.5, "r": None, "n": 2.0}
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


def test_a_page_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    sim = calibrated()
    seen, eval_fn = watched(sim)
    with pytest.raises(ConfigError, match=r"written as JSON; give a name that ends in \.json"):
        analyze_per_layer_sensitivity(sim, eval_fn, tmp_path / "scores.html")
    assert seen == []


# PSNR


@pytest.mark.parametrize(
    ("expected", "actual", "want"),
    [
        ([0.0, 2.0, 4.0], [0.1, 2.1, 3.9], 20 * math.log10(4 / 0.1)),
        ([-3.0, 1.0], [-3.0, 1.2], 20 * math.log10(4 / math.sqrt(0.02))),  # the range is the larger one
        ([10.0, 11.0], [10.5, 10.5], 20 * math.log10(11 / 0.5)),  # here the largest value is
        ([1.0, 2.0], [1.0, 2.0], 100.0),
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], 100.0),
        ([0.0, 0.0], [0.0, 0.0], 100.0),
        ([0.0, 0.0], [1.0, 0.0], -100.0),
        ([1.0, 2.0], [1.0, math.nan], -100.0),
        ([1.0, 2.0], [math.inf, 2.0], -100.0),
    ],
)
def test_psnr(expected: list[float], actual: list[float], want: float) -> None:
    """Of one array, and of one array per number."""
    wanted, got = np.array(expected), np.array(actual)
    assert psnr([wanted], [got]) == pytest.approx(want, abs=1e-9)
    assert psnr(list(wanted[:, None]), list(got[:, None])) == pytest.approx(want, abs=1e-9)


def test_psnr_of_different_shapes() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\) in the float model, and here \(1, 2\)"):
        psnr([np.zeros(2)], [np.zeros((1, 2))])


TWO = "g (float[N,4] x) => (float[N,4] y, int64[N,1] i, float[N,4] z) { y = Add (x, x) i = ArgMax <axis = 1> (x) %s }"


def two_outputs(last: str) -> ort.InferenceSession:
    model = text_model(TWO % last, 17, c=np.float32(0.1))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("indices", "worst"), [(None, True), (2, True), ([0, 2], True), (0, False), ([0], False)])
def test_the_worst_output_counts(indices: Any, *, worst: bool) -> None:
    """Integers are left out unless they are asked for."""
    feeds = draw((1, 4), 5)
    eval_fn = make_psnr_eval_fn(two_outputs("z = Mul (x, x)"), feeds, indices)
    found = eval_fn(two_outputs("h = Mul (x, x) z = Add (h, c)"))
    squares = np.square([feed["x"] for feed in feeds])
    assert found == pytest.approx(20 * math.log10(squares.max() / 0.1) if worst else 100, rel=1e-5)


def test_any_kind_of_float_model_will_do(tmp_path: Path) -> None:
    model, feeds, sim = chain(), samples(3), calibrated()
    onnx.save(model, tmp_path / "float.onnx")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    arrays = [feed["x"] for feed in feeds]
    found = {make_psnr_eval_fn(m, d)(sim.session) for m in (model, tmp_path / "float.onnx") for d in (feeds, arrays)}
    assert len(found) == 1
    assert make_psnr_eval_fn(session, iter(feeds))(sim.session) == pytest.approx(found.pop(), abs=0.01)


@pytest.mark.parametrize(
    ("indices", "message"),
    [(3, "from 0 to 2, not 3"), ([0, -1], "from 0 to 2, not -1"), ([], "is empty"), ("y", "from 0 to 2, not 'y'")],
)
def test_outputs_that_there_are_not(indices: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"output_indices.*{message}"):
        make_psnr_eval_fn(two_outputs("z = Mul (x, x)"), draw((1, 4), 2), indices)


def test_outputs_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="output 'z' of the float model is empty or not finite"):
        make_psnr_eval_fn(two_outputs("h = Sub (x, x) z = Div (h, h)"), draw((1, 4), 2))
    none = text_model("g (float[N,4] x) => (int64[M,1] i) { i = NonZero (e) }", e=np.zeros(3, np.float32))
    with pytest.raises(DataError, match="output 'i' of the float model is empty"):
        make_psnr_eval_fn(none, draw((1, 4), 2))


@pytest.mark.parametrize("indices", [None, 0])
def test_labels_are_equal_or_not(indices: int | None) -> None:
    """One of eight labels differs, by however much: the noise is an eighth of the signal."""
    whole = text_model("g (float[N,9] x) => (int64[N,1] i) { i = ArgMax <axis = 1> (x) }")
    feed = {"x": np.eye(9, dtype=np.float32)[:8]}

    class Other:
        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.arange(8)[:, None] + 5 * (np.arange(8)[:, None] == 3)]

    assert make_psnr_eval_fn(whole, [feed], indices)(Other()) == pytest.approx(10 * math.log10(8))


def test_samples_must_fit() -> None:
    with pytest.raises(DataError, match=r"no input 'X'; .*did you mean 'x'"):
        make_psnr_eval_fn(two_outputs("z = Mul (x, x)"), [{"X": normal(1, 4)}])


# SeqMSE


def searched(sim: QuantizationSimModel, **fields: Any) -> QuantizationSimModel:
    apply_seq_mse(sim, samples(), **fields)
    return sim


def scales(sim: QuantizationSimModel) -> dict[str, np.ndarray]:
    found = {tensor: sim.quantizer(tensor).qparams for tensor in ("v", "w")}
    return {tensor: q.scale for tensor, q in found.items() if q is not None}


def widest(**fields: Any) -> dict[str, np.ndarray]:
    sim = QuantizationSimModel(chain(8), quant_scheme="min_max", **fields)
    sim.compute_encodings(samples(1))
    return scales(sim)


@pytest.mark.parametrize("config", ["default", PER_TENSOR])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_scales_are_candidates_and_frozen(config: str, bits: int) -> None:
    """k/7 of the widest; less where one weight is far out and matters little, unless there are bits enough."""
    fields: dict[str, Any] = {"default_param_bw": bits, "config_file": config}
    sim = searched(QuantizationSimModel(chain(8), **fields), num_candidates=7)
    for tensor, top in widest(**fields).items():
        k = scales(sim)[tensor] / top * 7
        np.testing.assert_allclose(k, np.rint(k), rtol=1e-5)
        assert (k > 0.9).all()
        assert tensor != "v" or (k.min() < 6.1) == (bits < 16)
        assert sim.quantizer(tensor).is_encoding_frozen()
    assert not sim.quantizer("t").is_initialized()
    before = scales(sim)
    sim.compute_encodings(samples(4))
    assert all(np.array_equal(before[tensor], scale) for tensor, scale in scales(sim).items())


def test_candidates() -> None:
    """As many as are asked for; nothing but powers of two where the scale has to be one."""
    assert all_factors(Format(8, True, True), 4) == (1.0, 0.75, 0.5, 0.25)
    assert set(all_factors(Format(8, True, True, scale="pow2"), 3)) <= {2.0**-i for i in range(8)}


def test_outputs_get_nearer() -> None:
    """With float activations; the twin has no candidate but the widest."""
    found = {}
    for count in (1, 20):
        sim = searched(QuantizationSimModel(chain(8), default_param_bw=4), num_candidates=count)
        for quantizer in sim.get_all_quantizers()[1]:
            quantizer.enabled = False
        found[count] = make_psnr_eval_fn(chain(8), samples())(sim.session)
        assert all(np.array_equal(s, widest(default_param_bw=4)[t]) for t, s in scales(sim).items()) == (count == 1)
    assert found[20] > found[1] + 1


def test_the_scheme_does_not_matter() -> None:
    one, other = (searched(QuantizationSimModel(chain(8), quant_scheme=name)) for name in ("tf", "tf_enhanced"))
    assert all(np.array_equal(scale, scales(other)[tensor]) for tensor, scale in scales(one).items())


def test_later_layers_read_what_earlier_ones_make() -> None:
    """The second scale depends on the bits of the first weight, and not on those of the activation between."""

    def second(**bits: int) -> np.ndarray:
        sim = QuantizationSimModel(chain(), default_param_bw=4)
        for tensor, width in bits.items():
            sim.quantizer(tensor).bitwidth = width
        return scales(searched(sim, num_candidates=500))["w"]

    assert not np.array_equal(second(v=2), second(v=8))
    assert np.array_equal(second(t=2), second(t=8))


def test_excluded_and_frozen_weights_stay() -> None:
    for excluded, frozen in (({"a"}, ()), (None, ("v",))):
        sim = calibrated(chain(8), default_param_bw=4)
        before = scales(sim)
        for tensor in frozen:
            sim.quantizer(tensor).freeze_encodings()
        searched(sim, nodes_to_exclude=excluded)
        assert np.array_equal(scales(sim)["v"], before["v"])
        assert not np.array_equal(scales(sim)["w"], before["w"])
        assert sim.quantizer("v").is_encoding_frozen() == bool(frozen)


def test_weights_that_are_off_or_have_a_fixed_range_stay() -> None:
    sim = QuantizationSimModel(chain(8), config_file=PER_TENSOR)
    sim.quantizer("v").enabled = False
    sim.quantizer("w").set_fixed_encoding_range((-1, 1))
    fixed = scales(sim)["w"]
    searched(sim)
    assert not sim.quantizer("v").is_initialized()
    assert np.array_equal(scales(sim)["w"], fixed)


@pytest.mark.parametrize("excluded", [(), ("n",), ("a", "n")])
def test_a_shared_weight_is_searched_for_all_its_layers_or_for_none(excluded: tuple[str, ...]) -> None:
    weight = normal(8, 8)
    weight[0, 0] *= 12
    sim = QuantizationSimModel(text_model(SHARED, 17, w=weight), default_param_bw=4, config_file=PER_TENSOR)
    apply_seq_mse(sim, draw((1, 7, 8), 8), nodes_to_exclude=excluded)
    assert sim.quantizer("w").is_encoding_frozen() == (not excluded)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes_to_exclude": ["A"]}, "no layer 'A'; did you mean 'a'"),
        ({"nodes_to_exclude": ["r"]}, "no layer 'r'"),
        ({"nodes_to_exclude": "a"}, "must be a list of names"),
        ({"num_candidates": 0}, "num_candidates must be a whole number of at least 1, not 0"),
    ],
)
def test_bad_arguments_change_nothing(fields: Mapping[str, Any], message: str) -> None:
    sim = QuantizationSimModel(chain())
    with pytest.raises(ConfigError, match=message):
        searched(sim, **fields)
    with pytest.raises(DataError, match="input 'x'"):
        apply_seq_mse(sim, [normal(1, 3, 6, 6)])
    assert scales(sim) == {}


def test_an_interrupted_search_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    search = fine_tuning.finetune

    def interrupted(model: Any, plan: Any, feeds: Any, options: Any, gains: Any, limit: int, tell: Any) -> Any:
        def stop(text: str, done: int, layers: int) -> None:
            if done:
                raise KeyboardInterrupt

        return search(model, plan, feeds, options, gains, limit, stop)

    monkeypatch.setattr(fine_tuning, "finetune", interrupted)
    sim = QuantizationSimModel(chain())
    with pytest.raises(KeyboardInterrupt):
        searched(sim)
    assert scales(sim) == {}
