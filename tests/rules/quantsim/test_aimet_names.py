"""The names that AIMET's ONNX tutorials import, the arguments that they say, and what is refused of them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from simulations import CONVS, FEEDS, encodings, model, output, ready, simulation
from text_models import normal

from quark_onnx.core.errors import ConfigError, DataError, ModelError
from quark_onnx.graph import io
from quark_onnx.quantsim import (
    QuantizationSimModel,
    QuantScheme,
    apply_adaround,
    apply_seq_mse,
    compute_encodings,
    float16,
    int4,
    int8,
    int16,
    qtype,
)
from quark_onnx.quantsim.common.defs import as_qtype
from quark_onnx.quantsim.utils import make_dummy_input

PAGE = Path(__file__).parents[3] / "docs" / "porting_aimet.md"
ROW = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
FEW = 15
"""Iterations."""

ALIKE = [{"x": feed["x"] + 2 * normal(1, 4, 1, 1, seed=seed)} for seed, feed in enumerate(FEEDS * 4)]
"""Images whose pixels are correlated: then rounding has room to gain."""


def listed(section: str) -> list[str]:
    """Names in a table of the page."""
    names = ROW.findall(PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0])
    assert len(names) >= 10
    return names


def is_there(name: str) -> bool:
    module, _, attribute = f"quark_onnx.quantsim.{name}".rpartition(".")
    return importlib.util.find_spec(module.rpartition(".")[0]) is not None and (
        importlib.util.find_spec(module) is not None and hasattr(importlib.import_module(module), attribute)
    )


def test_every_name_of_the_page_can_be_imported() -> None:
    assert [name for name in listed("Names") if not is_there(name)] == []


def test_names_that_the_page_says_are_not_here_are_not() -> None:
    assert [name for name in listed("Not here") if is_there(name)] == []


# --- types


@pytest.mark.parametrize(
    ("given", "bits"), [(int4, 4), ("int8", 8), (qtype.int(5), 5), (16, 16), ("int31", 31), (np.int64(7), 7)]
)
def test_types_of_integers(given: Any, bits: int) -> None:
    sim = (
        simulation(param_type=given, activation_type=int8) if not isinstance(given, (int, np.integer)) else simulation()
    )
    sim.quantizer("w").set_precision(given)
    assert sim.quantizer("w").bitwidth == as_qtype("x", given).bits == bits


@pytest.mark.parametrize("given", [float16, "float16", "float32", qtype.float(5, 10), qtype.float(8, 23)])
def test_float_types_leave_tensors_float(given: Any) -> None:
    assert as_qtype("x", given).floating
    weights_alone = simulation(param_type=int8, activation_type=given)
    assert {q.is_param for q in weights_alone.qc_quantize_op_dict.values() if q.enabled} == {True}
    activations_alone = simulation(param_type=given)
    assert {q.is_param for q in activations_alone.qc_quantize_op_dict.values() if q.enabled} == {False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"param_type": "int9x"}, "param_type: unknown type 'int9x'; did you mean 'int9'"),
        ({"param_type": "float8e4m3fn"}, "unknown type 'float8e4m3fn'"),
        ({"param_type": 1}, "param_type must be a whole number from 2 to 31"),
        ({"param_type": int8, "default_param_bw": 4}, "the same, but given as"),
        ({"activation_type": int8, "default_activation_bw": 4}, "the same, but given as"),
        ({"param_type": float16, "activation_type": "float32"}, "nothing would be quantized"),
        ({"config_file": "default", "quantsim_config": "default_per_tensor"}, "the same, but given as"),
        ({"use_cuda": True}, "use_cuda=True cannot be had"),
        ({"use_cudaa": False}, "no argument 'use_cudaa'; did you mean 'use_cuda'"),
        ({"parm_type": int8}, "no argument 'parm_type'; did you mean 'param_type'"),
        ({"prequantize_constants": True}, "has no argument 'prequantize_constants'"),  # it is one of to_onnx_qdq
        ({"device": 0}, "no GPU to choose"),
        ({"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}, "run on the processor"),
        ({"rounding_mode": "stochastic"}, "rounding is to nearest"),
        ({"use_symmetric_encodings": True}, "config_file"),
        ({"path": "/tmp"}, "say where results go in export"),
    ],
)
def test_arguments_that_cannot_be_had(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantizationSimModel(model(), **options)


def test_arguments_that_say_what_holds_anyway() -> None:
    said = {"use_cuda": False, "providers": ["CPUExecutionProvider"], "rounding_mode": "nearest", "path": None}
    assert encodings(ready(**said, use_symmetric_encodings=False)) == encodings(ready())


def test_float8_is_no_type_of_qtype() -> None:
    with pytest.raises(ConfigError, match=r"qtype.float\(4, 3\) is not simulated"):
        qtype.float(4, 3)


def test_each_generation_of_arguments_has_its_default_scheme() -> None:
    assert simulation(param_type=int8).quant_scheme is simulation(activation_type=int16).quant_scheme
    assert simulation(param_type=int8).quant_scheme is QuantScheme.min_max
    assert simulation(default_param_bw=8).quant_scheme is QuantScheme.post_training_tf_enhanced
    assert simulation(param_type=int8, quant_scheme="tf_enhanced").quant_scheme is simulation().quant_scheme


def test_quantsim_config_is_config_file() -> None:
    sims = [ready(**{name: "default_per_tensor"}) for name in ("config_file", "quantsim_config")]
    assert encodings(sims[0]) == encodings(sims[1]) != encodings(ready())


def test_precision_of_tensors() -> None:
    sim = simulation()
    sim.set_tensor_precision(["w", "x"], int4)
    sim.set_tensor_precision(["w", "nowhere"], float16, strict=False)
    assert not sim.quantizer("w").enabled
    assert sim.quantizer("x").bitwidth == 4
    with pytest.raises(ConfigError, match="no quantizer on tensor 'nowhere'"):
        sim.set_tensor_precision(["v", "nowhere"], float16)
    assert sim.quantizer("v").enabled


# --- a block that computes encodings


def test_a_block_computes_the_encodings_of_what_it_runs() -> None:
    sim = simulation()
    with compute_encodings(sim):
        for feed in FEEDS:
            sim.session.run(None, feed)
    assert encodings(sim) == encodings(ready())


def test_a_session_from_before_runs_in_the_block_and_after_it() -> None:
    sim = simulation()
    session = sim.session
    assert [value.name for value in session.get_inputs()] == ["x"]
    assert [value.name for value in session.get_outputs()] == ["y"]
    with pytest.raises(ConfigError, match="no encoding for 'x'"):
        session.run(None, FEEDS[0])
    with compute_encodings(sim):
        for feed in FEEDS:
            session.run(None, feed)
    assert isinstance(sim.session, onnxruntime.InferenceSession)
    np.testing.assert_array_equal(session.run(None, FEEDS[0])[0], output(ready()))
    assert encodings(sim) == encodings(ready())


@pytest.mark.parametrize("fault", [DataError, KeyError])
def test_a_block_that_fails_changes_nothing(fault: type[Exception]) -> None:
    sim = ready()
    before, computed = encodings(sim), output(sim)
    with pytest.raises(fault, match="never ran the session" if fault is DataError else "mine"), compute_encodings(sim):
        if fault is KeyError:
            sim.session.run(None, {"x": 9 * FEEDS[0]["x"]})
            raise KeyError("mine")
    assert encodings(sim) == before
    np.testing.assert_array_equal(output(sim), computed)  # and the session is that of the simulation again


def test_inputs_under_their_name() -> None:
    sim = simulation()
    sim.compute_encodings(inputs=FEEDS)
    assert encodings(sim) == encodings(ready())
    with pytest.raises(ConfigError, match="give one of them"):
        sim.compute_encodings(FEEDS, inputs=FEEDS)


# --- AdaRound in a simulation


def test_adaround_rounds_and_freezes_weights() -> None:
    sim = simulation(param_type=int4)
    before = onnx.numpy_helper.to_array(named(sim)["w"])
    apply_adaround(sim, ALIKE, FEW)
    assert [sim.quantizer(t).is_encoding_frozen() for t in ("w", "v", "x")] == [True, True, False]
    rounded, quantize = onnx.numpy_helper.to_array(named(sim)["w"]), sim.quantizer("w").quantize_dequantize
    assert (rounded != quantize(before)).any()
    np.testing.assert_array_equal(quantize(rounded), rounded)
    sim.compute_encodings(FEEDS)
    output(sim)


def test_adaround_of_some_layers_leaves_the_others() -> None:
    sim = simulation(param_type=int4)
    before = onnx.numpy_helper.to_array(named(sim)["w"])
    name = next(n.name for n in sim.float_model.graph if n.outputs[0].name == "d")
    apply_adaround(sim, ALIKE, FEW, nodes_to_include=[name])
    assert not sim.quantizer("w").is_encoding_frozen()
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(named(sim)["w"]), before)
    assert sim.quantizer("v").is_encoding_frozen()


def test_adaround_keeps_frozen_scales() -> None:
    sim = simulation(param_type=int4)
    apply_seq_mse(sim, ALIKE)
    scales = {t: sim.quantizer(t).get_encodings() for t in ("w", "v")}
    apply_adaround(sim, ALIKE, FEW)
    assert {t: sim.quantizer(t).get_encodings() for t in scales} == scales


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes_to_include": ["nowhere"]}, "nodes_to_include: the model has no layer 'nowhere'"),
        ({"num_iterations": 0}, "num_iterations"),
        ({"nodes_to_include": [], "node_names_to_optimize": ["n"]}, "the same, but given as"),
    ],
)
def test_adaround_refuses(given: dict[str, Any], message: str) -> None:
    sim = ready()
    before = encodings(sim)
    with pytest.raises(ConfigError, match=message):
        apply_adaround(sim, FEEDS, **given)
    assert encodings(sim) == before


def named(sim: QuantizationSimModel) -> dict[str, onnx.TensorProto]:
    """Initializers of the float model."""
    proto = io.to_proto(sim.float_model)
    return {tensor.name: tensor for tensor in proto.graph.initializer}


# --- a feed to try a model on


def test_a_dummy_input_runs() -> None:
    feed = make_dummy_input(model())
    assert {name: array.shape for name, array in feed.items()} == {"x": (1, 4, 8, 8)}
    assert np.isfinite(output(ready(dummy_input=feed))).all()


def test_a_dummy_input_needs_a_known_rank() -> None:
    source = model(CONVS)
    source.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="input 'x' has no known number of dimensions"):
        make_dummy_input(source)
