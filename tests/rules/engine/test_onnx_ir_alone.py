"""onnx_ir comes without sympy, until somebody reckons with open dimensions."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOLD = "print('sympy.core' in sys.modules)"


@pytest.mark.parametrize(("before", "loaded"), [("quark_onnx", False), ("sympy, quark_onnx", True), ("onnx_ir", True)])
def test_sympy_is_loaded_when_it_is_needed(before: str, loaded: bool) -> None:
    lines = f"import {before}, onnx_ir, sys; {TOLD}; print(onnx_ir.SymbolicDim('N') + 1); {TOLD}; print(sys.meta_path)"
    told = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[:3] == [str(loaded), "N + 1", "True"]
    assert "_Late" not in told[3]
