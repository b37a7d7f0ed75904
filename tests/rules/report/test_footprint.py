"""The process that measures memory runs our code, whatever lies in the folder that one works in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quantized_models

from quark_onnx.report.footprint import footprint, peak_bytes


@pytest.mark.skipif(peak_bytes() is None, reason="the system does not tell")
def test_modules_of_the_working_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "json", "subprocess", "quark_onnx"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    model = quantized_models.graph("(float[1, 8] x) => (float[1, 8] y) { y = Relu (x) }")
    assert footprint(model, {"x": np.ones((1, 8), np.float32)})
    assert not (tmp_path / "ran").exists()
