"""The simulation: quantizers by name, what changing them does, and where their encodings come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import run as run_model
from simulations import CONVS, FEEDS, JOINED, encodings, model, output, ready, simulation
from text_models import normal, text_model

from quark_onnx import ConfigError, DataError
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, Quantizer, QuantScheme

# --- quantizers


def test_quantizers_are_found_by_tensor_and_by_node() -> None:
    sim = simulation()
    on = [tensor for tensor, quantizer in sim.qc_quantize_op_dict.items() if quantizer.enabled]
    assert sorted(on) == ["d", "r", "v", "w", "x", "y"]
    parameters, activations = sim.get_all_quantizers()
    assert {t for q in parameters for t in q.tensors} == {"w", "b", "v"}
    assert {t for q in activations for t in q.tensors} >= {"x", "r", "d", "y"}
    node = sim.float_model.graph[0].name or ""
    inputs, outputs, params = sim.get_op_quantizers(node)
    assert [q.tensors for q in inputs] == [("x",)]
    assert outputs == [sim.quantizer("c")]
    assert params == {"w": sim.quantizer("w"), "b": sim.quantizer("b")}


def test_tied_tensors_share_a_quantizer_and_others_do_not() -> None:
    sim = ready(JOINED)
    joined = sim.quantizer("c")
    assert {sim.quantizer(tensor) for tensor in ("a", "d", "y")} == {joined}
    assert set(joined.tensors) == {"a", "c", "d", "y"}
    assert joined.tensors[0] in ("c", "y")
    apart = ready(CONVS)
    assert apart.quantizer("d") is not apart.quantizer("y")
    sim.quantizer("a").bitwidth = 4
    assert sim.quantizer("y").bitwidth == 4
    assert np.unique(output(sim)).size <= 16 < np.unique(output(ready(JOINED))).size


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda sim: sim.quantizer("xx"), "no quantizer on tensor 'xx'; did you mean 'x'"),
        (lambda sim: sim.get_op_quantizers("Conv"), "no node 'Conv'; did you mean 'Conv_"),
        (lambda sim: sim.set_tensor_precision(["w", "rr"], 4), "'rr'; did you mean 'r'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(ask: Callable[[QuantizationSimModel], Any], message: str) -> None:
    sim = simulation()
    with pytest.raises(ConfigError, match=message):
        ask(sim)
    assert sim.quantizer("w").bitwidth == 8


def test_widths_of_several_tensors() -> None:
    sim = simulation()
    sim.set_tensor_precision(["w", "v"], 4)
    sim.set_tensor_precision("x", 16)
    assert [sim.quantizer(tensor).bitwidth for tensor in ("w", "v", "x", "r")] == [4, 4, 16, 8]


# --- what changing a quantizer does


def test_widths_of_several_tensors_change_together_or_not_at_all() -> None:
    sim = ready()
    sim.quantizer("v").freeze_encodings()
    before = encodings(sim)
    with pytest.raises(ConfigError, match="'v' is frozen"):
        sim.set_tensor_precision(["w", "v"], 4)
    assert encodings(sim) == before


@pytest.mark.parametrize(
    "name", ["use_symmetric_encodings", "use_strict_symmetric", "use_unsigned_symmetric", "enabled"]
)
def test_what_is_on_or_off_is_no_text(name: str) -> None:
    """The strings of a runtime configuration are not taken for truth."""
    quantizer = ready().quantizer("x")
    before = getattr(quantizer, name)
    with pytest.raises(ConfigError, match=f"'x': {name} must be True or False, not 'False'"):
        setattr(quantizer, name, "False")
    assert getattr(quantizer, name) == before
    with pytest.raises(ConfigError, match="enable must be True or False"):
        quantizer.enable_per_channel_quantization("False")  # type: ignore[arg-type]


def test_a_change_drops_the_encoding_and_needs_no_new_data() -> None:
    sim = ready()
    before, kept = output(sim), sim.quantizer("r").get_encodings()
    sim.quantizer("x").bitwidth = 4
    assert sim.quantizer("x").get_encodings() is None
    after = output(sim)
    assert sim.quantizer("r").get_encodings() == kept
    found = sim.quantizer("x").get_encodings()
    assert found is not None
    assert found[0].bw == 4
    assert not np.array_equal(before, after)
    again = simulation()
    again.quantizer("x").bitwidth = 4
    again.compute_encodings(FEEDS)
    assert again.quantizer("x").get_encodings() == found


def test_an_off_quantizer_leaves_its_tensor_float() -> None:
    sim = ready()
    for quantizer in sim.qc_quantize_op_dict.values():
        quantizer.enabled = False
    want = run_model(io.load(model()), FEEDS[0])[0]
    np.testing.assert_allclose(output(sim), want, atol=1e-5)  # products are added up in another order
    sim.quantizer("y").enabled, sim.quantizer("y").bitwidth = True, 4
    assert np.unique(output(sim)).size <= 16 < np.unique(want).size


def test_a_quantizer_that_was_off_needs_data() -> None:
    sim = ready()
    sim.quantizer("c").enabled = True
    with pytest.raises(ConfigError, match="no encoding for 'c': call compute_encodings with samples"):
        sim.session.run(None, FEEDS[0])
    sim.compute_encodings(FEEDS)
    assert sim.quantizer("c").is_initialized()


def test_a_parameter_that_was_off_does_not() -> None:
    sim = ready()
    sim.quantizer("b").enabled = True
    output(sim)
    assert sim.quantizer("b").is_initialized()


def test_nothing_runs_before_there_are_encodings() -> None:
    with pytest.raises(ConfigError, match="no encoding for 'x' and 3 others"):
        simulation().session.run(None, FEEDS[0])


def test_symmetry_of_a_quantizer() -> None:
    sim = simulation()
    quantizer = sim.quantizer("x")
    shown = []
    for symmetric, strict in ((False, False), (True, False), (True, True)):
        quantizer.use_symmetric_encodings, quantizer.use_strict_symmetric = symmetric, strict
        sim.compute_encodings(FEEDS)
        found = quantizer.get_encodings()
        assert found is not None
        shown.append(found[0])
    plain, middle, narrow = shown
    assert plain.offset not in (-127, -128)
    assert (middle.offset, narrow.offset) == (-128, -127)
    assert narrow.min == -narrow.max
    assert middle.min < -middle.max


def test_one_scale_or_one_per_channel() -> None:
    sim = ready()
    counts = []
    for enable in (True, False, True):
        sim.quantizer("w").enable_per_channel_quantization(enable)
        output(sim)
        counts.append(len(sim.quantizer("w").get_encodings() or []))
    assert counts == [4, 1, 4]
    with pytest.raises(ConfigError, match="'x' has no output channels"):
        sim.quantizer("x").enable_per_channel_quantization()


def test_a_fixed_range_outlasts_data_and_other_widths() -> None:
    sim = ready()
    quantizer = sim.quantizer("x")
    quantizer.set_fixed_encoding_range((-1, 3))
    assert quantizer.has_fixed_range
    first = quantizer.get_encodings()
    assert first is not None
    assert (first[0].delta, first[0].offset, first[0].bw) == (pytest.approx(4 / 255), -64, 8)
    assert (first[0].min, first[0].max) == (pytest.approx(-1, abs=0.01), pytest.approx(3, abs=0.01))
    sim.compute_encodings(FEEDS)
    assert quantizer.get_encodings() == first
    quantizer.bitwidth = 4
    output(sim)
    found = quantizer.get_encodings()
    assert found is not None
    assert found[0].delta == pytest.approx(4 / 15)
    assert not sim.quantizer("r").has_fixed_range


def test_a_fixed_range_of_a_weight_holds_for_every_channel() -> None:
    sim = ready()
    sim.quantizer("w").set_fixed_encoding_range((-1.27, 1.27))
    first = sim.quantizer("w").get_encodings()
    assert first is not None
    assert {round(e.delta, 6) for e in first} == {0.01}
    sim.compute_encodings(FEEDS)
    assert sim.quantizer("w").get_encodings() == first
    assert len(first) == 4


@pytest.mark.parametrize("range", [(1, 0), (0, float("inf")), 5, (0, 1, 2), ("a", "b"), None, [[1], [2, 3]]])
def test_ranges_that_are_none_are_refused(range: Any) -> None:
    quantizer = ready().quantizer("x")
    before = quantizer.get_encodings()
    with pytest.raises(ConfigError, match="'x': a fixed range needs two finite ends"):
        quantizer.set_fixed_encoding_range(range)
    assert quantizer.get_encodings() == before


def test_frozen_encodings_stay() -> None:
    sim = ready()
    quantizer, free = sim.quantizer("x"), sim.quantizer("r")
    quantizer.freeze_encodings()
    before, others = quantizer.get_encodings(), free.get_encodings()
    sim.compute_encodings([{"x": 10 * FEEDS[0]["x"]}])
    assert quantizer.get_encodings() == before
    assert free.get_encodings() != others
    changes: list[Callable[[Quantizer], Any]] = [
        lambda q: setattr(q, "bitwidth", 4),
        lambda q: setattr(q, "use_symmetric_encodings", True),
        lambda q: q.set_fixed_encoding_range((0, 1)),
    ]
    for change in changes:
        with pytest.raises(ConfigError, match=r"'x' is frozen; call its unfreeze_encodings\(\)"):
            change(quantizer)
    quantizer.unfreeze_encodings()
    quantizer.bitwidth = 4
    with pytest.raises(ConfigError, match="has no encoding to freeze"):
        quantizer.freeze_encodings()


def test_a_quantizer_computes_what_the_simulation_does() -> None:
    sim = ready(exact=True)
    quantizer = sim.quantizer("y")
    values = output(sim)
    np.testing.assert_array_equal(quantizer.quantize_dequantize(values), values)
    noise = normal(100)
    assert not np.array_equal(quantizer.quantize_dequantize(noise), noise)
    quantizer.enabled = False
    np.testing.assert_array_equal(quantizer.quantize_dequantize(noise), noise)
    with pytest.raises(ConfigError, match="'x' has no encoding yet"):
        simulation().quantizer("x").quantize_dequantize(noise)


# --- where encodings come from


class Reader:
    """get_next() as onnxruntime has it; it can be called, too, which must not make it a callback."""

    def __init__(self) -> None:
        self.feeds = iter(FEEDS)

    def get_next(self) -> Any:
        return next(self.feeds, None)

    def __call__(self) -> None:
        raise AssertionError


def ask_for_y(session: Any, feeds: Iterable[Any]) -> None:
    for feed in feeds:
        assert session.run(["y"], feed)[0].shape == (1, 4, 8, 8)


def with_default(session: Any, feeds: Any = None) -> None:
    assert [i.name for i in session.get_inputs()] == ["x"]
    assert [o.name for o in session.get_outputs()] == ["y"]
    for feed in FEEDS if feeds is None else feeds:
        session.run(None, feed)


@pytest.mark.parametrize(
    "given",
    [
        (lambda session: [session.run(None, feed) for feed in FEEDS],),
        (ask_for_y, FEEDS),
        (with_default, FEEDS),
        (with_default,),
        (FEEDS,),
        ([feed["x"] for feed in FEEDS],),
        ((feed for feed in FEEDS),),
        (Reader(),),
    ],
    ids=["f(session)", "f(session, args)", "default", "no args", "feeds", "arrays", "generator", "reader"],
)
def test_callbacks_and_samples_give_the_same(given: tuple[Any, ...]) -> None:
    sim = simulation()
    sim.compute_encodings(*given)
    assert encodings(sim) == encodings(ready())


def fails_late(session: Any) -> None:
    for feed in FEEDS[:2]:
        session.run(None, {"x": 100 * feed["x"]})
    raise KeyError("the user's own")


def late_feeds() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": 100 * FEEDS[0]["x"]}
    yield {"z": FEEDS[0]["x"]}


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (fails_late, KeyError, "the user's own"),
        (late_feeds(), DataError, "no input 'z'"),
        ([], DataError, "no samples"),
        (None, DataError, "no calibration data"),
        (lambda session: None, DataError, "forward_pass_callback never ran the session"),
        (lambda session: session.run(["yy"], FEEDS[0]), DataError, "no output 'yy'; did you mean 'y'"),
        (lambda session: session.run(None, {"x": np.zeros((2, 2), np.float32)}), DataError, "fails on the input"),
    ],
)
def test_what_fails_changes_nothing(source: Any, error: type[Exception], message: str) -> None:
    sim = ready()
    sim.quantizer("r").bitwidth = 4
    before = encodings(sim)
    with pytest.raises(error, match=message):
        sim.compute_encodings(source)
    assert encodings(sim) == before
    output(sim)
    assert sim.quantizer("x").get_encodings() == ready().quantizer("x").get_encodings()


def test_the_schemes_are_different_and_each_holds_its_promise() -> None:
    seen = max(abs(feed["x"]).max() for feed in FEEDS)
    width = {}
    for scheme in ("min_max", QuantScheme.post_training_tf_enhanced, "percentile"):
        found = ready(quant_scheme=scheme, percentile=99.0).quantizer("x").get_encodings()
        assert found is not None
        width[str(scheme)] = max(-found[0].min, found[0].max)
    assert width["min_max"] == pytest.approx(seen, rel=0.02)
    assert all(w < width["min_max"] for name, w in width.items() if name != "min_max")


def test_the_users_model_stays_as_it_is() -> None:
    proto = model()
    before = proto.SerializeToString(deterministic=True)
    sim = QuantizationSimModel(proto)
    sim.compute_encodings(FEEDS)
    onnx.checker.check_model(sim.model, full_check=True)
    sim.to_onnx_qdq()
    assert proto.SerializeToString(deterministic=True) == before


def test_runs_on_empty_arrays_alone_are_refused() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"
    sim = QuantizationSimModel(text_model(text), threads=1)
    with pytest.raises(DataError, match=r"2 times and on empty arrays only \(inputs 'x'\)"):
        sim.compute_encodings(lambda session: [session.run(None, {"x": normal(0, 4)}) for _ in range(2)])
    sim.compute_encodings(lambda session: [session.run(None, {"x": normal(n, 4)}) for n in (0, 3)])
    assert sim.quantizer("x").is_initialized()
