"""Scripts as other tools' tutorials have them, only their imports changed: they make what our own call makes.

Each file in `ports/` is one: `ported(model, samples, folder)` is the script, `native(model, samples, folder)` the call
of ours that its user would write. Both return the files that they made, which are equal to the bit. `MODEL` in a file
names a model of `tests/exports` in place of the digits', `samples()` makes what it reads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from quark_onnx.demo import MODEL
from quark_onnx.demo.handwritten_digits import digits

PORTS = sorted((Path(__file__).parent / "ports").glob("*.py"))
EXPORTS = Path(__file__).parents[1] / "exports"
SAMPLES = 24


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(files: Sequence[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("path", PORTS, ids=lambda path: path.stem)
def test_port(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = loaded(path)
    model = tmp_path / "model.onnx"
    model.write_bytes((EXPORTS / port.MODEL if hasattr(port, "MODEL") else MODEL).read_bytes())
    samples = port.samples() if hasattr(port, "samples") else digits()[0][:SAMPLES]
    files = {}
    for name in ("ported", "native"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        files[name] = made(getattr(port, name)(model, np.array(samples), folder))
    assert files["ported"] == files["native"]
    assert files["ported"] and all(files["ported"].values())
