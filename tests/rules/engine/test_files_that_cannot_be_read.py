"""The boundary: whatever is raised while a file is read is an error of ours, of one line, with its cause."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from text_models import normal, text_model

from quark_onnx import (
    ConfigError,
    DataError,
    ModelQuantizer,
    Plan,
    PlanError,
    QuantizationConfig,
    QuarkError,
    get_default_config,
)
from quark_onnx.core.errors import reading
from quark_onnx.core.json_reading import DEEPEST, json_of
from quark_onnx.core.settings.aimet_runtime_config import load_runtime_config
from quark_onnx.encodings.reading import read
from quark_onnx.engine import calibration_data
from quark_onnx.zoo.manifest import read_zoo
from quark_onnx.zoo.problems import ManifestError

TEXT = "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv (x, w) y = Relu (c) }"
FEEDS = [{"x": normal(2, 3, 8, 8, seed=seed)} for seed in range(3)]


def model(**weights: Any) -> onnx.ModelProto:
    return text_model(TEXT, **({"w": normal(4, 3, 3, 3)} | weights))


def quantize(source: Any, data: Any = FEEDS, **options: Any) -> Any:
    return ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(source, None, data, **options)


# The boundary itself


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (MemoryError(), "f.x is bad: it asks for more memory than there is; mend it"),
        (RecursionError("maximum depth"), "f.x is bad: it is nested too deeply; mend it"),
        (KeyError("name"), "f.x is bad: there is no 'name'; mend it"),
        (ValueError("wrong\nshape.\n"), "f.x is bad: wrong shape; mend it"),
        (zipfile.BadZipFile("no zip"), "f.x is bad: no zip; mend it"),
        (struct.error(), "f.x is bad: error; mend it"),
        (OSError("no picture"), "f.x is bad: no picture; mend it"),
        (PermissionError(13, "Permission denied"), "cannot read f.x: Permission denied"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_raised_becomes_ours(raised: Exception, says: str) -> None:
    with pytest.raises(PlanError) as caught, reading("f.x", PlanError, "mend it", "is bad"):
        raise raised
    assert str(caught.value) == says
    assert caught.value.__cause__ is raised


def test_errors_of_ours_and_of_the_user_pass() -> None:
    for raised in (ConfigError("ours"), KeyboardInterrupt()):
        with pytest.raises(type(raised)) as caught, reading("f.x", PlanError, "mend it"):
            raise raised
        assert caught.value is raised


# Documents


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_levels_of_a_document() -> None:
    assert json_of(nested(DEEPEST))
    assert json_of('{"a": [{"b": 1}]}') == {"a": [{"b": 1}]}
    deep = '{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1)
    for text in (nested(DEEPEST + 1), deep, nested(100_000), "[" * 100_000, "1" * 5000, ""):
        with pytest.raises(ValueError, match=r"nested deeper than 50 levels|Expecting value|Exceeds the limit"):
            json_of(text)


READERS: dict[str, tuple[Callable[[Path], object], type[QuarkError]]] = {
    "encodings": (read, PlanError),
    "runtime configuration": (load_runtime_config, ConfigError),
    "configuration": (lambda path: QuantizationConfig.from_json(path.read_text()), ConfigError),
    "manifest": (lambda path: read_zoo(path, path.parent / "out"), ManifestError),
}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' * 20_000, nested(400), "9" * 5000])
@pytest.mark.parametrize("name", READERS)
def test_documents_without_end_are_refused(name: str, text: str, tmp_path: Path) -> None:
    use, kind = READERS[name]
    (tmp_path / "file").write_text(text)
    with pytest.raises(kind) as caught:
        use(tmp_path / "file")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["- " * 2000 + "x", "? " * 2000, "".join(f"{' ' * i}a:\n" for i in range(400))])
def test_levels_without_brackets(text: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text(text)
    with pytest.raises(ManifestError, match="values are nested more than 40 deep"):
        read_zoo(tmp_path / "zoo.yaml", tmp_path / "out")


def test_anchors_that_stand_for_more_than_memory_holds(tmp_path: Path) -> None:
    doubled = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    (tmp_path / "zoo.yaml").write_text(f"{doubled}models: [*a59]\n")
    with pytest.raises(ManifestError, match="stands for more than 100000 others"):
        read_zoo(tmp_path / "zoo.yaml", tmp_path / "out")


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!bool maybe", "!!float x", "!!binary x", "2024-99-99", "!!python/none"]
)
def test_values_that_yaml_stumbles_over(value: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text(f"models: [{{input: m.onnx, timeout: {value}}}]\n")
    with pytest.raises(ManifestError, match=r"this is not YAML|write another value"):
        read_zoo(tmp_path / "zoo.yaml", tmp_path / "out")


@pytest.mark.parametrize("text", ["models:", "models: 2024-99-99", "models: ~", "defaults: {preset: XINT8}"])
def test_a_manifest_without_models(text: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text(f"{text}\n")
    with pytest.raises(ManifestError, match=r"there are no models|write another value"):
        read_zoo(tmp_path / "zoo.yaml", tmp_path / "out")


# Plans


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return quantize(model()).plan.save(tmp_path / "plan")


def header_of(shape: str) -> bytes:
    """An array file that promises much and holds nothing."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(name: str, content: bytes) -> bytes:
    held = BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr(name, content)
    return held.getvalue()


HUGE = header_of("(1000000000000,)")
PLANS: dict[str, Callable[[Path], object]] = {
    "nested": lambda folder: (folder / "plan.json").write_text("[" * 200_000),
    "a list": lambda folder: (folder / "plan.json").write_text("[]"),
    "no text": lambda folder: (folder / "plan.json").write_bytes(b"\xff" * 30),
    "arrays of terabytes": lambda folder: (folder / "arrays.npz").write_bytes(archive("qparams/x/scale.npy", HUGE)),
    "arrays of objects": lambda folder: np.savez(folder / "arrays.npz", x=np.array([{}], object)),
    "no archive": lambda folder: (folder / "arrays.npz").write_bytes(b"PK\x03\x04" + bytes(40)),
    "a folder": lambda folder: ((folder / "arrays.npz").unlink(), (folder / "arrays.npz").mkdir()),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans(name: str, plan: Path) -> None:
    PLANS[name](plan)
    with pytest.raises(PlanError):
        quantize(model(), resume=plan)


@pytest.mark.parametrize(
    "change",
    [{"notes": {"n": 1}}, {"notes": []}, {"remarks": {"x": None}}, {"model": 5}, {"nodes": {"c": [1]}}, {"nodes": []}],
    ids=str,
)
def test_entries_of_another_type(change: dict[str, Any], plan: Path) -> None:
    document = json.loads((plan / "plan.json").read_text())
    assert Plan.load(plan)
    (plan / "plan.json").write_text(json.dumps(document | change))
    with pytest.raises(PlanError, match="holds no plan that quark_onnx wrote"):
        Plan.load(plan)


# Samples and caches


ARRAYS: dict[str, tuple[str, bytes]] = {
    "npy of terabytes": ("0.npy", HUGE),
    "npz of terabytes": ("0.npz", archive("x.npy", HUGE)),
    "negative shape": ("0.npy", header_of("(-1, 3)")),
    "nested header": ("0.npy", header_of("(" * 60)),
    "shape beyond integers": ("0.npy", header_of(f"({10**30},)")),
    "an unknown compression": ("0.npz", archive("x.npy", HUGE).replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0")),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_samples(name: str, tmp_path: Path) -> None:
    file, content = ARRAYS[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        quantize(model(), None, calibration_data_path=tmp_path)
    assert file in str(caught.value)


DAMAGED = {
    "huge": HUGE,
    "huge inside": archive("calibration_cache.npy", HUGE),
    "begun": b"PK\x03\x04",
    "empty": b"",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cache_is_made_anew(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = quantize(model(), calibration_cache=tmp_path / "c.npz")
    (tmp_path / "c.npz").write_bytes(content)
    again = quantize(model(), calibration_cache=tmp_path / "c.npz")
    assert all(q.same(again.plan.qparams[group]) for group, q in expected.plan.qparams.items())
    assert "is not used and will be overwritten: it is damaged" in caplog.text


# Readers that never end


def forever() -> Iterator[dict[str, np.ndarray]]:
    while True:
        yield FEEDS[0]


class Circular:
    """A reader that begins again by itself."""

    def get_next(self) -> dict[str, np.ndarray]:
        return FEEDS[0]


class Unsized:
    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return forever()


@pytest.mark.parametrize("source", [forever, Circular, Unsized, lambda: forever], ids=["iter", "next", "class", "call"])
def test_readers_that_never_end(source: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_data, "ENDLESS", 50)
    with pytest.raises(DataError, match=r"gave 50 samples and do not end.*CalibDataSize"):
        quantize(model(), source())
    config = get_default_config("S8S8_AAWS")
    limited = QuantizationConfig.from_dict(json.loads(config.to_json()) | {"extra_options": {"CalibDataSize": 4}})
    assert ModelQuantizer(limited).quantize_model(model(), None, source()).plan.nodes


def test_many_samples_that_are_counted_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of any length, and a reader that ends in time, are in order."""
    monkeypatch.setattr(calibration_data, "ENDLESS", 5)
    many = [{"x": normal(1, 3, 8, 8, seed=seed)} for seed in range(8)]
    for source in (many, np.concatenate([feed["x"] for feed in many]), iter(many[:5])):
        assert quantize(model(), source).plan.nodes
