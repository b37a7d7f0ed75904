"""AIMET's tools for the float model: what is folded, evened out and corrected, under which names, and every no."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import Feed
from text_models import batchnorm, normal, run, text_model

from quark_onnx import ConfigError, DataError, ModelError
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.observe import observe
from quark_onnx.graph import Model, io
from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms, fold_all_batch_norms_to_weight, folded
from quark_onnx.quantsim.bias_correction import QuantParams, correct_bias
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.cross_layer_equalization import equalize_model, fold_high_biases
from quark_onnx.quantsim.simulated_model import begin
from quark_onnx.stages.ranges import choose_ranges, observed_tensors

BN = "BatchNormalization"
NORM = f"{BN} (h, gamma, beta, mean, var)"
IMAGE = "g (float[N,3,6,6] x) => (float[N,C,H,W] y)"
ROW = "g (float[N,6] x) => (float[N,5] y)"
CONV = "[c1] h = Conv <pads = [1,1,1,1]> (x, w1)"


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def images(count: int = 4, channels: int = 3) -> list[Feed]:
    return [{"x": normal(1, channels, 6, 6, seed=seed)} for seed in range(count)]


def rows(count: int = 4) -> list[Feed]:
    return [{"x": normal(3, 6, seed=seed)} for seed in range(count)]


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, feeds: list[Feed]) -> None:
    """Outputs agree up to the rounding of all products that one of them depends on, see test_equalize.py."""
    terms = sum(int(np.prod(w.shape[1:])) for w in arrays(before).values() if w.ndim > 1)
    for feed in feeds:
        for want, got in zip(run(before, feed), run(after, feed), strict=True):
            bound = 8 * terms * np.finfo(np.float32).eps * np.abs(want).max()
            np.testing.assert_allclose(got, want, rtol=0, atol=bound)


# --- BatchNormalization

FOLDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "Conv": (f"{IMAGE} {{ {CONV} [bn] y = {NORM} }}", {"w1": normal(4, 3, 3, 3), **batchnorm(4)}, ["Conv"]),
    "two in a row": (
        f"{IMAGE} {{ [c1] a = Conv (x, w1) h = {BN} (a, gamma, beta, mean, var) y = {NORM} }}",
        {"w1": normal(4, 3, 3, 3), **batchnorm(4)},
        ["Conv"],
    ),
    "parameters behind an Identity": (
        f"{IMAGE} {{ gamma = Identity (g) {CONV} y = {NORM} }}",
        {"w1": normal(4, 3, 3, 3), "g": normal(4, seed=9), **{k: v for k, v in batchnorm(4).items() if k != "gamma"}},
        ["Conv"],
    ),
    "Gemm with an alpha": (
        f"{ROW} {{ h = Gemm <alpha = 0.5> (x, w) y = {NORM} }}",
        {"w": normal(6, 5), **batchnorm(5)},
        ["Gemm"],
    ),
    "MatMul": (f"{ROW} {{ h = MatMul (x, w) y = {NORM} }}", {"w": normal(6, 5), **batchnorm(5)}, ["Gemm"]),
    "in front of a Gemm": (
        f"{ROW} {{ h = Relu (x) z = {NORM} y = Gemm (z, w) }}",
        {"w": normal(6, 5), **batchnorm(6)},
        ["Relu", "Gemm"],
    ),
}


@pytest.mark.parametrize("case", FOLDS)
def test_batch_norms_are_folded_in_place(case: str) -> None:
    text, constants, left = FOLDS[case]
    model = text_model(text, **constants)
    before = copied(model)
    assert fold_all_batch_norms(model) is model
    onnx.checker.check_model(model, full_check=True)
    assert ops(model) == left
    assert_same(before, model, images() if text.startswith(IMAGE) else rows())


def test_a_file_is_not_changed(tmp_path: Path) -> None:
    text, constants, left = FOLDS["Conv"]
    path = tmp_path / "model.onnx"
    onnx.save(text_model(text, **constants), path)
    before = path.read_bytes()
    assert ops(fold_all_batch_norms_to_weight(path)) == left
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_stay_and_nothing_else_is_rewritten() -> None:
    """A Gemm with an alpha, a product of constants and an Add behind a Conv would all go in an optimized model."""
    text = f"""g (float[N,3,6,6] x, float[3,6] v) => (float[N,C,H,W] y, float[3,5] z) {{ {CONV} [bn] a = {NORM}
        [relu] r = Relu (a) [c2] b = Conv (r, w2, b2) [bn2] y0 = {BN} (b, gamma, beta, mean, var)
        k = Mul (k1, k1) y = Add (y0, k) z = Gemm <alpha = 0.5> (v, w) }}"""
    constants = {"w1": normal(4, 3, 3, 3), "w2": normal(4, 4, 1, 1), "b2": normal(4), "w": normal(6, 5)}
    model = text_model(text, k1=normal(1), **constants, **batchnorm(4))
    before = copied(model)
    fold_all_batch_norms(model)
    assert_same(before, model, [{"x": normal(1, 3, 6, 6), "v": normal(3, 6)}])
    assert ops(model) == ["Conv", "Relu", "Conv", "Mul", "Add", "Gemm"]
    assert [node.name for node in model.graph.node][:3] == ["c1", "relu", "c2"]
    outputs = [node.output[0] for node in model.graph.node]
    assert outputs == ["h", "r", "b", "k", "y", "z"]
    assert model.graph.node[-1].attribute[0].f == 0.5
    assert set(arrays(model)) == {"w1", "c1_bias", "w2", "b2", "k1", "w"}


STAYS: dict[str, tuple[str, str]] = {
    "read twice": (f"{IMAGE} {{ {CONV} [bn] n = {NORM} y = Add (n, h) }}", "the output of the layer is read elsewhere"),
    "no layer": (
        f"{IMAGE} {{ h = Conv (x, w1) r = Relu (h) [bn] y = {BN} (r, gamma, beta, mean, var) }}",
        "Relu is no",
    ),
    "padded behind": (
        f"{IMAGE} {{ i = Conv (x, w1) h = Relu (i) [bn] n = {NORM} y = Conv <pads = [1,1,1,1]> (n, w2) }}",
        "pads with zeros",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_stays_is_told(case: str, caplog: pytest.LogCaptureFixture) -> None:
    text, reason = STAYS[case]
    model = text_model(text, w1=normal(4, 3, 3, 3), w2=normal(4, 4, 3, 3), **batchnorm(4))
    before = ops(model)
    with caplog.at_level(logging.WARNING, "quark_onnx"):
        fold_all_batch_norms(model)
    assert ops(model) == before
    assert ["'bn' is not folded" in r.message and reason in r.message for r in caplog.records] == [True]


def test_nothing_is_told_of_what_was_folded(caplog: pytest.LogCaptureFixture) -> None:
    text, constants, _ = FOLDS["Conv"]
    fold_all_batch_norms(text_model(text, **constants))
    assert not [r for r in caplog.records if r.name == "quark_onnx"]


def test_what_batch_norms_knew() -> None:
    """The output of a layer is spread as the last one folded into it says, not one in front of it."""
    last = {f"{k}2": v for k, v in batchnorm(4, seed=5).items()}
    text = f"""{IMAGE} {{ {CONV} n = {NORM} m = {BN} (n, gamma2, beta2, mean2, var2) y = Relu (m) }}"""
    found = folded(text_model(text, w1=normal(4, 3, 3, 3), **batchnorm(4), **last))
    assert list(found.spread) == ["h"]
    np.testing.assert_array_equal(found.spread["h"], [last["beta2"], np.abs(last["gamma2"])])
    text, constants, _ = FOLDS["in front of a Gemm"]
    assert folded(text_model(text, **constants)).spread == {}


def test_quantized_models_are_refused() -> None:
    text = "g (float[2] x) => (float[2] y) { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"
    with pytest.raises(ModelError, match="is quantized already"):
        fold_all_batch_norms(text_model(text, s=np.float32(1), z=np.int8(0)))


# --- equalization

UNEVEN = np.array([0.01, 0.3, 1.0, 40.0], np.float32)


def pair(between: str = "Relu (h)", **more: Any) -> onnx.ModelProto:
    """Conv, BatchNormalization, something, Conv: of channels of different size, with biases above 0."""
    text = f"""{IMAGE} {{ [c1] g0 = Conv (x, w1, b1) [bn] h = {BN} (g0, gamma, beta, mean, var)
        a = {between} [c2] y = Conv (a, w2, b2) }}"""
    norm = {"gamma": 0.5 * UNEVEN, "beta": np.float32([2, -2, 1, 2]) * UNEVEN, "mean": normal(4), "var": abs(normal(4))}
    constants = {"w1": 0.1 * normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(5, 4, 3, 3), "b2": normal(5)}
    return text_model(text, **(constants | norm | more))


def sizes(weight: np.ndarray, axis: int) -> np.ndarray:
    """The largest magnitude of every channel."""
    return np.abs(weight).max(tuple(i for i in range(weight.ndim) if i != axis))


@pytest.mark.parametrize("data", [None, images(8)], ids=["no data", "data"])
@pytest.mark.parametrize("absorb", [False, True])
def test_channels_become_even(data: list[Feed] | None, absorb: bool) -> None:
    model = pair()
    plain = fold_all_batch_norms(copied(model))
    before = copied(model)
    assert equalize_model(model, data, high_bias_folding=absorb) is model
    assert ops(model) == ["Conv", "Relu", "Conv"]
    even = [sizes(arrays(model)["w1"], 0), sizes(arrays(model)["w2"], 1)]
    np.testing.assert_allclose(*even, rtol=1e-6)  # (Nagel et al. 2019, eq. 11)
    assert not np.allclose(sizes(arrays(plain)["w1"], 0), even[0], rtol=0.5)
    if data is not None or not absorb:
        assert_same(before, model, images(8))
    assert np.array_equal(arrays(model)["b2"], arrays(plain)["b2"]) is not absorb


def test_one_sweep_is_less_than_twenty() -> None:
    text = f"{IMAGE} {{ h = Conv (x, w1) i = Relu (h) j = Conv (i, w2) k = Relu (j) y = Conv (k, w3) }}"
    weights = {"w1": normal(4, 3, 3, 3), "w2": normal(4, 4, 1, 1) * UNEVEN, "w3": normal(4, 4, 1, 1, seed=3)}
    one, many = (equalize_model(text_model(text, **weights), sweeps=n) for n in (1, 20))
    assert not np.allclose(arrays(one)["w2"], arrays(many)["w2"])


def clip(**more: Any) -> onnx.ModelProto:
    return pair("Clip (h, low, high)", low=np.float32(0), high=np.float32(6), **more)


def test_a_clip_without_knowledge_is_left_alone() -> None:
    """The BatchNormalization is folded already, so nothing tells how far the channels reach."""
    model = fold_all_batch_norms(clip())
    before = arrays(model)
    equalize_model(model)
    assert all(np.array_equal(array, before[name]) for name, array in arrays(model).items())


@pytest.mark.parametrize("data", [None, images(8)], ids=["no data", "data"])
def test_no_factor_lifts_a_channel_to_the_clip(data: list[Feed] | None) -> None:
    """Outputs stay: with the variance given as 100 times what it is, data stay within β ± 3|γ|. Channel 3 reaches 6."""
    model = clip(mean=np.zeros(4, np.float32), b1=np.zeros(4, np.float32), var=np.full(4, 400, np.float32))
    plain, before = fold_all_batch_norms(copied(model)), copied(model)
    equalize_model(model, data, high_bias_folding=False)
    assert ops(model) == ["Conv", "Clip", "Conv"]
    assert_same(before, model, images(8))
    factors = arrays(model)["b1"] / arrays(plain)["b1"]
    assert factors[3] == 1
    assert (factors[:3] > 1).all()
    reach = arrays(before)["beta"] + 3 * np.abs(arrays(before)["gamma"]) if data is None else highest(plain, data)
    assert (factors * reach)[:3].max() == pytest.approx(0.98 * 6, rel=1e-5)


def highest(model: onnx.ModelProto, data: list[Feed]) -> np.ndarray:
    """Of every channel in front of the function between the layers."""
    return np.max([inner(model, feed).max((0, 2, 3)) for feed in data], 0)


def inner(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    tapped = copied(model)
    tapped.graph.output.append(onnx.helper.make_tensor_value_info("g0", onnx.TensorProto.FLOAT, None))
    return run(tapped, feed)[1]


@pytest.mark.parametrize("data", [None, images(8)], ids=["no data", "data"])
def test_high_biases_move_on(data: list[Feed] | None) -> None:
    """b1 loses c and b2 gains W2 c; c is β − 3|γ|, or the smallest value seen, where that is above 0."""
    model = pair()
    plain, given = arrays(fold_all_batch_norms(copied(model))), arrays(model)
    c = np.maximum(given["beta"] - 3 * given["gamma"], 0)
    if data is not None:
        tapped = fold_all_batch_norms(copied(model))
        c = np.maximum(np.min([inner(tapped, feed).min((0, 2, 3)) for feed in data], 0), 0)
    fold_high_biases(model, data)
    found = arrays(model)
    assert (c > 0).any()
    assert not (c > 0).all()
    # differences of numbers up to 100 of which each is rounded
    np.testing.assert_allclose(found["b1"], plain["b1"] - c, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["b2"], plain["b2"] + plain["w2"].sum((2, 3)) @ c, rtol=0, atol=1e-3)
    assert np.array_equal(found["w1"], plain["w1"])


def test_low_biases_stay() -> None:
    model = pair(beta=UNEVEN)
    plain = arrays(fold_all_batch_norms(copied(model)))
    fold_high_biases(model)
    assert all(np.array_equal(array, plain[name]) for name, array in arrays(model).items())


def test_bad_arguments_of_equalization() -> None:
    model = pair()
    before = model.SerializeToString()
    with pytest.raises(ConfigError, match="sweeps"):
        equalize_model(model, sweeps=0)
    with pytest.raises(ConfigError, match="high_bias_folding"):
        equalize_model(model, high_bias_folding=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the model has no input 'z'"):
        equalize_model(model, [{"z": normal(1, 3, 6, 6)}])
    assert model.SerializeToString() == before


# --- bias correction

PER_TENSOR = "default_per_tensor"
COARSE = QuantParams(weight_bw=3, quant_scheme="min_max", config_file=PER_TENSOR)


def simulated(model: onnx.ModelProto, feeds: list[Feed], params: QuantParams = COARSE) -> Model:
    """The model as it will be quantized."""
    scheme = QuantScheme[str(params.quant_scheme)]
    start = begin(model, params.config_file, scheme, params.weight_bw, params.act_bw)
    statistics = observe(start.model, feeds, observed_tensors(start.plan), lambda done: None)
    return apply(start.model, choose_ranges(start.model, start.plan, statistics, start.ranges))


def shift(before: onnx.ModelProto, after: onnx.ModelProto, feeds: list[Feed], axes: tuple[int, ...]) -> float:
    """The mean shift of the quantized output's channels from the float model `before`, root of the mean square."""
    quantized = simulated(after, feeds)
    errors = np.concatenate([run(quantized, feed)[0] - run(before, feed)[0] for feed in feeds])
    return float(np.sqrt(np.square(errors.mean(axes)).mean()))


def lifted(feeds: list[Feed]) -> list[Feed]:
    """Inputs whose mean is far from 0, so that the rounding of weights shifts outputs."""
    return [{name: array + np.float32(2) for name, array in feed.items()} for feed in feeds]


def deep(**more: Any) -> onnx.ModelProto:
    text = f"{IMAGE} {{ [c1] h = Conv (x, w1, b1) a = Relu (h) [c2] y = Conv (a, w2) }}"
    return text_model(text, **({"w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(5, 4, 3, 3, seed=1)} | more))


def test_the_mean_of_every_channel_comes_back() -> None:
    model, feeds = deep(), lifted(images(40))
    before = copied(model)
    assert correct_bias(model, COARSE, 40, feeds, 40) is model
    onnx.checker.check_model(model, full_check=True)
    assert ops(model) == ops(before)
    assert [node.name for node in model.graph.node] == [node.name or "Relu_a" for node in before.graph.node]
    found, given = arrays(model), arrays(before)
    assert set(found) == {"w1", "b1", "w2", "c2_bias"}
    assert all(np.array_equal(found[name], given[name]) for name in ("w1", "w2"))
    assert not np.array_equal(found["b1"], given["b1"])
    assert shift(before, model, feeds, (0, 2, 3)) < 0.1 * shift(before, before, feeds, (0, 2, 3))


def test_a_file_gives_a_new_model(tmp_path: Path) -> None:
    path, model, feeds = tmp_path / "model.onnx", deep(), lifted(images(20))
    onnx.save(model, path)
    before = path.read_bytes()
    found = correct_bias(path, COARSE, 20, feeds, 20)
    assert path.read_bytes() == before
    correct_bias(model, COARSE, 20, feeds, 20)
    assert found.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_ignored_layers_keep_what_they_have() -> None:
    model, feeds = deep(), lifted(images(20))
    correct_bias(model, COARSE, 20, feeds, 20, layers_to_ignore=["c2"])
    assert set(arrays(model)) == {"w1", "b1", "w2"}
    assert not np.array_equal(arrays(model)["b1"], normal(4))
    model = deep()
    correct_bias(model, COARSE, 20, feeds, 20, layers_to_ignore=("c1",))
    assert set(arrays(model)) == {"w1", "b1", "w2", "c2_bias"}
    assert np.array_equal(arrays(model)["b1"], normal(4))


def test_nothing_to_correct_changes_nothing() -> None:
    """Weights that 8 bits hold exactly, of inputs that 16 bits hold exactly."""
    whole = np.random.default_rng(0).integers(-127, 128, (5, 3, 3, 3)).astype(np.float32)
    whole[0, 0, 0, 0] = 127
    model = text_model(f"{IMAGE} {{ [c] y = Conv (x, w) }}", w=whole)
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.integers(0, 2, (1, 3, 6, 6)).astype(np.float32) * 65535} for _ in range(20)]
    params = QuantParams(act_bw=16, quant_scheme="min_max", config_file=PER_TENSOR)
    correct_bias(model, params, 20, feeds, 20)
    assert list(arrays(model)) == ["w"]


MATRICES: dict[str, tuple[str, dict[str, Any], str | None]] = {  # what moves
    "Gemm": ("[n] y = Gemm (x, w, b)", {"b": normal(5)}, "b"),
    "Gemm without a bias": ("[n] y = Gemm (x, w)", {}, "n_bias"),
    "Gemm, one bias for all": ("[n] y = Gemm (x, w, b)", {"b": normal(1)}, "b"),
    "Gemm, a bias per row": ("[n] y = Gemm (x, w, b)", {"b": normal(3, 1)}, None),
    "Gemm, a bias from the input": ("b = ReduceMax <keepdims = 0, axes = [0, 1]> (x) [n] y = Gemm (x, w, b)", {}, None),
    "Gemm, an alpha": ("[n] y = Gemm <alpha = 0.5> (x, w, b)", {"b": normal(5)}, None),
    "MatMul and Add": ("[n] h = MatMul (x, w) [add] y = Add (b, h)", {"b": normal(5)}, "b"),
    "MatMul alone": ("[n] y = MatMul (x, w)", {}, None),
    "MatMul and Add of a bias per row": ("[n] h = MatMul (x, w) y = Add (h, b)", {"b": normal(3, 1)}, None),
    "MatMul and Add of an input": ("[n] h = MatMul (x, w) b = Gemm (x, w2) y = Add (h, b)", {}, "Gemm_b_bias"),
    "MatMul and Mul": ("[n] h = MatMul (x, w) y = Mul (h, b)", {"b": normal(5)}, None),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices(case: str) -> None:
    nodes, constants, moves = MATRICES[case]
    model = text_model(f"{ROW} {{ {nodes} }}", w=normal(6, 5), **constants)
    if "w2" in nodes:
        model.graph.initializer.append(onnx.numpy_helper.from_array(normal(6, 5, seed=4), "w2"))
    before, feeds = copied(model), lifted(rows(20))
    correct_bias(model, COARSE, 60, feeds, 60)
    onnx.checker.check_model(model, full_check=True)
    found, given = arrays(model), arrays(before)
    assert {n for n, a in found.items() if n not in given or not np.array_equal(a, given[n])} == ({moves} - {None})
    if moves is not None and moves == "b":
        assert shift(before, model, feeds, (0,)) < 0.3 * shift(before, before, feeds, (0,))


def test_quantized_biases_count_as_float() -> None:
    """New biases of zeros have a grid without range, which corrections must not be rounded to."""
    config = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
        },
        "params": {},
        "op_type": {},
        "supergroups": [{"op_list": ["Conv", "Relu"]}],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    feeds, other, model = lifted(images(20)), deep(), deep()
    correct_bias(model, QuantParams(3, 8, "nearest", "min_max", config), 20, feeds, 20)
    correct_bias(other, COARSE, 20, feeds, 20)
    assert all(np.array_equal(array, arrays(other)[name]) for name, array in arrays(model).items())


def test_samples_are_counted_in_batches(caplog: pytest.LogCaptureFixture) -> None:
    """Eight batches of five: ten samples are the first two, and no more than needed are read."""
    feeds = lifted([{"x": normal(5, 3, 6, 6, seed=seed)} for seed in range(8)])
    read = []

    def loader() -> Any:
        for feed in feeds:
            read.append(feed)
            yield feed

    some, same, most = deep(), deep(), deep()
    correct_bias(some, COARSE, 6, loader(), 10)
    assert len(read) == 2
    correct_bias(same, COARSE, 10, feeds[:2], 9)
    assert some.SerializeToString(deterministic=True) == same.SerializeToString(deterministic=True)
    assert not [r for r in caplog.records if r.name == "quark_onnx"]
    correct_bias(most, COARSE, 10, feeds, 41)
    assert some.SerializeToString(deterministic=True) != most.SerializeToString(deterministic=True)
    assert "the data hold 40 samples, fewer than num_bias_correct_samples=41" in caplog.text


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "analytic": ({"perform_only_empirical_bias_corr": False}, "analytic correction, which is not built"),
    "dictionary": ({"conv_bn_dict": {"c1": "bn"}}, "conv_bn_dict is for analytic correction"),
    "no such layer": ({"layers_to_ignore": ["C1"]}, "no layer 'C1'; did you mean 'c1'"),
    "no layer": ({"layers_to_ignore": ["Relu_a"]}, "no layer 'Relu_a'"),
    "a name": ({"layers_to_ignore": "c1"}, "layers_to_ignore must be a list"),
    "no samples": ({"num_quant_samples": 0}, "num_quant_samples must be"),
    "half a sample": ({"num_bias_correct_samples": 0.5}, "num_bias_correct_samples must be"),
    "params": ({"quant_params": {"weight_bw": 8}}, "quant_params must be QuantParams"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_of_bias_correction(case: str) -> None:
    more, message = REFUSED[case]
    model = deep()
    before = model.SerializeToString()
    given = {"quant_params": COARSE, "num_quant_samples": 4, "data_loader": images(), "num_bias_correct_samples": 4}
    with pytest.raises(ConfigError, match=message):
        correct_bias(model, **(given | more))
    assert model.SerializeToString() == before
    correct_bias(model, **given, conv_bn_dict={}, layers_to_ignore=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"round_mode": "stochastic"}, "round_mode 'stochastic' is not supported"),
        ({"weight_bw": 1}, "weight_bw must be"),
        ({"act_bw": 32}, "act_bw must be"),
        ({"quant_scheme": "tf_enhancd"}, "did you mean 'tf_enhanced'"),
    ],
)
def test_refusals_of_quant_params(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantParams(**fields)


def test_the_float_model_in_memory_can_be_opened_again() -> None:
    """What is handed back is a whole model: all three tools in a row, on one object."""
    model, feeds = pair(), images(20)
    fold_all_batch_norms(model)
    equalize_model(model, feeds)
    correct_bias(model, QuantParams(), 20, feeds, 20)
    onnx.checker.check_model(model, full_check=True)
    assert io.load(model).graph.outputs[0].name == "y"
