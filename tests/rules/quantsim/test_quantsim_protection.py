"""Protection of a simulation: which quantizers go, which stay, and that nothing happens where all is well."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from lost_outputs import Feeds, power_spectrum
from simulations import FEEDS, JOINED, LEAST, encodings, ready
from text_models import normal, run, text_model

from quark_onnx import ConfigError, DataError
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.quantsim import QuantizationSimModel, protect


def simulated(made: tuple[onnx.ModelProto, Feeds], **options: Any) -> tuple[QuantizationSimModel, Feeds]:
    model, feeds = made
    sim = QuantizationSimModel(model, threads=1, quant_scheme="min_max", **options)
    sim.compute_encodings(feeds)
    return sim, feeds


def ratio(sim: QuantizationSimModel, model: onnx.ModelProto, feeds: Feeds) -> float:
    """dB of the first output."""
    found = Sqnr()
    for feed in feeds:
        found.add(run(model, feed)[0], sim.session.run(None, feed)[0])
    return found.db


def on(sim: QuantizationSimModel) -> set[str]:
    return {tensor for tensor, quantizer in sim.qc_quantize_op_dict.items() if quantizer.enabled}


@pytest.mark.parametrize(
    "options", [{}, {"config_file": "default_per_tensor"}, {"default_output_bw": 6}, {"exact": True}]
)
def test_quantizers_that_ruin_an_output_are_switched_off(options: dict[str, Any]) -> None:
    made = power_spectrum()
    sim, feeds = simulated(made, **options)
    before, kept = ratio(sim, made[0], feeds), on(sim)
    regions = protect(sim, feeds)
    assert before < 10 and ratio(sim, made[0], feeds) >= 20
    gone = kept - on(sim)
    assert gone == {tensor for region in regions for tensor in region.tensors} and "p" in gone
    assert {"power"} <= {node for region in regions for node in region.nodes}
    assert {"l", "w", "y"} <= on(sim)  # behind the logarithm all is well
    assert all(region.output == "y" and region.before < 10 and region.after >= 20 for region in regions)


def test_nothing_happens_where_all_is_well() -> None:
    sim, feeds = simulated(power_spectrum(100.0))
    before = encodings(sim)
    assert protect(sim, feeds) == ()
    assert encodings(sim) == before


def test_what_is_exported_has_no_quantizers_there() -> None:
    sim, feeds = simulated(power_spectrum())
    protect(sim, feeds)
    quantized = {node.input[0] for node in sim.to_onnx_qdq().graph.node if node.op_type == "QuantizeLinear"}
    assert "p" not in quantized and "l" in quantized


@pytest.mark.parametrize("name", ["power", "p"])
def test_what_is_to_be_kept_stays_on(name: str) -> None:
    sim, feeds = simulated(power_spectrum())
    assert all("p" not in region.tensors for region in protect(sim, feeds, keep={name}))
    assert sim.quantizer("p").enabled


def test_frozen_quantizers_go_too() -> None:
    """Freezing keeps an encoding, not a quantizer."""
    sim, feeds = simulated(power_spectrum())
    for quantizer in sim.qc_quantize_op_dict.values():
        if quantizer.is_initialized():
            quantizer.freeze_encodings()
    protect(sim, feeds)
    assert not sim.quantizer("p").enabled and sim.quantizer("p").is_encoding_frozen()


def test_tensors_that_share_a_quantizer_go_together_or_stay() -> None:
    """A Concat ties its inputs; one of them is a thousandth of the other, and the layer behind evens that out."""
    text = """g (float[1,8,4,4] x) => (float[1,4,4,4] y) {
        [one] f = Conv (x, a)  [two] g = Conv (x, b)  [join] c = Concat <axis = 1> (f, g)  [head] y = Conv (c, w)
    }"""
    w = normal(4, 8, 1, 1)
    w[:2, :4], w[2:, 4:] = 0, 0
    w[2:, :4] /= 1000
    made = text_model(text, a=normal(4, 8, 1, 1) * np.float32(1000), b=normal(4, 8, 1, 1, seed=1), w=w)
    sim, feeds = simulated((made, [{"x": normal(1, 8, 4, 4, seed=i)} for i in range(8)]))
    shared = sim.quantizer("c")
    assert len(shared.tensors) > 1
    (region,) = protect(sim, feeds)
    assert not shared.enabled and {"join"} <= set(region.nodes)
    assert not on(sim) & set(shared.tensors)


def test_a_quantizer_stays_where_one_of_its_tensors_needs_it() -> None:
    """Y and Y_h of an LSTM share one. With x the LSTM goes, and Y_h with it; a layer reads Y, so both stay."""
    text = """g (float[3,1,4] x) => (float[3,1,2] y, float[1,1,5] last) {
        [cell] all, last = LSTM <hidden_size = 5> (x, w, r)  [flat] s = Squeeze (all, axes)  [head] y = MatMul (s, v)
    }"""
    w = normal(1, 20, 4)
    w[..., 0] = 0  # the channel that rules the scale of x is of no use
    weights = {"w": w, "r": normal(1, 20, 5), "v": normal(5, 2), "axes": np.array([1])}
    feeds = [{"x": normal(3, 1, 4, seed=i) * np.array([300, 1, 1, 1], np.float32)} for i in range(8)]
    sim, feeds = simulated((text_model(text, **weights), feeds))
    assert sim.quantizer("all") is sim.quantizer("last")
    (region,) = protect(sim, feeds)
    assert region.nodes == ("cell",) and not sim.quantizer("x").enabled
    assert sim.quantizer("all").enabled


def test_biases_with_a_scale_of_their_own_can_be_at_fault() -> None:
    """One bias is ten thousand times the others, and what it is added to is a matter of the others."""
    text = "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { [only] c = Conv (x, w, b)  y = Sub (c, b2) }"
    b = np.array([3e4, 1.3, -0.7, 0.9], np.float32)
    model = text_model(text, w=normal(4, 4, 1, 1), b=b, b2=b[None, :, None, None])
    quantized = {"defaults": {"ops": {}, "params": {}}, "params": {"bias": {"is_quantized": "True"}}}
    sim, feeds = simulated(
        (model, [{"x": 1e-2 * normal(1, 4, 8, 8, seed=i)} for i in range(8)]), config_file=LEAST | quantized
    )
    assert on(sim) == {"b"}
    assert protect(sim, feeds, keep=["only"]) == () and on(sim) == {"b"}
    (region,) = protect(sim, feeds)
    assert (region.tensors, region.nodes, on(sim)) == (("b",), ("only",), set())


@pytest.mark.parametrize(
    "text",
    [
        JOINED,
        JOINED.replace("AveragePool<kernel_shape=[2,2],strides=[2,2]>", "MaxPool<kernel_shape=[2,2],strides=[2,2]>"),
    ],
)
def test_bits_that_are_too_few_everywhere_are_no_fault_of_a_few(text: str) -> None:
    """Three bits throughout: what goes goes whole, and the simulation still runs."""
    sim = ready(text, default_param_bw=3, default_output_bw=3)
    regions = protect(sim, FEEDS)
    assert all(sim.quantizer(tensor).enabled is False for region in regions for tensor in region.tensors)
    assert np.isfinite(sim.session.run(None, FEEDS[0])[0]).all()


def test_errors_name_what_is_wrong_and_nothing_changes() -> None:
    sim, feeds = simulated(power_spectrum())
    before = encodings(sim)
    with pytest.raises(ConfigError, match="keep: the model has no node or quantizer 'bnak'; did you mean 'bank'"):
        protect(sim, feeds, keep=["bnak"])
    with pytest.raises(ConfigError, match="keep must be a list of names, not 'bank'"):
        protect(sim, feeds, keep="bank")
    with pytest.raises(DataError):
        protect(sim, [{"x": normal(1, 7, 1, 32)}])
    with pytest.raises(DataError):
        protect(sim, [])
    sim.quantizer("p").bitwidth = 16
    sim._statistics.clear()
    with pytest.raises(ConfigError, match="call compute_encodings"):
        protect(sim, feeds)
    sim.quantizer("p").bitwidth = 8
    sim.compute_encodings(feeds)
    assert encodings(sim) == before
