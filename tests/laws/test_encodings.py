"""Encodings files: the examples of every version, round trips that lose nothing but what they say, malformed files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx.core.errors import PlanError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Coded, Plan, QParams, Site
from quark_onnx.encodings import (
    Encoding,
    EncodingFile,
    adapted,
    document,
    from_plan,
    into_plan,
    losses,
    read,
    to_sites,
    with_axes,
    write,
)
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import along, dequantize, qparams, quantize

law = settings(deadline=None, max_examples=60)
VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
each_version = pytest.mark.parametrize("version", VERSIONS)

# Written by aimet-onnx 2.42 (figures of its scales shortened).
V061: dict[str, Any] = {
    "version": "0.6.1",
    "producer": {"package": "aimet-onnx", "version": "2.42.0"},
    "quantizer_args": {"activation_bitwidth": 8, "dtype": "int", "is_symmetric": True, "param_bitwidth": 8},
    "activation_encodings": {
        "x": [
            {"bitwidth": 8, "dtype": "int", "is_symmetric": "False"}
            | {"max": 2.385, "min": -1.489, "offset": -98.0, "scale": 0.01519}
        ],
        "s": [
            {"bitwidth": 8, "dtype": "int", "is_symmetric": "True"}
            | {"max": 2.34, "min": -2.32, "offset": -127.0, "scale": 0.0183}
        ],
        "h": [{"bitwidth": 16, "dtype": "float"}],
    },
    "param_encodings": {
        "conv.w": [
            {"bitwidth": 8, "dtype": "int", "is_symmetric": "True"}
            | {"max": 0.5066, "min": -0.5106, "offset": -128.0, "scale": 0.003989},
            {"bitwidth": 8, "dtype": "int", "is_symmetric": "True"}
            | {"max": 0.3901, "min": -0.3932, "offset": -128.0, "scale": 0.003072},
        ]
    },
}
V100: dict[str, Any] = {
    "version": "1.0.0",
    "producer": {"package": "aimet-onnx", "version": "2.42.0"},
    "quantizer_args": {"activation_bitwidth": 8, "quant_scheme": "min_max"},
    "excluded_layers": [],
    "activation_encodings": [
        {"name": "x", "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": False}
        | {"scale": [0.01519], "offset": [-98.0]},
        {"name": "s", "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": True}
        | {"scale": [0.0183], "offset": [-127.0]},
        {"name": "h", "enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": 16},
    ],
    "param_encodings": [
        {"name": "conv.w", "enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 8, "is_sym": True}
        | {"scale": [0.003989, 0.003072], "offset": [-128.0, -128.0]},
        {"name": "fc.w", "enc_type": "PER_BLOCK", "block_size": 4, "dtype": "INT", "bw": 4, "is_sym": True}
        | {"scale": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "offset": [-8.0] * 6},
    ],
}
V200: dict[str, Any] = {
    "version": "2.0.0",
    "producer": {"package": "aimet-onnx", "version": "2.42.0"},
    "encodings": [
        {"name": "conv.w", "output_dtype": "int8", "axis": 0, "y_scale": [0.003989, 0.003072]},
        {"name": "conv.b", "output_dtype": "int32", "axis": 0, "y_scale": [6.06e-05, 4.67e-05]},
        {"name": "x", "output_dtype": "uint8", "y_scale": 0.01519, "y_zero_point": 98},
        {"name": "fc.w", "output_dtype": "int4", "axis": 1, "block_size": 4, "y_scale": [[0.16, 0.15], [0.19, 0.17]]},
    ],
}
EXAMPLES = {"0.6.1": V061, "1.0.0": V100, "2.0.0": V200}


def by_name(content: dict[str, Any]) -> dict[str, Any]:
    """A document whose lists of entries are compared whatever their order."""
    lists = {key: {e["name"]: e for e in value} for key, value in content.items() if key.endswith("encodings")}
    return content | lists if content["version"] in ("1.0.0", "2.0.0") else content


@each_version
def test_what_aimet_wrote_is_written_again_as_it_was(version: str) -> None:
    example = copy.deepcopy(EXAMPLES[version])
    back = document(read(example))
    if version == "0.6.1":  # the ends of the range are computed
        for section in (back["activation_encodings"], back["param_encodings"]):
            for channel in (c for channels in section.values() for c in channels if c["dtype"] == "int"):
                assert channel.pop("min") == channel["offset"] * channel["scale"]
                assert channel.pop("max") == pytest.approx((channel["offset"] + 255) * channel["scale"])
        for section in (example["activation_encodings"], example["param_encodings"]):
            for channel in (c for channels in section.values() for c in channels):
                channel.pop("min", None), channel.pop("max", None)
        assert back == example
    else:
        assert by_name(back) == by_name(example)


def test_signs_of_the_three_versions() -> None:
    """x̂ = (q + offset)·scale with q from 0: offset −98 is ONNX zero point 98; −128 of a symmetric grid is 0 of int8."""
    for version in VERSIONS:
        found = read(EXAMPLES[version]).all
        x, w = found["x"], found["conv.w"]
        assert (x.dtype, x.zero_point.item(), x.offset.item(), x.symmetric) == ("uint8", 98, -98, False)
        assert (w.dtype, w.zero_point.tolist(), w.offset.tolist(), w.symmetric) == ("int8", [0, 0], [-128, -128], True)
    for version in ("0.6.1", "1.0.0"):
        s = read(EXAMPLES[version]).activations["s"]
        assert (s.dtype, s.zero_point.item(), s.strict) == ("int8", 0, True)


def test_the_same_grid_in_every_version() -> None:
    """Signed with zero point 5: 0.6.1 and 1.0.0 say 133 codes below 0, 2.0.0 has the zero point itself."""
    a = Encoding("a", "int8", np.array(0.5), np.array(5))
    file = EncodingFile({"a": a}, {})
    (entry,) = document(file, "0.6.1")["activation_encodings"]["a"]
    assert (entry["offset"], entry["is_symmetric"], entry["min"], entry["max"]) == (-133, "False", -66.5, 61.0)
    (entry,) = document(file, "1.0.0")["activation_encodings"]
    assert (entry["offset"], entry["is_sym"], entry["scale"]) == ([-133], False, [0.5])
    (entry,) = document(file, "2.0.0")["encodings"]
    assert (entry["output_dtype"], entry["y_zero_point"], entry["y_scale"]) == ("int8", 5, 0.5)


def test_older_dictionaries_are_read() -> None:
    old = copy.deepcopy(V061) | {"version": "0.5.0"}
    assert read(old).same(read(V061))
    old["version"] = "0.4.0"
    for section in ("activation_encodings", "param_encodings"):
        old[section] = {
            t: [{k: v for k, v in channel.items() if k != "dtype"} for channel in channels]
            for t, channels in old[section].items()
            if t != "h"
        }
    assert read(old).parameters["conv.w"].same(read(V061).parameters["conv.w"])
    with pytest.raises(PlanError, match=r"0\.4\.0.*to write.*0\.6\.1"):
        document(read(old))


def test_files_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.encodings"
    file = read(V200, ["conv.w", "conv.b", "fc.w"])
    assert write(file, path) == []
    assert read(path).same(file)  # without names: what has an axis or 32 bits
    assert read(path).producer == {"package": "aimet-onnx", "version": "2.42.0"}
    blocks = write(file, path, "0.6.1")[0]
    assert str(blocks) == "blocks, which 0.6.1 does not have, left out: 'fc.w'"
    with pytest.raises(PlanError, match=r"there is no encodings file .*absent"):
        read(tmp_path / "absent.encodings")


# Round trips


def codes(draw: st.DrawFn, bits: int, symmetric: bool, shape: tuple[int, ...]) -> np.ndarray:
    """Zero points counted from the lowest code."""
    known = st.sampled_from([0, 1 << (bits - 1)]) if symmetric else st.integers(0, (1 << bits) - 1)
    size = int(np.prod(shape))
    return np.array(draw(st.lists(known, min_size=size, max_size=size)), np.int64).reshape(shape)


@st.composite
def encodings(draw: st.DrawFn, tensor: str) -> Encoding:
    """Any that a plan may have."""
    if draw(st.integers(0, 9)) == 0:
        return Encoding(tensor, "float16")
    bits, signed, symmetric = draw(st.sampled_from([2, 4, 6, 8, 16, 32])), draw(st.booleans()), draw(st.booleans())
    axis = draw(st.none() | st.integers(0, 1))
    block = draw(st.none() | st.integers(1, 9)) if axis is not None else None
    shape = () if axis is None else draw(st.sampled_from([(2, 3), (2, 3, 1), (1, 2, 2)] if block else [(1,), (4,)]))
    zero_point = codes(draw, bits, symmetric, shape) - (1 << (bits - 1) if signed else 0)
    numbers = st.floats(2.0**-126, 2.0**127)
    scale = np.array(draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    strict = symmetric and draw(st.booleans())
    dtype = f"{'' if signed else 'u'}int{bits}"
    return Encoding(tensor, dtype, scale.reshape(shape), zero_point, symmetric, strict, axis, block)


NAMES = ("x", "conv.weight", "/a/b:0", "µ")


@st.composite
def files(draw: st.DrawFn) -> EncodingFile:
    found = {name: draw(encodings(name)) for name in draw(st.lists(st.sampled_from(NAMES), unique=True))}
    parameters = {name for name in found if draw(st.booleans())}
    kept = [{t: e for t, e in found.items() if (t in parameters) == part} for part in (False, True)]
    return EncodingFile(kept[0], kept[1])


@each_version
@law
@given(file=files())
def test_a_file_says_what_it_loses(file: EncodingFile, version: str) -> None:
    """Read back, exactly the tensors that `losses` names are gone or different."""
    text = json.dumps(document(file, version))
    back = read(json.loads(text), file.parameters or ["no such tensor"])
    assert back.version == version
    told = {tensor for loss in losses(file, version) for tensor in loss.tensors}
    different = {t for t, e in file.all.items() if t not in back.all or not back.all[t].same(e)}
    assert different == told
    assert back.parameters.keys() <= file.parameters.keys()
    assert json.loads(text) == document(back)  # and from there on nothing changes


@law
@given(file=files())
def test_values_are_the_same_in_every_version(file: EncodingFile) -> None:
    """The real value of every code is: offset + k, times the scale, in the order of the file."""
    for version in VERSIONS:
        for tensor, e in read(document(file, version), file.parameters).all.items():
            was = file.all[tensor]
            if not e.is_float:
                flat = [
                    (x.T if version == "1.0.0" and was.axis == 0 and x.ndim == 2 else x)
                    for x in (was.offset, was.scale)
                ]
                assert e.offset.reshape(-1).tolist() == flat[0].reshape(-1).tolist()
                assert e.scale.reshape(-1).tolist() == flat[1].reshape(-1).tolist()


SHAPES = {"w": (4, 6), "k": (4, 6, 3, 3), "b": (4,), "c": (1, 4), "v": (4,), "o": (1, 5)}


@st.composite
def formats(draw: st.DrawFn, shape: tuple[int, ...] | None) -> Format:
    axis = None if shape is None else draw(st.none() | st.integers(0, min(1, len(shape) - 1)))
    block = None if axis is None or shape is None or len(shape) < 2 else draw(st.none() | st.sampled_from([1, 2, 4]))
    bits = draw(st.sampled_from([2, 3, 4, 6, 8, 12, 16]))
    return Format(
        bits,
        draw(st.booleans()),
        draw(st.booleans()),
        axis,
        block,
        draw(st.sampled_from(["float", "pow2", "half"])),
        draw(st.sampled_from([None, True, False])),
        draw(st.booleans()),
        draw(st.sampled_from([None, 16])),
    )


def group_shape(format: Format, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if format.axis is None or shape is None:
        return ()
    if format.block is None:
        return (shape[format.axis],)
    return tuple(-(-n // format.block) if i == format.axis else n for i, n in enumerate(shape))


def drawn_qparams(draw: st.DrawFn, format: Format, shape: tuple[int, ...] | None) -> QParams:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    wanted = group_shape(format, shape)
    thin = wanted[:2] + (1,) * (len(wanted) - 2) if draw(st.booleans()) else wanted
    lo, hi = np.sort(rng.standard_normal((2, *thin)) * 10.0 ** draw(st.integers(-4, 4)), axis=0)
    lo = np.abs(lo) if draw(st.booleans()) else lo
    return qparams(np.broadcast_to(lo, wanted), np.broadcast_to(np.maximum(hi, lo), wanted), format)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    sites, chosen = {}, {}
    plain = draw(formats(None))
    for tensor in draw(st.lists(st.sampled_from(["x", "y", "z"]), unique=True)):
        group = draw(st.sampled_from([tensor, *(t for t in sites if sites[t].group == t)]))
        sites[tensor] = Site(tensor, "activation", plain, group, "layer")
        chosen.setdefault(group, drawn_qparams(draw, plain, None))
    for tensor in draw(st.lists(st.sampled_from(["w", "k", "c", "v", "o"]), unique=True)):
        role = {"c": "constant", "v": "bias"}.get(tensor, "weight")
        format = draw(formats(SHAPES[tensor] if role == "weight" else None))
        sites[tensor] = Site(tensor, role, format, tensor, "layer")
        chosen[tensor] = drawn_qparams(draw, format, SHAPES[tensor])
    if {"x", "w"} <= sites.keys() and sites["w"].format.axis in (None, 0) and not sites["w"].format.block:
        axis = sites["w"].format.axis
        sites["b"] = Site("b", "bias", Format(32, True, True, axis), "b", "layer", ("x", "w"))
    if draw(st.booleans()):
        sites["d"] = Site("d", "dynamic", Format(8, False), "d", "layer")
    return Plan("m", sites, {}, {}, chosen)


def blank(plan: Plan) -> Plan:
    """The same sites with other numbers."""
    other = {
        group: QParams(np.full_like(q.scale, 2.0**-7), np.zeros_like(q.zero_point)) for group, q in plan.qparams.items()
    }
    return replace(plan, qparams=other)


@each_version
@law
@given(plan=plans())
def test_a_plan_comes_back_from_its_file(plan: Plan, version: str) -> None:
    """Formats, groups, scales and zero points to the bit; only blocks are not in 0.6.1, and say so."""
    file = from_plan(plan, SHAPES)
    text = json.dumps(document(file, version))
    gone = {t for loss in losses(file, version) if loss.what.endswith("left out") for t in loss.tensors} | {"d"}
    merged = into_plan(blank(plan), read(json.loads(text), SHAPES), SHAPES)
    assert (merged.changed, merged.foreign, merged.losses) == ({}, (), ())
    blocked = [t for t, site in plan.sites.items() if site.format.block and (version == "0.6.1" or t in gone)]
    assert set(merged.missing) == set(blocked)
    assert merged.plan.sites == plan.sites
    for tensor in plan.sites:
        if tensor not in gone and tensor != "b":
            assert merged.plan.qparams_of(tensor).same(plan.qparams_of(tensor)), tensor
            assert merged.plan.qparams_of(tensor).zero_point.dtype == np.int32


@law
@given(plan=plans())
def test_quantized_values_are_those_of_the_file(plan: Plan) -> None:
    """What a site's integers stand for follows from the file alone: k steps from the offset."""
    file = from_plan(plan, SHAPES)
    for tensor, site in plan.sites.items():
        format = site.format
        if format.bits == 32 or site.role == "dynamic" or format.block:
            continue  # no grid of their own, or in another order
        e, q, shape = file.all[tensor], plan.qparams_of(tensor), SHAPES.get(tensor, (5,))
        found = quantize(np.random.default_rng(0).standard_normal(shape).astype(np.float32), q, format)
        values = (found - format.lo + along(e.offset, shape, format)) * along(e.scale, shape, format)
        assert np.allclose(values, dequantize(found, q, format), rtol=1e-6, atol=0)


def test_a_bias_has_the_product_of_scales() -> None:
    x, w = QParams(np.float32(0.1), np.int32(3)), QParams(np.array([0.3, 0.7], np.float32), np.zeros(2, np.int32))
    sites = {
        "x": Site("x", "activation", Format(8, False), "x", "layer"),
        "w": Site("w", "weight", Format(8, True, True, 1), "w", "layer"),
        "b": Site("b", "bias", Format(32, True, True, 0), "b", "layer", ("x", "w")),
    }
    shapes = {"w": (3, 2, 1, 1), "b": (4,)}  # a ConvTranspose of two groups
    plan = Plan("m", sites, {}, {}, {"x": x, "w": w})
    file = from_plan(plan, shapes)
    assert file.parameters["b"].scale.tolist() == integer_bias.scale(x.scale, w.scale, 2).astype(float).tolist()
    assert (file.parameters["b"].dtype, file.parameters["b"].axis) == ("int32", 0)
    assert losses(file, "1.0.0")[0].tensors == ("b",)
    assert into_plan(plan, file, shapes, strict=True).plan.sites == plan.sites

    other = replace(file.parameters["b"], scale=file.parameters["b"].scale * 1.01)
    merged = into_plan(plan, replace(file, version="2.0.0", parameters={**file.parameters, "b": other}), shapes)
    assert [(loss.what[:10], loss.tensors) for loss in merged.losses] == [("int32 bias", ("b",))]
    other = replace(file.parameters["b"], dtype="int16")
    merged = into_plan(plan, replace(file, version="2.0.0", parameters={**file.parameters, "b": other}), shapes)
    assert [loss.tensors for loss in merged.losses] == [("b",)]
    early = into_plan(replace(plan, qparams={}), replace(file, version="2.0.0", activations={}), shapes)
    assert (early.missing, early.losses) == (("x",), ())  # the range of x is chosen later
    assert "b" not in adapted(file, biases=False).parameters
    assert adapted(file, biases=False).losses[0].tensors == ("b",)


# Into a plan


def small() -> Plan:
    plain, weight = Format(8, False), Format(8, True, True, 0, strict=False)
    sites = {
        "x": Site("x", "activation", plain, "x", "layer"),
        "y": Site("y", "activation", plain, "x", "follow"),
        "w": Site("w", "weight", weight, "w", "layer"),
    }
    numbers = {
        "x": QParams(np.float32(0.5), np.int32(7)),
        "w": QParams(np.ones(4, np.float32), np.zeros(4, np.int32)),
    }
    return Plan("m", sites, {}, {}, numbers, codes={"w": Coded(np.ones((4, 6), np.int32), np.ones(4, np.float32))})


def entry(name: str, scale: Any = 0.25, offset: Any = -9, **more: Any) -> dict[str, Any]:
    plain = {"name": name, "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": False}
    lists = {key: v if isinstance(v, list) else [v] for key, v in (("scale", scale), ("offset", offset))}
    return plain | lists | more


def made(*activations: dict[str, Any], parameters: tuple[dict[str, Any], ...] = ()) -> EncodingFile:
    sections = {"activation_encodings": list(activations), "param_encodings": list(parameters)}
    return read({"version": "1.0.0", **sections})


def test_tensors_that_share_a_grid() -> None:
    """Named ones part when the file has different grids for them; one that is not named goes with its group."""
    alone = into_plan(small(), made(entry("x")), {"w": (4, 6)})
    assert alone.plan.sites["y"].group == "x"
    assert alone.plan.qparams_of("y").same(QParams(np.float32(0.25), np.int32(9)))
    assert alone.missing == ("w",)
    apart = into_plan(small(), made(entry("y")), {"w": (4, 6)}).plan
    assert apart.qparams_of("x").same(apart.qparams_of("y"))  # y speaks for its group
    both = into_plan(small(), made(entry("x"), entry("y", 0.75)), {"w": (4, 6)}).plan
    assert (both.sites["x"].group, both.sites["y"].group) == ("x", "y")
    assert both.qparams_of("x").scale == np.float32(0.25)
    assert both.qparams_of("y").scale == np.float32(0.75)
    stays = into_plan(small(), made(entry("x"), entry("y", 0.5, -7)), {"w": (4, 6)}).plan
    assert stays.sites["y"].group == "y"
    assert (stays.qparams_of("x").scale, stays.qparams_of("y").scale) == (np.float32(0.25), np.float32(0.5))


def test_settings_that_change_are_told() -> None:
    merged = into_plan(small(), made(entry("x", bw=4, offset=-3), entry("q")), {"w": (4, 6)})
    assert merged.plan.sites["x"].format == merged.plan.sites["y"].format == Format(4, False)
    assert merged.changed == dict.fromkeys("xy", "uint8 asymmetric per-tensor → uint4 asymmetric per-tensor")
    assert (merged.missing, merged.foreign) == (("w",), ("q",))
    with pytest.raises(PlanError, match=r"file and plan differ: .*'x'.*strict=False"):
        into_plan(small(), made(entry("x", bw=4, offset=-3)), {"w": (4, 6)}, strict=True)


def test_a_weight_of_one_channel() -> None:
    """0.6.1 does not tell it from a whole tensor: it stays what the plan has."""
    weight = Site("w", "weight", Format(8, True, True, 0), "w", "layer")
    plan = Plan("m", {"w": weight}, {}, {}, {"w": QParams(np.ones(1, np.float32), np.zeros(1, np.int32))})
    file = from_plan(plan, {"w": (1, 4)})
    merged = into_plan(plan, read(document(file, "0.6.1")), {"w": (1, 4)}, strict=True)
    assert merged.plan.qparams_of("w").scale.shape == (1,)
    assert losses(file, "0.6.1")[-1].what == "one channel is not told from the whole tensor"


@pytest.mark.parametrize(
    ("base", "dtype", "zero_point", "format"),
    [
        (Format(8, True, True), "int8", 5, Format(8, True, False)),
        (Format(8, True, True), "uint8", 5, Format(8, False, False)),
        (Format(8, True, True), "uint8", 128, Format(8, False, True)),
        (Format(8, True, True), "int8", -128, Format(8, True, True, one_sided=True)),
        (Format(8, True, True, strict=False), "int8", -1, Format(8, True, True, strict=True)),
        (Format(8, True, False), "int8", 0, Format(8, True, False)),
        (Format(8, False, True, strict=False), "uint8", 127, Format(8, False, True, strict=True)),
        (Format(6, True, False, stored=8), "int8", 0, Format(8, True, False, stored=8)),
        (Format(6, True, False, stored=8), "int16", 0, Format(16, True, False)),
        (Format(8, False, scale="pow2"), "uint8", 0, Format(8, False)),
    ],
)
def test_types_of_version_2_are_taken(base: Format, dtype: str, zero_point: int, format: Format) -> None:
    """Symmetry stays as planned where the zero point allows it."""
    plan = Plan("m", {"x": Site("x", "activation", base, "x", "layer")}, {}, {}, {})
    one = {"name": "x", "output_dtype": dtype, "y_scale": 0.3, "y_zero_point": zero_point}
    merged = into_plan(plan, read({"version": "2.0.0", "encodings": [one]}, ["w"]), {}).plan
    found, q = merged.sites["x"].format, merged.qparams_of("x")
    assert found == format
    assert q.scale == np.float32(0.3)
    lowest = (found.lo - q.zero_point) * 0.3
    assert lowest == pytest.approx((Format(found.bits, found.signed).lo - zero_point) * 0.3)


@pytest.mark.parametrize("kind", ["codes", "rounded"])
def test_integers_stay_with_their_grid(kind: str) -> None:
    kept = entry("w", enc_type="PER_CHANNEL", is_sym=True, scale=[1.0] * 4, offset=[-128] * 4)
    plan = replace(small(), **{"codes": {}, kind: small().codes})
    merged = into_plan(plan, made(entry("x"), parameters=(kept,)), {"w": (4, 6)}, strict=True)
    assert getattr(merged.plan, kind).keys() == {"w"}
    strict = into_plan(plan, made(parameters=(kept | {"offset": [-127] * 4},)), {"w": (4, 6)})
    assert strict.changed == {"w": "strict: False → True"}
    other = into_plan(plan, made(entry("x"), parameters=(kept | {"scale": [1.0, 1, 1, 2]},)), {"w": (4, 6)})
    assert other.plan.coded("w") is None
    assert other.plan.qparams_of("w").scale.tolist() == [1, 1, 1, 2]
    assert [loss.tensors for loss in other.losses] == [("w",)]


@pytest.mark.parametrize(
    ("dtype", "zero_point", "safe"),
    [("int8", 0, True), ("int8", 5, False), ("int8", -128, False), ("uint8", 128, False), ("int4", 0, False)],
)
def test_pairs_are_bound_in_int8_around_zero_only(dtype: str, zero_point: int, safe: bool) -> None:
    """The codes of others are not those whose neighbours a kernel adds, or cannot be too large."""
    base = replace(Format(8, True, True), safe_pairs="row")
    plan = Plan("m", {"w": Site("w", "weight", base, "w", "layer")}, {}, {}, {})
    encoding = Encoding("w", dtype, np.ones(()), np.asarray(zero_point), zero_point in (0, 128, -128))
    file = EncodingFile({}, {"w": encoding}, version="2.0.0")
    assert into_plan(plan, file, {"w": (4, 6)}).plan.sites["w"].format.safe_pairs == ("row" if safe else "")


def test_axes_that_a_file_does_not_say() -> None:
    per_channel = entry("w", enc_type="PER_CHANNEL", is_sym=True, scale=[1.0, 2, 3, 4, 5, 6], offset=[-128] * 6)
    file = made(parameters=(per_channel,))
    whole = replace(small(), codes={}, sites={"w": replace(small().sites["w"], format=Format(8, True, True))})
    with pytest.raises(PlanError, match=r"'w' has 6 scales.*`axes`.*2\.0\.0"):
        into_plan(whole, file, {"w": (4, 6)})
    merged = into_plan(whole, file, {"w": (4, 6)}, {"w": (1, 0)})
    assert merged.plan.sites["w"].format.axis == 1
    with pytest.raises(PlanError, match=r"'w' of shape \(4, 6\) has 6 scales.*no channels along axis 0"):
        into_plan(small(), file, {"w": (4, 6)})
    assert losses(file, "2.0.0")[0].tensors == ("w",)
    known = with_axes(file, {"w": (4, 6)}, {"w": (-1, -2)})
    assert losses(known, "2.0.0") == []
    assert document(known, "2.0.0")["encodings"][0]["axis"] == 1


def test_blocks_of_version_1_are_in_the_order_of_the_outputs() -> None:
    """(inputs / block, outputs) scales of a matrix that MatMul reads are written by output; kernels by position."""
    blocks = np.arange(1.0, 7).reshape(2, 3)
    zero = np.zeros((2, 3), np.int64)
    file = EncodingFile({}, {"w": Encoding("w", "int4", blocks, zero, True, False, 0, 2)})
    written = document(file, "1.0.0")
    assert written["param_encodings"][0]["scale"] == [1, 4, 2, 5, 3, 6]
    back = with_axes(read(written), {"w": (4, 3)}, {"w": (1, 0)})
    assert back.parameters["w"].same(file.parameters["w"])

    kernel = entry("k", enc_type="PER_BLOCK", is_sym=True, scale=[1.0, 2, 3, 4], offset=[-128] * 4, block_size=3)
    sites, numbers, _ = to_sites(made(parameters=(kernel,)), {"k": (2, 6, 3, 3)}, {"k": (0, 1)})
    assert sites["k"].format == Format(8, True, True, 1, 3, strict=False)
    assert numbers["k"].scale.shape == (2, 2, 3, 3)
    assert numbers["k"].scale[:, :, 0, 0].tolist() == [[1, 2], [3, 4]]
    plan = Plan("m", sites, {}, {}, numbers)
    assert from_plan(plan, {}).parameters["k"].scale.tolist() == [[[[1]], [[2]]], [[[3]], [[4]]]]
    taps = numbers["k"].scale * np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    file = from_plan(replace(plan, qparams={"k": QParams(taps, numbers["k"].zero_point)}), {})
    assert losses(file, "2.0.0") == []
    assert losses(file, "1.0.0")[0].what == "blocks over more than two axes, which 1.0.0 does not have, left out"
    assert document(file, "1.0.0")["param_encodings"] == []


def test_sites_of_a_file_alone() -> None:
    shapes = {"conv.w": (2, 3, 1, 1), "fc.w": (2, 8), "conv.b": (2,)}
    sites, numbers, lost = to_sites(read(V200, shapes), shapes)
    assert {t: (s.role, s.format) for t, s in sites.items()} == {
        "conv.w": ("weight", Format(8, True, True, 0, strict=False)),
        "x": ("activation", Format(8, False)),
        "fc.w": ("weight", Format(4, True, True, 1, 4)),
    }
    assert numbers["x"].same(QParams(np.float32(0.01519), np.int32(98)))
    assert [loss.tensors for loss in lost] == [("conv.b",)]
    _, _, lost = to_sites(read(V061), shapes, {"conv.w": (0, 1)})
    assert [loss.tensors for loss in lost] == [("h",)]


def test_strict_grids_of_aimet() -> None:
    """2.0.0: int8 with zero point −1, codes −128..126; ours −127..127 with 0, at the same values."""
    entry = {"name": "w", "output_dtype": "int8", "y_scale": 0.5, "y_zero_point": -1}
    read_back = read({"version": "2.0.0", "encodings": [entry]}, ["w"])
    sites, numbers, _ = to_sites(read_back, {"w": (2, 2)})
    assert (sites["w"].format.lo, sites["w"].format.symmetric, numbers["w"].zero_point.item()) == (-127, True, 0)
    file = EncodingFile({}, {"w": Encoding("w", "int8", np.array(0.5), np.array(0), True, True)})
    assert read_back.same(file)
    assert document(file, "2.0.0")["encodings"] == [entry]
    assert document(file, "1.0.0")["param_encodings"][0]["offset"] == [-127]
    assert document(adapted(file, relaxed=True), "1.0.0")["param_encodings"][0]["offset"] == [-128]
    assert adapted(file, relaxed=True).losses[0].tensors == ("w",)
    asymmetric = Plan("m", {"w": Site("w", "activation", Format(), "w", "layer")}, {}, {}, {"w": numbers["w"]})
    assert into_plan(asymmetric, read_back, {}, strict=True).plan.qparams_of("w").zero_point == -1
    full = replace(asymmetric, sites={"w": Site("w", "weight", Format(symmetric=True), "w", "layer")})
    zero = read({"version": "2.0.0", "encodings": [{**entry, "y_zero_point": 0}]}, ["w"])
    assert into_plan(full, zero, {"w": (2, 2)}).plan.sites["w"].format.lo == -128  # 2.0.0 has all codes of the type


def test_biases_of_weights_that_get_other_scales() -> None:
    """Per channel where the weight is, none where it is in blocks."""
    sites = {
        "x": Site("x", "activation", Format(8, False), "x", "layer"),
        "w": Site("w", "weight", Format(8, True, True), "w", "layer"),
        "b": Site("b", "bias", Format(32, True, True), "b", "layer", ("x", "w")),
    }
    one, shapes = QParams(np.float32(0.5), np.int32(0)), {"w": (2, 4), "b": (2,)}
    plan = Plan("m", sites, {"node": ("x", "w", "b")}, {}, {"x": one, "w": one})
    channels = entry("w", [1.0, 2], [-128, -128], enc_type="PER_CHANNEL", is_sym=True)
    merged = into_plan(plan, made(entry("x"), parameters=(channels,)), shapes, {"w": (0, 1)})
    assert merged.plan.sites["b"].format == Format(32, True, True, 0)
    assert from_plan(merged.plan, shapes).parameters["b"].scale.tolist() == [0.25, 0.5]
    blocks = entry("w", [1.0] * 4, [-128] * 4, enc_type="PER_BLOCK", is_sym=True, block_size=2)
    merged = into_plan(plan, made(entry("x"), parameters=(blocks,)), shapes, {"w": (0, 1)})
    assert merged.plan.nodes == {"node": ("x", "w")}
    assert merged.plan.sites.keys() == {"x", "w"}
    assert [loss.tensors for loss in merged.losses] == [("b",)]


def test_activations_of_the_unsigned_type() -> None:
    file = EncodingFile({"x": Encoding("x", "int8", np.array(0.5), np.array(5))}, {})
    (entry,) = document(adapted(file, unsigned=True), "2.0.0")["encodings"]
    assert (entry["output_dtype"], entry["y_zero_point"]) == ("uint8", 133)


def test_what_a_plan_has_beyond_grids_is_told() -> None:
    plan = small()
    plan = replace(plan, sites={**plan.sites, "d": Site("d", "dynamic", Format(8, False), "d", "layer")})
    plan = replace(plan, values={"n": np.ones(2, np.float32)}, factors={"w": np.ones(1)}, shifts={"b": np.ones(1)})
    file = from_plan(plan, {"w": (4, 6)})
    assert [loss.tensors for loss in file.losses] == [("d",), ("w",), ("n",), ("w",), ("b",)]
    assert "'w'" in str(file.losses[1])
    safe = from_plan(replace(small(), codes={}, rounded=small().codes), {"w": (4, 6)})
    assert [(loss.what[:24], loss.tensors) for loss in safe.losses] == [("integers with safe pairs", ("w",))]
    with pytest.raises(PlanError, match="no scale for 'x'"):
        from_plan(replace(plan, qparams={}), {"w": (4, 6)})
    merged = into_plan(plan, made(entry("d"), {**V100["activation_encodings"][2], "name": "x"}), {"w": (4, 6)})
    assert [loss.tensors for loss in merged.losses] == [("x",), ("d",)]


def test_a_scale_that_float32_does_not_have() -> None:
    with pytest.raises(PlanError, match=r"'x' has a scale that is no normal float32: 1e-300"):
        into_plan(small(), made(entry("x", 1e-300)), {"w": (4, 6)})
    with pytest.raises(PlanError, match=r"'x' has 2 scales, but is computed"):
        into_plan(small(), made(entry("x", enc_type="PER_CHANNEL", scale=[1.0, 2], offset=[0, 0])), {"w": (4, 6)})


# Malformed files


def first(content: dict[str, Any]) -> dict[str, Any]:
    """The grid of x in 0.6.1, of conv.w in the others."""
    if content["version"] == "0.6.1":
        return content["activation_encodings"]["x"][0]  # type: ignore[no-any-return]
    return content["param_encodings" if content["version"] == "1.0.0" else "encodings"][0]  # type: ignore[no-any-return]


def second(content: dict[str, Any]) -> dict[str, Any]:
    """The second channel of conv.w in 0.6.1."""
    return content["param_encodings"]["conv.w"][1]  # type: ignore[no-any-return]


Edit = Callable[[dict[str, Any]], Any]
MALFORMED: list[tuple[str, str, Edit, list[str]]] = [
    ("no version", "1.0.0", lambda c: c.pop("version"), ["no encodings file", "'version'"]),
    ("unknown version", "1.0.0", lambda c: c.update(version="1.0.1"), ["version", "'1.0.1'", "1.0.0"]),
    ("version of the future", "2.0.0", lambda c: c.update(version="2.1.0"), ["'2.1.0'"]),
    ("missing section", "1.0.0", lambda c: c.pop("param_encodings"), ["no field 'param_encodings'"]),
    ("missing list", "2.0.0", lambda c: c.pop("encodings"), ["no field 'encodings'"]),
    ("section of another version", "1.0.0", lambda c: c.update(param_encodings={}), ["param_encodings", "a list"]),
    ("section of another version", "0.6.1", lambda c: c.update(param_encodings=[]), ["param_encodings", "an object"]),
    ("foreign section", "2.0.0", lambda c: c.update(params=[]), ["'params' is foreign"]),
    ("producer no object", "2.0.0", lambda c: c.update(producer="me"), ["producer", "an object"]),
    ("entry no object", "2.0.0", lambda c: c["encodings"].insert(1, 7), ["encodings[1]", "'name'"]),
    ("entry without a name", "1.0.0", lambda c: first(c).pop("name"), ["param_encodings[0]", "'name'"]),
    ("name no text", "1.0.0", lambda c: first(c).update(name=3), ["param_encodings[0].name", "a text"]),
    ("no channels", "0.6.1", lambda c: c["activation_encodings"].update(x=[]), ["activation_encodings.x", "not empty"]),
    ("without bitwidth", "0.6.1", lambda c: first(c).pop("bitwidth"), ["activation_encodings.x[0]", "'bitwidth'"]),
    ("without bw", "1.0.0", lambda c: first(c).pop("bw"), ["param_encodings[0]", "'conv.w'", "'bw'"]),
    ("without scale", "1.0.0", lambda c: first(c).pop("scale"), ["'conv.w'", "'scale'"]),
    ("without y_scale", "2.0.0", lambda c: first(c).pop("y_scale"), ["'conv.w'", "'y_scale'"]),
    ("without dtype", "0.6.1", lambda c: first(c).pop("dtype"), ["'x'", "'dtype'"]),
    ("scale NaN", "0.6.1", lambda c: first(c).update(scale=float("nan")), ["x[0].scale", "finite number", "nan"]),
    ("scale infinite", "2.0.0", lambda c: first(c).update(y_scale=[1, float("inf")]), ["y_scale[1]", "finite"]),
    ("scale negative", "1.0.0", lambda c: first(c).update(scale=[0.1, -1]), ["[0].scale[1]", "above 0", "-1"]),
    ("scale 0", "2.0.0", lambda c: first(c).update(y_scale=[0, 1]), ["y_scale[0]", "above 0"]),
    ("scale a text", "0.6.1", lambda c: first(c).update(scale="0.1"), ["x[0].scale", "'0.1'"]),
    ("scale a truth", "0.6.1", lambda c: first(c).update(scale=True), ["x[0].scale", "True"]),
    ("end of range NaN", "0.6.1", lambda c: first(c).update(max=float("nan")), ["x[0].max", "finite"]),
    ("range upside down", "0.6.1", lambda c: first(c).update(min=2, max=1), ["'x'", "min is 2, above max, which is 1"]),
    ("offset positive", "0.6.1", lambda c: first(c).update(offset=98), ["x[0].offset", "-255 to 0", "98"]),
    ("offset too low", "0.6.1", lambda c: first(c).update(offset=-256), ["x[0].offset", "-255 to 0"]),
    ("offset no whole number", "1.0.0", lambda c: first(c).update(offset=[-128, -0.5]), ["offset[1]", "whole"]),
    ("offset off the middle", "1.0.0", lambda c: first(c).update(offset=[-128, -120]), ["not in the middle"]),
    ("one strict channel", "1.0.0", lambda c: first(c).update(offset=[-128, -127]), ["not in the middle"]),
    ("zero point outside", "2.0.0", lambda c: first(c).update(y_zero_point=[0, 128]), ["y_zero_point[1]", "-128 to"]),
    ("duplicate name", "1.0.0", lambda c: c["param_encodings"].append(first(c)), ["param_encodings[2]", "already"]),
    ("duplicate name", "2.0.0", lambda c: c["encodings"].append(first(c)), ["encodings[4]", "'conv.w'", "already"]),
    ("in both", "1.0.0", lambda c: first(c).update(name="x"), ["'x'", "activation_encodings and in param_encodings"]),
    ("unknown dtype", "0.6.1", lambda c: first(c).update(dtype="intt"), ["x[0].dtype", "mean 'int'"]),
    ("unknown dtype", "1.0.0", lambda c: first(c).update(dtype="int"), ["'INT'"]),
    ("unknown dtype", "2.0.0", lambda c: first(c).update(output_dtype="int88"), ["output_dtype", "mean 'int8'"]),
    ("unknown bits", "1.0.0", lambda c: first(c).update(bw=33), ["[0].bw", "33"]),
    ("unknown enc_type", "1.0.0", lambda c: first(c).update(enc_type="PER_CHANEL"), ["did you mean 'PER_CHANNEL'"]),
    ("float of 8 bits", "0.6.1", lambda c: c["activation_encodings"]["h"][0].update(bitwidth=8), ["'h'", "16"]),
    ("symmetric a truth", "0.6.1", lambda c: first(c).update(is_symmetric=True), ["is_symmetric", "'True' or 'False'"]),
    ("symmetric lower case", "0.6.1", lambda c: first(c).update(is_symmetric="true"), ["is_symmetric", "'True'"]),
    ("symmetric a text", "1.0.0", lambda c: first(c).update(is_sym="True"), ["is_sym", "True or False", "'True'"]),
    ("lengths differ", "1.0.0", lambda c: first(c).update(offset=[-128]), ["'conv.w'", "equal length"]),
    ("lengths differ", "2.0.0", lambda c: first(c).update(y_zero_point=[0, 1, 2]), ["(3,)", "(2,)"]),
    ("several per tensor", "1.0.0", lambda c: first(c).update(enc_type="PER_TENSOR"), ["one number, not 2"]),
    ("channels differ in bits", "0.6.1", lambda c: second(c).update(bitwidth=4), ["[1].bitwidth"]),
    ("channels differ in kind", "0.6.1", lambda c: second(c).update(is_symmetric="False"),
     ["conv.w[1].is_symmetric", "first channel"]),
    ("foreign field", "2.0.0", lambda c: first(c).update(bw=8), ["'conv.w'", "'bw' is foreign"]),
    ("foreign field", "0.6.1", lambda c: first(c).update(axis=0), ["'axis' is foreign"]),
    ("block without blocks", "1.0.0", lambda c: first(c).update(block_size=4), ["'block_size' is foreign"]),
    ("axis missing", "2.0.0", lambda c: first(c).pop("axis"), ["'conv.w'", "an axis is needed"]),
    ("axis missing for blocks", "2.0.0", lambda c: c["encodings"][3].pop("axis"), ["'fc.w'", "an axis is needed"]),
    ("axis of one scale", "2.0.0", lambda c: c["encodings"][2].update(axis=0), ["'x'", "only there"]),
    ("axis no number", "2.0.0", lambda c: first(c).update(axis="0"), ["[0].axis", "whole number"]),
    ("axis too high", "2.0.0", lambda c: c["encodings"][3].update(axis=2), ["'fc.w'", "axis 2"]),
    ("block size 0", "2.0.0", lambda c: c["encodings"][3].update(block_size=0), ["'fc.w'", "block_size", "from 1"]),
    ("block size missing", "1.0.0", lambda c: c["param_encodings"][1].pop("block_size"), ["'fc.w'", "'block_size'"]),
    ("block size missing", "2.0.0", lambda c: c["encodings"][3].pop("block_size"), ["'fc.w'", "block_size"]),
    ("ragged scales", "2.0.0", lambda c: c["encodings"][3].update(y_scale=[[1, 2], [3]]), ["y_scale", "equal lengths"]),
    ("ragged depth", "2.0.0", lambda c: c["encodings"][3].update(y_scale=[[1, 2], 3]), ["y_scale", "equal lengths"]),
    ("nested scale", "1.0.0", lambda c: first(c).update(scale=[[0.1, 0.2]], offset=[[0, 0]]), ["equal length"]),
    ("no scales", "2.0.0", lambda c: first(c).update(y_scale=[]), ["y_scale", "not empty"]),
    ("half steps", "1.0.0", lambda c: first(c).update(zero_point_shift=[0.5, 0.5]), ["'conv.w'", "half a step"]),
    ("LPBQ", "1.0.0", lambda c: first(c).update(enc_type="LPBQ"), ["'conv.w'", "low-power"]),
    ("LPBQ", "2.0.0", lambda c: first(c).update(per_block_int_scale=[[1]]), ["'conv.w'", "low-power"]),
    ("huge number", "2.0.0", lambda c: first(c).update(y_scale=[10**400, 1]), ["y_scale[0]", "finite"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "edit", "told"), [m[1:] for m in MALFORMED], ids=[f"{m[0]} {m[1]}" for m in MALFORMED]
)
def test_malformed_files(version: str, edit: Edit, told: list[str]) -> None:
    content = copy.deepcopy(EXAMPLES[version])
    read(content)
    edit(content)
    with pytest.raises(PlanError) as caught:
        read(content)
    assert [part for part in ("encodings", *told) if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ("\xff\xfe", "no encodings file"),
        ("", "not JSON"),
        ('{"version": "0.6.1", "param_encodings": {"w": [], "w": []}}', "'w' is there twice"),
        ("[" * 100000, "no encodings file"),
    ],
)
def test_files_that_are_not_sound(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.encodings"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PlanError, match=r"bad\.encodings") as caught:
        read(path)
    assert told in str(caught.value)


@law
@given(st.sampled_from(VERSIONS), st.data())
def test_any_damage_is_told_or_harmless(version: str, data: st.DataObject) -> None:
    """A value anywhere in a file is replaced by another: PlanError, or a file that can be written."""
    content = copy.deepcopy(EXAMPLES[version])
    place: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
    place[key] = data.draw(junk | st.lists(st.integers() | st.floats(), max_size=3))
    try:
        file = read(content)
    except PlanError:
        return
    if file.version in VERSIONS:
        assert isinstance(document(file), dict)


def test_encodings_that_contradict_themselves() -> None:
    one = np.ones(())
    for bad, told in [
        ({"scale": np.array(np.nan)}, "finite number above 0"),
        ({"zero_point": np.array(128)}, "outside int8"),
        ({"zero_point": np.array(1), "symmetric": True}, "not in the middle"),
        ({"zero_point": np.array([1])}, "scales"),
    ]:
        fields = {"scale": one, "zero_point": np.zeros((), np.int64), **bad}
        with pytest.raises(PlanError, match=told):
            Encoding("t", "int8", **fields)
    e = Encoding("t", "int8", one, np.zeros((), np.int64))
    with pytest.raises(PlanError, match="'t' is an activation and a parameter"):
        EncodingFile({"t": e}, {"t": e})
