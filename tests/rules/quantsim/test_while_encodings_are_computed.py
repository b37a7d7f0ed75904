"""What a script does inside of `with compute_encodings(sim)`: changes that are kept, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import FEEDS, encodings, model, output, ready, simulation

from quark_onnx import ConfigError, DataError
from quark_onnx.quantsim import (
    AutoQuant,
    QuantizationSimModel,
    analyze_per_layer_sensitivity,
    apply_adaround,
    apply_seq_mse,
    compute_encodings,
    fine_tune,
    load_encodings_to_sim,
    make_psnr_eval_fn,
    protect,
)
from quark_onnx.quantsim.layer_output_utils import LayerOutputUtil
from quark_onnx.quantsim.lite_mp import flip_layers_to_higher_precision
from quark_onnx.quantsim.quant_analyzer import QuantAnalyzer
from quark_onnx.quantsim.quantsim import set_blockwise_quantization_for_weights

WIDER = [{"x": 10 * feed["x"]} for feed in FEEDS]


def within(sim: QuantizationSimModel, change: Callable[[], object], feeds: Any = FEEDS) -> QuantizationSimModel:
    with compute_encodings(sim):
        change()
        for feed in feeds:
            sim.session.run(None, feed)
    return sim


@pytest.mark.parametrize("tensor", ["x", "r", "w"])
def test_another_width_in_the_block_has_its_own_grid(tensor: str) -> None:
    sim, other = simulation(), simulation()
    within(sim, lambda: sim.set_tensor_precision(tensor, 4))
    other.set_tensor_precision(tensor, 4)
    other.compute_encodings(FEEDS)
    assert sim.quantizer(tensor).get_encodings() == other.quantizer(tensor).get_encodings()


def test_what_is_frozen_in_the_block_stays_and_all_else_is_new() -> None:
    sim = ready()
    before, wide = encodings(sim), ready()
    wide.compute_encodings(WIDER)
    within(sim, sim.quantizer("x").freeze_encodings, WIDER)
    assert sim.quantizer("x").get_encodings() == ready().quantizer("x").get_encodings()
    assert sim.quantizer("r").get_encodings() == wide.quantizer("r").get_encodings()
    assert encodings(sim) != before


def test_what_is_switched_on_in_the_block_needs_data() -> None:
    sim = simulation()
    sim.quantizer("r").enabled = False
    within(sim, lambda: setattr(sim.quantizer("r"), "enabled", True))
    with pytest.raises(ConfigError, match="no encoding for 'r'"):
        output(sim)


@pytest.mark.parametrize("again", ["block", "call", "callback"])
def test_a_block_inside_of_a_block_is_refused_and_changes_nothing(again: str) -> None:
    sim = ready()
    before = encodings(sim)

    def inner(session: Any = None) -> None:
        if again == "block":
            within(sim, lambda: None)
        else:
            sim.compute_encodings(WIDER)

    with pytest.raises(ConfigError, match="are being computed already"):
        sim.compute_encodings(inner) if again == "callback" else within(sim, inner)
    assert encodings(sim) == before
    assert encodings(within(sim, lambda: None)) == before


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"x": np.full((1, 4, 8, 8), np.nan, np.float32)}, r"input 'x', run 1 of the session: 256 of 256 .* NaN"),
        ({"x": np.full((1, 4, 8, 8), np.inf, np.float32)}, "NaN or infinite"),
        (FEEDS[0]["x"], "takes a dict of arrays by input name, not ndarray"),
        ({1: FEEDS[0]["x"]}, "no input 1; did you mean|no input 1; known: x"),
        ({}, "missing"),
    ],
)
def test_what_is_no_feed_is_refused_and_changes_nothing(feed: Any, message: str) -> None:
    sim = ready()
    before = encodings(sim)
    with pytest.raises(DataError, match=message):
        within(sim, lambda: None, [WIDER[0], feed])
    assert encodings(sim) == before


def test_no_names_are_all_outputs() -> None:
    sim = ready()
    with compute_encodings(sim):
        assert len(sim.session.run([], FEEDS[0])) == len(sim.session.run(None, FEEDS[0])) == 1


# --- arguments


def test_samples_take_no_arguments_of_a_callback() -> None:
    sim = simulation()
    for given in ({"forward_pass_callback": FEEDS}, {"inputs": FEEDS}):
        with pytest.raises(ConfigError, match="samples take none"):
            sim.compute_encodings(**given, forward_pass_callback_args=3)
    assert not sim.quantizer("x").is_initialized()


@pytest.mark.parametrize(
    "call",
    [
        lambda sim: apply_adaround(sim, FEEDS),
        lambda sim: apply_seq_mse(sim, FEEDS),
        lambda sim: fine_tune(sim, FEEDS),
        lambda sim: protect(sim, FEEDS),
        lambda sim: analyze_per_layer_sensitivity(sim, float),
        lambda sim: load_encodings_to_sim(sim, {}),
        lambda sim: compute_encodings(sim).__enter__(),
        lambda sim: flip_layers_to_higher_precision(sim, {}),
        lambda sim: set_blockwise_quantization_for_weights(sim, "Conv", 4, symmetric=True, block_size=2),
    ],
)
@pytest.mark.parametrize("value", [Path("model.onnx"), None])
def test_what_is_no_simulation_is_refused(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(ConfigError, match=f"takes a QuantizationSimModel, not {type(value).__name__}"):
        call(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda sim, at: sim.export(at, None), "filename_prefix must be"),
        (lambda sim, at: sim.export(None, "m"), "path must be the path of a folder, not None"),
        (lambda sim, at: sim.export(at, "m", export_model="no"), "export_model must be True or False"),
        (lambda sim, at: sim.export(at, "m", export_int32_bias="no"), "export_int32_bias must be True or False"),
        (lambda sim, at: sim.to_onnx_qdq(export_int32_bias="no"), "export_int32_bias must be True or False"),
        (lambda sim, at: load_encodings_to_sim(sim, at / "e.encodings", strict="no"), "strict must be"),
        (lambda sim, at: load_encodings_to_sim(sim, at / "e.encodings", allow_overwrite=0), "allow_overwrite must be"),
        (lambda sim, at: sim.set_tensor_precision(5, 8), "names must be a list of names"),
        (lambda sim, at: sim.set_tensor_precision([5], 8), "names must hold strings"),
        (lambda sim, at: flip_layers_to_higher_precision(sim, {"Conv_c": float("nan")}), "score of 'Conv_c' must be"),
        (lambda sim, at: flip_layers_to_higher_precision(sim, ["Conv_c"]), "must be a dictionary, not list"),
        (lambda sim, at: LayerOutputUtil(sim.model, None), "dir_path must be the path of a folder"),
        (lambda sim, at: AutoQuant(model(), None, FEEDS, len, results_dir=5), "results_dir must be the path"),
        (
            lambda sim, at: QuantAnalyzer(model(), None, len, len).analyze(results_dir=None),
            "results_dir must be the path",
        ),
        (lambda sim, at: make_psnr_eval_fn(model(), FEEDS, 1.5), "output_indices must be a whole number"),
        (lambda sim, at: set_blockwise_quantization_for_weights(sim, None, 4, True, 2), "op_types must be a list"),
        (lambda sim, at: simulation(providers=np.array([1, 2])), "cannot be had"),
        (lambda sim, at: simulation(user_onnx_libs="ops.so"), "must be a list of paths, not 'ops.so'"),
    ],
)
def test_arguments_of_another_kind_are_refused(call: Callable[..., object], message: str, tmp_path: Path) -> None:
    sim = ready()
    sim.export(tmp_path, "e", export_model=False)
    before = encodings(sim)
    with pytest.raises(ConfigError, match=message):
        call(sim, tmp_path)
    assert encodings(sim) == before
    assert [path.name for path in tmp_path.iterdir()] == ["e.encodings"]
