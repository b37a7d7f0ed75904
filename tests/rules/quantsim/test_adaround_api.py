"""AIMET's AdaRound: what it reads, what it refuses, and that its encodings hold the integers that it chose."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_models import normal, run, text_model

from quark_onnx import ConfigError, DataError, QuarkError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Coded, Plan, QParams, Site
from quark_onnx.encodings import document, from_plan, into_plan, read
from quark_onnx.numerics.quantizer import dequantize, quantize, quantize_half_up
from quark_onnx.quantsim import QuantizationSimModel, QuantScheme
from quark_onnx.quantsim.adaround.adaround_weight import Adaround, AdaroundParameters
from quark_onnx.quantsim.data_loader import feeds_of
from quark_onnx.quantsim.simulated_model import open_float

Feed = dict[str, np.ndarray]

NET = """g (float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<pads=[1,1,1,1], group=8>(r, wd, bd)
    c = Clip(d, low, high)
    p = GlobalAveragePool(c)
    f = Flatten(p)
    y = Gemm<transB=1>(f, w2, b2)
}"""
WEIGHTS = ("w1", "wd", "w2")
BIASES = ("b1", "bd", "b2")
PAIR = "g (float[N,4] x, float[N,4] z) => (float[N,3] y) { s = Add(x, z) y = MatMul(s, w) }"


def net() -> onnx.ModelProto:
    arrays = {"w1": normal(8, 3, 3, 3), "wd": normal(8, 1, 3, 3), "w2": normal(5, 8)}
    arrays |= {"b1": normal(8), "bd": normal(8, seed=1), "b2": normal(5)}
    return text_model(NET, **arrays, low=np.float32(0), high=np.float32(6))


def samples(count: int = 24) -> list[Feed]:
    """Images whose pixels are correlated: then rounding has room to gain."""
    rng = np.random.default_rng(5)
    numbers = rng.standard_normal((count, 1, 3, 8, 8)) + 2 * rng.standard_normal((count, 1, 3, 1, 1))
    return [{"x": image.astype(np.float32)} for image in numbers]


def parameters(loader: Any = None, **fields: Any) -> AdaroundParameters:
    """24 samples, 20 iterations."""
    loader = samples() if loader is None else loader
    return AdaroundParameters(**{"data_loader": loader, "num_batches": 24, "default_num_iterations": 20} | fields)


def applied(folder: Path, model: onnx.ModelProto | None = None, **arguments: Any) -> onnx.ModelProto:
    """AdaRound on the net, encodings written to `folder/m.encodings`."""
    model, params = model or net(), arguments.pop("params", None) or parameters()
    return Adaround.apply_adaround(model, arguments.pop("dummy_input", None), params, folder, "m", **arguments)


def simulated(folder: Path, model: onnx.ModelProto, **arguments: Any) -> QuantizationSimModel:
    """The simulation that a user goes on with."""
    sim = QuantizationSimModel(model, **arguments)
    sim.set_and_freeze_param_encodings(folder / "m.encodings")
    sim.compute_encodings(samples())
    return sim


def arrays_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def written(folder: Path) -> dict[str, dict[str, Any]]:
    """Entries of the file by tensor."""
    content = json.loads((folder / "m.encodings").read_text())
    assert content["activation_encodings"] == []
    return {entry["name"]: entry for entry in content["param_encodings"]}


def rules(strict: bool, per_channel: bool, bias: bool = False) -> dict[str, Any]:
    """A runtime configuration."""
    return {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
            "strict_symmetric": str(strict),
            "per_channel_quantization": str(per_channel),
        },
        "params": {"bias": {"is_quantized": str(bias)}},
        "op_type": {},
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }


# the integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8, 11, 16])
def test_a_simulation_with_the_encodings_has_the_same_integers(
    tmp_path: Path, bits: int, strict: bool, per_channel: bool
) -> None:
    config = rules(strict, per_channel, bias=bits == 5)
    model = applied(tmp_path, default_param_bw=bits, default_config_file=config)
    entries, arrays = written(tmp_path), arrays_of(model)
    sim = simulated(tmp_path, model, default_param_bw=bits, config_file=config)
    names = (*WEIGHTS, *(BIASES if bits == 5 else ()))
    assert sorted(entries) == sorted(names)
    stored = arrays_of(sim.model)
    for name in names:
        scale = np.asarray(entries[name]["scale"]).reshape(-1, *[1] * (arrays[name].ndim - 1))
        assert entries[name]["bw"] == bits
        assert scale.size == (len(arrays[name]) if per_channel else 1)
        codes = arrays[name] / scale
        whole = np.rint(codes)
        np.testing.assert_allclose(codes, whole, rtol=0, atol=0.01)  # float32 of codes up to 2¹⁵
        assert whole.min() >= -(2 ** (bits - 1)) + strict
        assert whole.max() <= 2 ** (bits - 1) - 1
        np.testing.assert_array_equal(stored[f"{name}_quantized"], whole)
        assert sim.quantizer(name).is_encoding_frozen()


def test_twin_encodings_of_another_model_have_other_integers(tmp_path: Path) -> None:
    """The weights of the float model, rounded to nearest on the same grids, are not what AdaRound chose."""
    rounded = applied(tmp_path)
    ours, others = (arrays_of(simulated(tmp_path, m, default_param_bw=4).model) for m in (rounded, net()))
    assert any(not np.array_equal(ours[f"{name}_quantized"], others[f"{name}_quantized"]) for name in WEIGHTS)


@given(
    bits=st.integers(2, 16),
    strict=st.booleans(),
    axis=st.sampled_from([None, 0, 1]),
    exponent=st.integers(-30, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_come_back_from_the_file_and_the_float_weight(
    bits: int, strict: bool, axis: int | None, exponent: int, seed: int
) -> None:
    """For any codes and float32 scales, whether ties are rounded up or to even."""
    rng = np.random.default_rng(seed)
    format = Format(bits, symmetric=True, axis=axis, strict=strict, stored=8 if bits < 8 else None)
    codes = rng.integers(format.lo, format.hi + 1, (3, 4, 2)).astype(np.int32)
    scale = np.asarray(rng.uniform(1, 2, () if axis is None else codes.shape[axis]) * 2.0**exponent, np.float32)
    planned = QParams(scale * np.float32(1.25), np.zeros_like(scale, np.int32))
    sites = {"w": Site("w", "weight", format, "w", "")}
    plan = Plan("", sites, {"n": ("w",)}, qparams={"w": planned}, codes={"w": Coded(codes, scale)})
    weight = dequantize(codes, plan.qparams_of("w"), format)
    shapes = {"w": codes.shape}
    file = read(json.loads(json.dumps(document(from_plan(plan, shapes)))), ["w"])
    found = into_plan(Plan("", sites, plan.nodes, qparams={"w": planned}), file, shapes).plan
    for rounding in (quantize, quantize_half_up):
        back = rounding(weight, found.qparams_of("w"), found.sites["w"].format)
        np.testing.assert_array_equal(back, codes)


def test_the_model_is_nearer_to_float_than_rounding_to_nearest(tmp_path: Path) -> None:
    rounded = applied(tmp_path, params=parameters(default_num_iterations=None))
    nearest = QuantizationSimModel(net(), default_param_bw=4)
    nearest.compute_encodings(samples())
    sims = [simulated(tmp_path, rounded, default_param_bw=4), nearest]
    errors = [np.mean([(run(net(), f)[0] - sim.session.run(None, f)[0]) ** 2 for f in samples()]) for sim in sims]
    assert errors[0] < 0.25 * errors[1]
    assert [t.name for t in rounded.graph.initializer] == [t.name for t in net().graph.initializer]


def test_the_model_that_is_given_stays_as_it_is(tmp_path: Path) -> None:
    model = net()
    before = model.SerializeToString(deterministic=True)
    assert applied(tmp_path, model) is not model
    assert model.SerializeToString(deterministic=True) == before


# widths and ignored nodes ------------------------------------------------------------------------


def test_layers_and_parameters_may_have_widths_of_their_own(tmp_path: Path) -> None:
    names = [node.name for node in open_float(net()).graph]
    pairs = [("w1", 8), (names[2], 6)]
    model = applied(tmp_path, param_bw_override_list=pairs)
    assert {name: entry["bw"] for name, entry in written(tmp_path).items()} == {"w1": 8, "wd": 6, "w2": 4}
    sim = simulated(tmp_path, model, default_param_bw=4)
    assert [sim.quantizer(name).bitwidth for name in WEIGHTS] == [8, 6, 4]


def test_ignored_nodes_stay_float(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [node.name for node in open_float(net()).graph]
    model = applied(tmp_path, ignore_quant_ops_list=[names[0], names[4]])
    assert sorted(written(tmp_path)) == ["w2", "wd"]
    np.testing.assert_array_equal(arrays_of(model)["w1"], arrays_of(net())["w1"])
    assert (arrays_of(model)["wd"] != arrays_of(net())["wd"]).any()
    assert "nearest" not in caplog.text


REFUSED: dict[str, tuple[dict[str, Any], type[QuarkError], str]] = {
    "unknown parameter": ({"param_bw_override_list": [("w11", 8)]}, ConfigError, "'w11'; did you mean 'w1'"),
    "an activation": ({"param_bw_override_list": [("a", 8)]}, ConfigError, "no layer or parameter of one"),
    "no pair": ({"param_bw_override_list": ["w1"]}, ConfigError, "pairs"),
    "no width": ({"param_bw_override_list": [("w1", 32)]}, ConfigError, "from 2 to 31"),
    "width": ({"default_param_bw": 1}, ConfigError, "default_param_bw"),
    "unknown node": ({"ignore_quant_ops_list": ["conv"]}, ConfigError, "no node 'conv'"),
    "no list": ({"ignore_quant_ops_list": "conv"}, ConfigError, "a list of names"),
    "no list at all": ({"ignore_quant_ops_list": 5}, ConfigError, "a list of names"),
    "no list of pairs": ({"param_bw_override_list": 5}, ConfigError, "a list of pairs"),
    "learning": (
        {"default_quant_scheme": QuantScheme.training_range_learning_with_tf_init},
        ConfigError,
        "give post_training_tf,",
    ),
    "scheme": ({"default_quant_scheme": "tf_enhance"}, ConfigError, "did you mean 'tf_enhanced'"),
    "configuration": ({"default_config_file": "default_per_tenso"}, ConfigError, "'default_per_tensor'"),
    "dummy input": ({"dummy_input": np.zeros((1, 4, 8, 8), np.float32)}, DataError, "'x'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        applied(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((net(), "params", "out", "m", 4), {}),
        ((net(), "params", "out"), {"filename_prefix": "m", "default_param_bw": 4, "use_cuda": False}),
        ((net(),), {"params": "params", "path": "out", "filename_prefix": "m"}),
        ((net(), None, "params", "out", "m", 4), {}),
        ((), {"model": net(), "params": "params", "path": "out", "filename_prefix": "m", "dummy_input": samples()[0]}),
    ],
)
def test_arguments_in_the_order_of_both_aimets(given: Any, named: dict[str, Any], tmp_path: Path) -> None:
    """AIMET for ONNX has no `dummy_input`, AIMET for PyTorch has it after the model."""
    (tmp_path / "out").mkdir()
    known = {"params": parameters(), "out": tmp_path / "out"}
    values, others = (
        [known.get(v, v) if isinstance(v, str) else v for v in group] for group in (given, named.values())
    )
    model = Adaround.apply_adaround(*values, **dict(zip(named, others, strict=True)))
    assert (tmp_path / "out" / "m.encodings").exists()
    wanted = Adaround.apply_adaround(net(), parameters(), tmp_path, "n")
    assert model.SerializeToString() == wanted.SerializeToString()


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        ((net(), "params"), {}, "missing.*path.*begin with model, params, path, filename_prefix"),
        ((net(), "params", "out", "m"), {"use_cuda": True}, "use_cuda=True cannot be had"),
        ((net(), "params", "out", "m"), {"default_params_bw": 4}, "did you mean 'default_param_bw'"),
        ((net(), "out", "m"), {}, "begin with model"),
    ],
)
def test_other_orders_are_told_the_right_one(given: Any, named: dict[str, Any], message: str, tmp_path: Path) -> None:
    known = {"params": parameters(), "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match=message):
        Adaround.apply_adaround(*(known.get(v, v) if isinstance(v, str) else v for v in given), **named)
    assert not (tmp_path / "out").exists()


def test_a_dummy_input_that_fits_is_taken(tmp_path: Path) -> None:
    first, second = (applied(tmp_path, dummy_input=given) for given in (None, samples()[0]))
    assert first == second


BAD: dict[str, dict[str, Any]] = {
    "num_batches": {"num_batches": 0},
    "default_num_iterations": {"default_num_iterations": 0},
    "default_reg_param": {"default_reg_param": -1},
    "default_beta_range must go down": {"default_beta_range": (2, 20)},
    "the second of default_beta_range": {"default_beta_range": (2, 0)},
    "default_warm_start": {"default_warm_start": 1.0},
    "forward_fn": {"forward_fn": "f"},
}


@pytest.mark.parametrize("message", BAD)
def test_parameters_that_are_refused(message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parameters(**BAD[message])


def test_parameters_become_settings_of_fine_tuning() -> None:
    options = AdaroundParameters([1], 1, 70, 0.5, (9, 3), 0.4).options
    assert (options.num_iterations, options.reg_param, options.beta_range) == (70, 0.5, (9.0, 3.0))
    assert options.warm_start == 0.4
    assert AdaroundParameters([1], 1).options.quick


# layers that cannot be tuned ---------------------------------------------------------------------


def test_layers_that_cannot_be_tuned_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A weight behind a Transpose is; a product of two activations has nothing to round."""
    text = """g (float[N,4] x) => (float[N,4] y, float[N,N] s) {
        t = Transpose<perm=[1,0]>(w) h = MatMul(x, t) y = MatMul(h, v)
        u = Transpose<perm=[1,0]>(x) s = MatMul(x, u)
    }"""
    model = text_model(text, w=normal(4, 4), v=normal(4, 4, seed=1))
    feeds = [{"x": row[None]} for row in normal(24, 4)]
    caplog.set_level(logging.WARNING)
    applied(tmp_path, model, params=parameters(feeds))
    names = [node.name for node in open_float(model).graph if node.op_type == "MatMul"]
    told = [record.message for record in caplog.records if "AdaRound leaves" in record.message]
    assert len(told) == 1
    assert repr(names[0]) in told[0]
    assert "fold" in told[0]
    assert sorted(written(tmp_path)) == ["v", "w"]


# data --------------------------------------------------------------------------------------------


class Tensor:
    """What has numpy(), and is no array: onnxruntime's OrtValue."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def numpy(self) -> np.ndarray:
        return self.array


def pairs(count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(normal(2, 4, seed=i), normal(2, 4, seed=i + 100)) for i in range(count)]


BATCHES: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any] | None]] = {
    "dicts": (lambda: [{"z": z, "x": x} for x, z in pairs()], None),
    "tuples": (pairs, None),
    "lists": (lambda: [[x, z] for x, z in pairs()], None),
    "tensors": (lambda: [(Tensor(x), Tensor(z)) for x, z in pairs()], None),
    "dicts of tensors": (lambda: [{"z": Tensor(z), "x": Tensor(x)} for x, z in pairs()], None),
    "generator": (lambda: (pair for pair in pairs()), None),
    "labels that are no input": (lambda: [(*pair, np.zeros(2)) for pair in pairs()], None),
    "labels": (
        lambda: [(x, z, 7) for x, z in pairs()],
        lambda session, batch: session.run(None, {"x": batch[0], "z": batch[1]}),
    ),
    "names of the session": (
        lambda: [(z, x) for x, z in pairs()],
        lambda session, batch: session.run(
            ["y"], dict(zip([i.name for i in session.get_inputs()], batch[::-1], strict=True))
        ),
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_become_feeds(name: str) -> None:
    make, forward = BATCHES[name]
    found = feeds_of(make(), 5, forward, open_float(text_model(PAIR, w=normal(4, 3))))
    assert len(found) == 5
    for feed, (x, z) in zip(found, pairs(), strict=False):
        np.testing.assert_array_equal(feed["x"], x)
        np.testing.assert_array_equal(feed["z"], z)


def test_a_loader_may_use_its_arrays_again() -> None:
    def loader() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        buffer = np.zeros((2, 4), np.float32)
        for x, z in pairs():
            buffer[:] = x
            yield buffer, z

    def forward(session: Any, batch: Any) -> Any:
        return session.run(None, {"x": batch[0], "z": batch[1]})

    found = feeds_of(loader(), 6, forward, open_float(text_model(PAIR, w=normal(4, 3))))
    for feed, (x, _) in zip(found, pairs(), strict=True):
        np.testing.assert_array_equal(feed["x"], x)


REFUSED_DATA: dict[str, tuple[Any, Any, type[QuarkError], str]] = {
    "labels like inputs": ([(*pair, pair[1]) for pair in pairs()], None, DataError, r"\[2\] could be 'x', too"),
    "too few": ((pair for pair in pairs(4)), None, ConfigError, "num_batches is 5, but the data_loader has 4"),
    "one": ([(x,) for x, _ in pairs()], None, DataError, "sample 0 gives 1"),
    "shape": ([(x, z[:, :3]) for x, z in pairs()], None, DataError, "'z'"),
    "not run": (pairs(), lambda session, batch: None, DataError, "never ran the session"),
    "output": (
        pairs(),
        lambda session, batch: session.run(["yy"], {"x": batch[0], "z": batch[1]}),
        DataError,
        "no output 'yy'; did you mean 'y'",
    ),
    "nothing": (7, None, DataError, "cannot read"),
}


@pytest.mark.parametrize("name", REFUSED_DATA)
def test_batches_that_are_refused(name: str) -> None:
    loader, forward, error, message = REFUSED_DATA[name]
    with pytest.raises(error, match=message):
        list(feeds_of(loader, 5, forward, open_float(text_model(PAIR, w=normal(4, 3)))))


def test_a_loader_that_is_too_short_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="num_batches is 25, but the data_loader has 24"):
        parameters(num_batches=25)


def test_only_the_first_batches_count(tmp_path: Path) -> None:
    head, all_of_them = (applied(tmp_path, params=parameters(samples()[:n], num_batches=12)) for n in (12, 24))
    assert head == all_of_them
    assert applied(tmp_path, params=parameters(num_batches=24)) != head


@pytest.mark.parametrize("args", [None, 12])
def test_a_forward_function_of_aimet_onnx_computes_the_encodings(args: int | None, tmp_path: Path) -> None:
    """Of what it runs; what rounding learns from are the batches."""
    seen: list[Any] = []

    def alone(session: Any) -> None:
        seen.append(None)
        for feed in samples()[:12]:
            session.run(None, feed)

    def given(session: Any, count: int) -> None:
        seen.append(count)
        for feed in samples()[:count]:
            session.run(None, feed)

    def batch_by_batch(session: Any, batch: Any) -> None:
        session.run(None, batch)

    forward = alone if args is None else given
    params = parameters(forward_fn=forward, forward_pass_callback_args=args)
    found = applied(tmp_path, params=params).SerializeToString()
    assert seen == [args]
    others = [parameters(forward_fn=f).calibrates for f in (alone, batch_by_batch)]
    assert others == [True, False]
    assert found != applied(tmp_path).SerializeToString()  # encodings of 12 samples, not of 24


def test_what_a_forward_function_is_given_needs_one() -> None:
    with pytest.raises(ConfigError, match="give a forward_fn, too"):
        parameters(forward_pass_callback_args=3)
