"""What comes without sympy reckons with it as ever, and nobody else notices: in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

THREADS = """
import quark_onnx, onnx_ir, threading
found, start = [], threading.Barrier(4)
def reckon():
    start.wait()
    found.append(onnx_ir.SymbolicDim("N") * 2 + 1)
def name():
    start.wait()
    from sympy import Symbol
    found.append(2 * Symbol("N") + 1)
def part():
    start.wait()
    import sympy.core
    found.append(2 * sympy.core.Symbol("N") + 1)
threads = [threading.Thread(target=work) for work in (reckon, name, reckon, part)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*found, sep=", ")
"""
BEFORE = "import sympy, quark_onnx, onnx_ir; print(onnx_ir.SymbolicDim(2 * sympy.Symbol('N') + 1))"


@pytest.mark.parametrize(("code", "results"), [(THREADS, 4), (BEFORE, 1)])
def test_open_dimensions_are_reckoned_with(code: str, results: int) -> None:
    """Also by threads that are the first to ask, all at once, and whatever is imported first."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().split(", ") == ["2*N + 1"] * results, done.stderr
    assert not done.stderr
