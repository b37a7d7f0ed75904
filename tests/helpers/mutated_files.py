"""Files of every kind that we read, damaged one after the other, and what came of it: a process of its own.

    python mutated_files.py FOLDER FIRST COUNT [NAME …]

prints `start NAME SEED`, then `NAME SEED ok`, the class of an error of ours, or `foreign: …`. What ends the process, or
hangs, is the last that was started.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from byte_mutations import mutated
from onnx_text import parse_model
from text_models import batchnorm, normal, text_model

import quark_onnx
from quark_onnx import ModelQuantizer, QuarkError, get_default_config
from quark_onnx.cli.flags import read_config
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.aimet_runtime_config import load_runtime_config
from quark_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from quark_onnx.zoo.manifest import read_zoo

PRESET = get_default_config("S8S8_AAWS")

CONV = """g (float[1,3,8,8] x) => (float[1,5] y) {
    c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)
    n = BatchNormalization (c, gamma, beta, mean, var) r = Relu (n)
    d = Conv <group = 4> (r, v) a = Add (d, d) p = AveragePool <kernel_shape = [2,2]> (a) f = Flatten (p)
    g = Gemm <transB = 1> (f, k, q) y = Softmax (g) }"""

BRANCHES = """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[N,4] x, bool t) => (float[N,4] y)
<float[4,4] w = {WEIGHTS}, float[4] one = {1,1,1,1}> {
    h = MatMul (x, w) a = own.gate (h)
    i = If (t) <then_branch = yes () => (float[N,4] o) { o = MatMul (a, w) },
                else_branch = no () => (float[N,4] o) { o = Relu (a) }>
    n = Constant <value_int = 2> ()
    l = Loop (n, t, i) <body = body (int64 k, bool c, float[N,4] s) => (bool c2, float[N,4] s2) {
        c2 = Identity (c) s2 = Add (s, one)
    }> y = MatMul (l, w)
}
<opset_import: ["": 17], domain: "own"> gate (z) => (o) { s = Sigmoid (z) o = Mul (z, s) }"""


def _conv() -> onnx.ModelProto:
    constants = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 1, 2, 2), "k": normal(5, 16), "q": normal(5)}
    return text_model(CONV, **constants, **batchnorm(4))


def _branches() -> onnx.ModelProto:
    weights = ",".join(f"{value:.6f}" for value in normal(16))
    return parse_model(BRANCHES.replace("WEIGHTS", weights))


IMAGES = [{"x": normal(1, 3, 8, 8, seed=seed)} for seed in range(2)]
VECTORS = [{"x": normal(2, 4, seed=seed), "t": np.array(seed > 0)} for seed in range(2)]
DIGITS = [{"input": normal(1, 1, 8, 8, seed=seed)} for seed in range(2)]


def _quantize(feeds: Any) -> Callable[[Path], object]:
    return lambda path: ModelQuantizer(PRESET).quantize_model(path, None, feeds)


@dataclass
class Subject:
    """A file, and what reads it. `folder` is used by the maker alone."""

    folder: Path
    make: Callable[[Path], Path]
    use: Callable[[Path], object]
    path: Path = field(init=False)
    sound: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.path = self.make(self.folder)
        self.sound = self.path.read_bytes()
        self.use(self.path)  # a sound file is read

    def outcome(self, seed: int) -> str:
        """What comes of the file with this damage."""
        self.path.write_bytes(mutated(self.sound, seed))
        try:
            self.use(self.path)
            return "ok"
        except QuarkError as error:
            return type(error).__name__
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return f"foreign: {type(error).__name__}: {str(error)[:200]!r} at {at.filename}:{at.lineno}"


def _saved(model: onnx.ModelProto, **how: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        onnx.save(model, folder / "model.onnx", **how)
        return folder / "model.onnx"

    return make


def _plan(part: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        ModelQuantizer(PRESET).quantize_model(_conv(), None, IMAGES).plan.save(folder / "plan")
        return folder / "plan" / part

    return make


def _cached(path: Path) -> object:
    return ModelQuantizer(PRESET).quantize_model(_conv(), None, IMAGES, calibration_cache=path)


def _cache(folder: Path) -> Path:
    _cached(folder / "cache.npz")
    return folder / "cache.npz"


def _resumed(path: Path) -> object:
    return ModelQuantizer(PRESET).quantize_model(_conv(), None, IMAGES, resume=Plan.load(path.parent))


def _encodings(version: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        sim = QuantizationSimModel(_conv(), threads=1)
        sim.compute_encodings(IMAGES)
        sim.export(str(folder), "model", export_model=False, encoding_version=version)
        return next(folder.glob("*.encodings*"))

    return make


def _loaded(path: Path) -> object:
    return load_encodings_to_sim(QuantizationSimModel(_conv(), threads=1), path, strict=False)


MANIFEST = """defaults: &d {preset: S8S8_AAWS, data: random, budget: {min_sqnr: 25}}
models:
  - input: ./vision.onnx
  - input: encoder.onnx
    preset: [INT8_TRANSFORMER_DEFAULT, U16S8_AAWS]
    timeout: 2h
    options: {Percentile: 99.9}
  - {<<: *d, input: other.onnx, name: "{stem}-2"}
"""


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    """The maker of a file with this content."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _array(folder: Path) -> Path:
    np.save(folder / "0.npy", IMAGES[0]["x"])
    return folder / "0.npy"


def _arrays(folder: Path) -> Path:
    np.savez_compressed(folder / "0.npz", **IMAGES[0])
    return folder / "0.npz"


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray((np.abs(normal(12, 12, 3)) * 90).astype(np.uint8)).save(folder / "0.png")
    return folder / "0.png"


def _from_folder(path: Path) -> object:
    return ModelQuantizer(PRESET).quantize_model(_conv(), None, None, path.parent)


def _external(path: Path) -> object:
    return _quantize(IMAGES)(path.with_name("model.onnx"))


def _data_file(folder: Path) -> Path:
    return _saved(_conv(), save_as_external_data=True, location="w.bin", size_threshold=0)(folder).with_name("w.bin")


def subjects(folder: Path) -> dict[str, Callable[[], Subject]]:
    """By name; they are made when they are called."""
    package = Path(quark_onnx.__file__).parent
    digits = written("digits.onnx", (package / "demo" / "digits.onnx").read_bytes())
    runtime = next((package / "quantsim").glob("*.json")).read_bytes()
    beside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    table: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
        "conv": (_saved(_conv()), _quantize(IMAGES)),
        "branches": (_saved(_branches()), _quantize(VECTORS)),
        "digits": (digits, _quantize(DIGITS)),
        "model with external data": (_saved(_conv(), **beside), _quantize(IMAGES)),
        "external data": (_data_file, _external),
        "plan.json": (_plan("plan.json"), _resumed),
        "plan arrays": (_plan("arrays.npz"), _resumed),
        "cache": (_cache, _cached),
        "encodings 0.6.1": (_encodings("0.6.1"), _loaded),
        "encodings 1.0.0": (_encodings("1.0.0"), _loaded),
        "encodings 2.0.0": (_encodings("2.0.0"), _loaded),
        "runtime configuration": (written("c.json", runtime), lambda path: load_runtime_config(path)),
        "configuration": (written("c.json", PRESET.to_json().encode()), read_config),
        "manifest": (written("zoo.yaml", MANIFEST.encode()), lambda path: read_zoo(path, path.parent / "out")),
        "npy": (_array, _from_folder),
        "npz": (_arrays, _from_folder),
        "png": (_picture, _from_folder),
    }
    return {
        name: lambda name=name, make=make, use=use: Subject(folder / name, make, use)
        for name, (make, use) in table.items()
    }


def main(folder: str, first: str, count: str, *names: str) -> None:
    """See above."""
    logging.disable(logging.CRITICAL)
    known = subjects(Path(folder))
    for name in names or known:
        subject = known[name]()
        for seed in range(int(first), int(first) + int(count)):
            print(f"start\t{name}\t{seed}", flush=True)
            print(f"{name}\t{seed}\t{subject.outcome(seed)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
