"""The calibration cache: never a bit of the plan different, and never used for another model, data or kind."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import Feed, feeds, graph, settings
from typer.testing import CliRunner

from quark_onnx import Config, ConfigError, ModelQuantizer, decided_ranges
from quark_onnx.cli import app
from quark_onnx.core.plan import Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.engine.calibration_cache import Key, data_hash, kind_of, remembered, usable
from quark_onnx.graph import io
from quark_onnx.numerics.ranges.calibration_statistics import Bins, Statistics

TEXT = """(float[N,3,6] x) => (float[N,5] y) <float[4,3,3] w, float[4] b, float[16,5] m, float[5,5] k> {
    [conv] h = Conv (x, w, b) [relu] a = Relu (h) [flat] f = Flatten (a) [gemm] g = Gemm (f, m)
    [last] y = Gemm (g, k) }"""
MODEL = io.to_proto(graph(TEXT))
DATA = feeds(graph(TEXT), count=6)
KEY = Key("model", "data", "kind")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every pass over the data that calibration makes."""
    made: list[int] = []
    observe = decided_ranges.observe

    def counted(*arguments: object, **more: object) -> object:
        made.append(1)
        return observe(*arguments, **more)

    monkeypatch.setattr(decided_ranges, "observe", counted)
    return made


def plan(cache: Path | None, model: onnx.ModelProto = MODEL, data: list[Feed] = DATA, **fields: object) -> Plan:
    quantizer = ModelQuantizer(Config(settings(**{"calibrate_method": "MinMax", **fields})))
    return quantizer.quantize_model(model, None, data, calibration_cache=cache).plan


def changed_weight() -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    (weight,) = (w for w in model.graph.initializer if w.name == "w")
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] += 1
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    return model


def changed_value() -> list[Feed]:
    data = [{name: array.copy() for name, array in feed.items()} for feed in DATA]
    data[-1]["x"].flat[-1] += 1
    return data


@pytest.mark.parametrize("method", ["MinMax", "Percentile", "Entropy"])
def test_the_plan_is_the_same_to_the_bit_with_and_without(method: str, tmp_path: Path, passes: list[int]) -> None:
    cache = tmp_path / "sub" / "cache.npz"
    plain = plan(None, calibrate_method=method)
    writes, reads = plan(cache, calibrate_method=method), plan(cache, calibrate_method=method)
    assert (diff(plain, writes), diff(plain, reads)) == ([], [])
    assert len(passes) == 2
    assert list(cache.parent.iterdir()) == [cache]


def test_the_range_method_may_change(tmp_path: Path, passes: list[int]) -> None:
    cache = tmp_path / "cache.npz"
    wide = plan(cache)
    narrow = plan(cache, calibrate_method="Percentile", Percentile=90)
    assert len(passes) == 1
    assert not diff(narrow, plan(None, calibrate_method="Percentile", Percentile=90))
    assert diff(narrow, wide)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"model": changed_weight()}, "made with another model"),
        ({"include_cle": True}, "made with another model"),
        ({"data": changed_value()}, "made with other data"),
        ({"data": DATA[:-1]}, "made with other data"),
        ({"data": DATA[::-1]}, "made with other data"),
        ({"CalibMovingAverage": True}, "made with another kind of statistics"),
        ({"model": changed_weight(), "data": DATA[:-1]}, "made with another model and other data"),
        ({"op_types_to_quantize": ()}, "lacks 1 of 3 tensors, the first is 'g'"),
    ],
    ids=["model", "equalized", "value", "feed", "order", "kind", "two", "tensor"],
)
def test_a_cache_of_something_else_is_not_used(
    other: dict[str, object], told: str, tmp_path: Path, passes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache.npz"
    first: dict[str, object] = {"op_types_to_quantize": ("Conv", "Relu"), "include_cle": False}
    plan(cache, **first)
    plan(cache, **first)
    assert (len(passes), caplog.records) == (1, [])
    found = plan(cache, **first | other)
    (note,) = (record.getMessage() for record in caplog.records)
    assert note == f"the calibration cache {cache} is not used and will be overwritten: it {_was(told)}"
    assert len(passes) == 2
    assert not diff(found, plan(None, **first | other))
    plan(cache, **first | other)
    assert (len(passes), len(caplog.records)) == (3, 1)


def _was(told: str) -> str:
    return f"was {told}" if told.startswith("made") else told


def garbled(path: Path) -> None:
    """One byte in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def rewritten(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        change(arrays)
        np.savez(path, **arrays)

    return damage


def headed(**changes: object) -> Callable[[Path], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        header = json.loads(str(arrays["calibration_cache"]))
        arrays["calibration_cache"] = np.array(json.dumps(header | changes))

    return rewritten(change)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no archive"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "byte": garbled,
    "array gone": rewritten(lambda arrays: arrays.pop("counts")),
    "array short": rewritten(lambda arrays: arrays.update(ends=arrays["ends"][:-1])),
    "bins negative": rewritten(lambda arrays: arrays.update(bins=arrays["bins"].astype(np.int64) - 10**6)),
    "bin too high": rewritten(lambda arrays: arrays["bins"].put(-1, 1 << 16)),
    "bins twice": rewritten(lambda arrays: arrays["bins"].put(1, arrays["bins"][0])),
    "counts negative": rewritten(lambda arrays: arrays["counts"].put(0, -1)),
    "counts of none": rewritten(lambda arrays: arrays["counts"].put(0, 0)),
    "counts in parts": rewritten(lambda arrays: arrays.update(counts=arrays["counts"] + 0.5)),
    "counts short": rewritten(lambda arrays: arrays.update(counts=arrays["counts"][:-1])),
    "counts in rows": rewritten(lambda arrays: arrays.update(counts=arrays["counts"][None])),
    "end NaN": rewritten(lambda arrays: arrays["ends"].put(0, np.nan)),
    "end infinite": rewritten(lambda arrays: arrays["ends"].put(1, np.inf)),
    "ends upside down": rewritten(lambda arrays: arrays.update(ends=arrays["ends"][:, ::-1])),
    "ends in a row": rewritten(lambda arrays: arrays.update(ends=arrays["ends"].reshape(-1))),
    "a size negative": rewritten(lambda arrays: arrays.update(sizes=arrays["sizes"] * np.array([-1, 1, 1]))),
    "a size too large": rewritten(lambda arrays: arrays["sizes"].put(0, 10**6)),
    "sizes moved": rewritten(lambda arrays: arrays.update(sizes=np.roll(arrays["sizes"], 1))),
    "objects": rewritten(lambda arrays: arrays.update(ends=np.array([None, {}], object))),
    "no JSON": rewritten(lambda arrays: arrays.update(calibration_cache=np.array("{"))),
    "no key": headed(key=None),
    "strange key": headed(key={"model": "m"}),
    "tensors": headed(tensors=7),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_cache_is_made_anew(
    name: str, tmp_path: Path, passes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache.npz"
    plain = plan(cache)
    whole = cache.read_bytes()
    DAMAGES[name](cache)
    assert not diff(plan(cache), plain)
    (note,) = (record.getMessage() for record in caplog.records)
    assert "it is damaged" in note
    assert len(passes) == 2
    assert not diff(plan(cache), plain)
    assert len(passes) == 2
    with zipfile.ZipFile(cache) as archive:
        assert archive.testzip() is None
    assert abs(len(whole) - cache.stat().st_size) < 16


def test_a_sound_cache_is_not_rewritten(tmp_path: Path) -> None:
    cache = tmp_path / "cache.npz"
    plan(cache)
    before = cache.stat().st_mtime_ns, cache.read_bytes()
    plan(cache)
    assert (cache.stat().st_mtime_ns, cache.read_bytes()) == before


def test_statistics_come_back_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([0.0, -0.0, 1e-45, -3.4e38, np.inf, np.nan, -np.nan, 7.0], np.float32)
    made = {
        "a/b: ü\n": Statistics.of(values),
        "": Statistics.of(values[:0]),
        "x": Statistics(-0.1, 1 / 3, Bins.of(np.arange(9))),
    }
    cache = tmp_path / "cache.npz"
    assert remembered(cache, KEY, list(made), lambda: made) is made
    read = remembered(cache, KEY, ["x", *list(made)[:2]], dict)
    assert list(read) == ["x", *list(made)[:2]]
    for name, s in made.items():
        assert (read[name].lo, read[name].hi) == (s.lo, s.hi)
        for one, other in zip(read[name].bins, s.bins, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "other",
    [
        [{"x": np.zeros((2, 3), np.int32)}],
        [{"x": np.zeros((3, 2), np.float32)}],
        [{"y": np.zeros((2, 3), np.float32)}],
        [{"x": -np.zeros((2, 3), np.float32)}],
        [{"x": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 3), np.float32)}],
        [{"x": np.zeros((2, 3), np.float32), "y": np.zeros(0, np.float32)}],
        [{"x": np.array([["a"]], object)}],
    ],
    ids=["type", "shape", "name", "bits", "split", "more", "strings"],
)
def test_the_hash_of_data_sees_names_shapes_types_and_bytes(other: list[Feed]) -> None:
    zeros = {"x": np.zeros((2, 3), np.float32)}
    assert data_hash([zeros]) == data_hash(iter([{"x": np.zeros((3, 2), np.float32).T}]))
    assert data_hash([zeros]) != data_hash(other)
    assert data_hash(other) == data_hash([dict(reversed(feed.items())) for feed in other])


def test_the_kind_tells_the_constant() -> None:
    assert len({kind_of(None), kind_of(0.01), kind_of(0.02)}) == 3


def test_what_must_not_be_overwritten_is_refused_before_any_work(tmp_path: Path, passes: list[int]) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones(3))
    before = samples.read_bytes()
    (tmp_path / "folder.npz").mkdir()
    for name, told in {
        "samples.npz": "no calibration cache",
        "folder.npz": "ends with",
        "model.onnx": "ends with",
    }.items():
        with pytest.raises(ConfigError, match=told):
            plan(tmp_path / name)
    assert samples.read_bytes() == before
    assert not passes
    assert usable(None) is None
    assert usable(str(tmp_path / "new.npz")) == tmp_path / "new.npz"


@pytest.mark.parametrize("fields", [{"WeightsOnly": True}, {"use_dynamic_quant": True}])
def test_a_cache_of_nothing_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no activation has a range; leave the calibration cache out"):
        ModelQuantizer(settings(**fields)).quantize_model(MODEL, None, DATA, calibration_cache=tmp_path / "c.npz")


def test_a_cache_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, passes: list[int]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cache\.npz cannot be written: .*file is not a folder"):
        plan(tmp_path / "file" / "sub" / "cache.npz")
    assert not passes


def test_an_interrupted_write_leaves_the_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache.npz"
    plan(cache)
    before = cache.read_bytes()

    def stop(file: Path, **arrays: object) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", stop)
    with pytest.raises(KeyboardInterrupt):
        plan(cache, data=DATA[:2])
    assert cache.read_bytes() == before
    assert list(tmp_path.iterdir()) == [cache]


def test_the_commands_take_one(tmp_path: Path, passes: list[int]) -> None:
    model, samples, cache = tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "c.npz"
    onnx.save(MODEL, model)
    np.save(samples, np.stack([feed["x"][0] for feed in DATA]))

    def call(command: str, output: str, *more: str) -> None:
        arguments = [command, model, "-o", tmp_path / output, "-d", samples, "-q", "--calibration-cache", cache, *more]
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output

    call("plan", "plan")
    assert (len(passes), cache.exists()) == (1, True)
    call("quantize", "q.onnx", "--save-plan", str(tmp_path / "other"))
    assert len(passes) == 1
    assert not diff(Plan.load(tmp_path / "plan"), Plan.load(tmp_path / "other"))
    call("quantize", "q.onnx", "--samples", "2")
    assert len(passes) == 2
