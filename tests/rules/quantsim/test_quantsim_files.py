"""Encodings files of a simulation, read and written, and the models that it writes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from quantized_models import run as run_model
from simulations import CONVS, FEEDS, JOINED, encodings, model, output, ready, simulation
from text_models import normal, text_model

from quark_onnx import ConfigError, PlanError
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
each_version = pytest.mark.parametrize("version", VERSIONS)

Document = dict[str, Any]


def written(sim: QuantizationSimModel, folder: Path, version: str = "1.0.0", **options: Any) -> Document:
    """The document that the simulation exports."""
    sim.export(folder, "m", encoding_version=version, **options)
    document: Document = json.loads((folder / "m.encodings").read_text("utf-8"))
    return document


def entry(document: Document, tensor: str) -> Document:
    """The entry of a tensor in a document of version 1.0.0 or 2.0.0."""
    sections = ("encodings", "activation_encodings", "param_encodings")
    found: Document = next(e for section in sections for e in document.get(section, ()) if e["name"] == tensor)
    return found


# --- there and back


@each_version
@pytest.mark.parametrize("text", [CONVS, JOINED], ids=["convs", "joined"])
@pytest.mark.parametrize("bits", [8, 4, 16])
def test_what_is_exported_is_loaded_again(tmp_path: Path, version: str, text: str, bits: int) -> None:
    """Strictly, and to the bit, with the exported float model."""
    sim = ready(text, default_param_bw=bits)
    assert written(sim, tmp_path, version)["version"] == version
    again = QuantizationSimModel(tmp_path / "m.onnx", default_param_bw=bits, threads=1)
    assert load_encodings_to_sim(again, tmp_path / "m.encodings") == []
    assert encodings(again) == encodings(sim)
    np.testing.assert_array_equal(output(again), output(sim))
    np.testing.assert_array_equal(
        run_model(io.load(tmp_path / "m.onnx"), FEEDS[0])[0], run_model(io.load(model(text)), FEEDS[0])[0]
    )


def test_encodings_alone(tmp_path: Path) -> None:
    written(ready(), tmp_path, export_model=False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.encodings"]


def test_nothing_is_written_without_encodings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no encoding for 'x'"):
        simulation().export(tmp_path, "m")
    with pytest.raises(PlanError, match=r"version '1.1.0'.*did you mean '1.0.0'"):
        ready().export(tmp_path, "m", encoding_version="1.1.0")
    assert list(tmp_path.iterdir()) == []


def test_what_off_quantizers_have_is_not_written(tmp_path: Path) -> None:
    sim = ready()
    sim.quantizer("x").enabled = False
    assert {e["name"] for e in written(sim, tmp_path)["activation_encodings"]} == {"r", "d", "y"}


@each_version
@pytest.mark.parametrize("wanted", [None, True, False])
def test_int32_biases_are_written_where_they_are_asked_for(tmp_path: Path, version: str, wanted: bool | None) -> None:
    """Version 2.0.0 has them unless they are not wanted, the others never; they are no mismatch when it is loaded."""
    document = written(ready(), tmp_path, version, export_int32_bias=wanted)
    names = [e["name"] for e in document.get("encodings", ())]
    assert ("b" in names) == (version == "2.0.0" and wanted is not False)
    if "b" in names:
        assert entry(document, "b")["output_dtype"] == "int32"
    assert load_encodings_to_sim(simulation(), document) == []


def test_version_2_says_symmetry_by_the_type(tmp_path: Path) -> None:
    """As AIMET reads it: signed is symmetric, unsigned is not."""
    sim = simulation()
    sim.quantizer("r").use_symmetric_encodings = True
    sim.quantizer("v").use_symmetric_encodings = False
    sim.compute_encodings(FEEDS)
    document = written(sim, tmp_path, "2.0.0")
    found = {tensor: entry(document, tensor)["output_dtype"] for tensor in ("x", "r", "w", "v")}
    assert found == {"x": "uint8", "r": "int8", "w": "int8", "v": "uint8"}
    again = simulation()
    again.quantizer("r").use_symmetric_encodings = True
    again.quantizer("v").use_symmetric_encodings = False
    assert load_encodings_to_sim(again, document) == []
    np.testing.assert_array_equal(output(again), output(sim))


# --- strict, and not


def changed(document: Document, tensor: str, **fields: Any) -> Document:
    """The document with another entry; the one given stays."""
    copy: Document = json.loads(json.dumps(document))
    entry(copy, tensor).update(fields)
    return copy


def without(document: Document, tensor: str) -> Document:
    """The document without an entry."""
    copy: Document = json.loads(json.dumps(document))
    for section in ("activation_encodings", "param_encodings"):
        copy[section] = [e for e in copy[section] if e["name"] != tensor]
    return copy


def mismatched(folder: Path) -> dict[str, tuple[Document, str]]:
    """Documents that do not meet the simulation, and what a strict load says."""
    good = written(ready(), folder)
    x = entry(good, "x")
    more = json.loads(json.dumps(good))
    more["activation_encodings"].append(x | {"name": "rr"})
    off = json.loads(json.dumps(good))
    off["activation_encodings"].append(x | {"name": "c"})
    floats = changed(without(good, "x"), "r", bw=8)
    floats["activation_encodings"].append({"name": "x", "bw": 16, "dtype": "FLOAT", "enc_type": "PER_TENSOR"})
    wide = changed(good, "x", bw=32)
    return {
        "width": (changed(good, "x", bw=4, offset=[-8.0]), "'x': uint8 asymmetric per-tensor → uint4"),
        "symmetry": (changed(good, "x", is_sym=True, offset=[-128.0]), "'x': uint8 asymmetric .* → uint8 symmetric"),
        "missing": (without(good, "x"), "'x': its quantizer is on, the file has no encoding"),
        "unknown": (more, "'rr': the simulation has no quantizer there; did you mean 'r'"),
        "off": (off, "'c': its quantizer is off, the file has an encoding"),
        "float16": (floats, "'x': float16 in the file, which is left float32"),
        "uint32": (wide, "'x': uint32 in the file, which is left float32"),
    }


@pytest.mark.parametrize("kind", ["width", "symmetry", "missing", "unknown", "off", "float16", "uint32"])
def test_a_strict_load_refuses_what_differs_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    document, message = mismatched(tmp_path)[kind]
    sim = ready()
    sim.quantizer("d").enabled = False
    before = encodings(sim)
    with pytest.raises(PlanError, match=f"do not belong to this simulation: .*{message}.*strict=False"):
        load_encodings_to_sim(sim, document)
    assert encodings(sim) == before


@pytest.mark.parametrize("kind", ["width", "symmetry", "missing", "unknown", "off", "float16", "uint32"])
def test_another_load_takes_what_there_is_and_tells(tmp_path: Path, kind: str) -> None:
    document, message = mismatched(tmp_path)[kind]
    sim = simulation()
    found = load_encodings_to_sim(sim, document, strict=False)
    assert any(np.char.find(line, message.split(":")[0]) == 0 for line in found)
    on = {t for t, q in sim.qc_quantize_op_dict.items() if q.enabled}
    expected = {"w", "v", "x", "r", "d", "y"}
    lost = dict.fromkeys(("missing", "float16", "uint32"), expected - {"x"})
    assert on == {**lost, "off": expected | {"c"}}.get(kind, expected)
    if kind == "width":
        assert sim.quantizer("x").bitwidth == 4
        assert sim.model.opset_import[0].version == 17  # which has no type of 4 bits
    assert sim.quantizer("x").use_symmetric_encodings == (kind == "symmetry")
    output(sim)


def test_quantizers_that_are_not_named_may_stay(tmp_path: Path) -> None:
    document = without(written(ready(), tmp_path), "x")
    sim = ready()
    before = sim.quantizer("x").get_encodings()
    load_encodings_to_sim(sim, document, strict=False, disable_missing_quantizers=False)
    assert sim.quantizer("x").enabled
    assert sim.quantizer("x").get_encodings() == before


def test_scales_that_do_not_fit_are_refused_whatever_is_asked(tmp_path: Path) -> None:
    document = written(ready(), tmp_path)
    bad = changed(document, "w", scale=[0.1] * 3, offset=[-128.0] * 3)
    sim = ready()
    before = encodings(sim)
    path = tmp_path / "bad.encodings"
    path.write_text(json.dumps(bad))
    for strict in (True, False):
        with pytest.raises(PlanError, match=r"bad\.encodings: tensor 'w' of shape .* has 3 scales"):
            load_encodings_to_sim(sim, path, strict=strict)
    with pytest.raises(PlanError, match="no encodings file"):
        load_encodings_to_sim(sim, tmp_path / "nowhere.encodings")
    assert encodings(sim) == before


def test_tied_tensors_part_where_the_file_has_them_apart(tmp_path: Path) -> None:
    document = written(ready(JOINED), tmp_path)
    sim = simulation(JOINED)
    load_encodings_to_sim(sim, document)
    assert sim.quantizer("a") is sim.quantizer("c")
    apart = changed(document, "a", scale=[0.5])
    load_encodings_to_sim(sim, apart)
    assert sim.quantizer("a") is not sim.quantizer("c")
    shown = [sim.quantizer(tensor).get_encodings() for tensor in ("a", "c", "d")]
    assert [found[0].delta == 0.5 for found in shown if found] == [True, False, False]
    output(sim)


CLIPPED = """g (float[1,4,8,8] x) => (float[1,256] y) <float lo = {0.0}, float hi = {6.0}, int64[2] s = {1,-1}> {
    c = Conv<pads=[1,1,1,1]>(x,w,b) r = Clip(c,lo,hi) d = Reshape(r,s) y = Neg(d)
}"""


def test_version_2_may_name_tensors_that_inherited_their_encoding(tmp_path: Path) -> None:
    """AIMET writes the encoding of a Clip or a Reshape on both sides; another one there is a mismatch."""
    proto = text_model(CLIPPED, w=normal(4, 4, 3, 3), b=normal(4))

    def sim() -> QuantizationSimModel:
        return QuantizationSimModel(proto, threads=1)

    made = sim()
    made.compute_encodings(FEEDS)
    document = written(made, tmp_path, "2.0.0")
    assert not {"c", "d"} & {e["name"] for e in document["encodings"]}
    document["encodings"] += [entry(document, "r") | {"name": name} for name in ("c", "d")]
    loaded = sim()
    assert load_encodings_to_sim(loaded, document) == []
    assert not loaded.quantizer("c").enabled
    np.testing.assert_array_equal(output(loaded), output(made))
    with pytest.raises(PlanError, match="'c': its quantizer is off"):
        load_encodings_to_sim(sim(), changed(document, "c", y_scale=0.5))


# --- frozen parameters


def test_parameters_are_set_and_frozen(tmp_path: Path) -> None:
    """Activations of the file are left alone; calibration passes frozen ones over."""
    source = ready(quant_scheme="min_max")
    written(source, tmp_path)
    sim = simulation()
    sim.set_and_freeze_param_encodings(tmp_path / "m.encodings")
    frozen = {t for t, q in sim.qc_quantize_op_dict.items() if q.is_encoding_frozen()}
    assert frozen == {"w", "v"}
    assert not sim.quantizer("x").is_initialized()
    sim.compute_encodings(FEEDS)
    assert sim.quantizer("w").get_encodings() == source.quantizer("w").get_encodings()
    assert sim.quantizer("w").get_encodings() != ready().quantizer("w").get_encodings()
    load_encodings_to_sim(sim, written(ready(), tmp_path))
    assert sim.quantizer("w").get_encodings() == source.quantizer("w").get_encodings()


def test_parameters_of_another_model_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = written(ready(), tmp_path)
    sim = simulation()
    with caplog.at_level(logging.WARNING, "quark_onnx"):
        sim.set_and_freeze_param_encodings(document)
        assert "no quantizer" not in caplog.text
        sim.set_and_freeze_param_encodings(changed(document, "v", name="vv"))
        assert "has no encodings" not in caplog.text
        other = simulation()
        other.set_and_freeze_param_encodings(without(document, "v"))
    assert "'vv': the simulation has no quantizer there; did you mean 'v'" in caplog.text
    assert "encodings has no encodings for 1 of the quantized parameters, e.g. 'v'" in caplog.text


def test_a_list_of_parameters_alone(tmp_path: Path) -> None:
    """As AdaRound of AIMET 1.x writes it; what is no document at all is refused."""
    document = written(ready(), tmp_path)
    sim = simulation()
    sim.set_and_freeze_param_encodings(document["param_encodings"])
    assert {t for t, q in sim.qc_quantize_op_dict.items() if q.is_encoding_frozen()} == {"w", "v"}
    for other in (None, 3, [1], b"{}"):
        with pytest.raises(PlanError, match="encodings: "):
            load_encodings_to_sim(sim, other)  # type: ignore[arg-type]


def test_loaded_encodings_may_be_frozen(tmp_path: Path) -> None:
    document = written(ready(), tmp_path)
    for overwrite in (True, False):
        sim = simulation()
        load_encodings_to_sim(sim, document, allow_overwrite=overwrite)
        on = [q for q in sim.qc_quantize_op_dict.values() if q.enabled]
        assert {q.is_encoding_frozen() for q in on} == {not overwrite}


# --- the quantized model


def kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """ONNX types of the initializers."""
    return {value.name: value.data_type for value in proto.graph.initializer}


@pytest.mark.parametrize(
    ("options", "kind", "opset"),
    [
        ({}, onnx.TensorProto.UINT8, 17),  # as int8 it could saturate
        ({"default_param_bw": 4}, onnx.TensorProto.INT4, 21),
        ({"default_param_bw": 5}, onnx.TensorProto.INT8, 17),
        ({"default_param_bw": 16, "default_output_bw": 16}, onnx.TensorProto.INT16, 21),
    ],
    ids=["8", "4", "5", "16"],
)
def test_the_quantized_model_computes_what_the_simulation_does(options: Any, kind: int, opset: int) -> None:
    """To a step of the last quantizer, and of what one in front makes of it; int32 biases round those, too."""
    sim = ready(**options)
    proto = sim.to_onnx_qdq()
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == opset
    assert kinds(proto)["w_quantized"] == kind
    assert kinds(proto)["b_quantized"] == onnx.TensorProto.INT32
    assert "b" not in kinds(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    want, got = (np.stack([run.run(None, feed)[0] for feed in FEEDS]) for run in (sim.session, session))
    noise = np.square(want - got).mean() / np.square(want).mean()
    assert noise < 10**-3.5


def test_biases_stay_float_where_that_is_asked_for() -> None:
    proto = ready().to_onnx_qdq(export_int32_bias=False)
    assert kinds(proto)["b"] == onnx.TensorProto.FLOAT
    assert "b_quantized" not in kinds(proto)


def test_a_bias_with_a_quantizer_of_its_own_is_no_int32() -> None:
    sim = ready()
    sim.quantizer("b").enabled = True
    assert kinds(sim.to_onnx_qdq())["b_quantized"] == onnx.TensorProto.INT8


def test_without_encodings_there_is_no_quantized_model() -> None:
    with pytest.raises(ConfigError, match="no encoding for 'x'"):
        simulation().to_onnx_qdq()
