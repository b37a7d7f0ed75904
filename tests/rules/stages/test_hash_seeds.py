"""Python hashes strings anew in every process: no order of a set of names reaches a plan, a model or a message."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from text_models import normal, text_model

ROWS = "g (int64[N, 4] i, float[N, 8, 6, 6] x) => (float[N, 4, 8] r, float[N, 8] s, float[N, 8] t) {"
ROWS += "".join(f"a{n} = Gather (w{n}, i) b{n} = Unsqueeze (a{n}, last) c{n} = Squeeze (b{n}, last) " for n in range(4))
ROWS += """r = Sum (c0, c1, c2, c3)
[l0] h0 = Conv (x, k) [l1] g0 = Relu (h0) [l2] h1 = Conv (g0, k) [l3] g1 = Relu (h1) [l4] h2 = Conv (g1, k)
[l5] m0 = GlobalAveragePool (h2) [l6] m1 = Flatten (m0) [l7] s = MatMul (m1, v)
[l8] h3 = Conv (x, k) [l9] m2 = GlobalAveragePool (h3) [l10] m3 = Flatten (m2) [l11] t = MatMul (m3, v) }"""

EACH_CASE = """
import hashlib, json, sys
from dataclasses import replace
import numpy as np
from quark_onnx import ModelQuantizer, get_default_config

draw = np.random.default_rng(0)
data = [{"i": draw.integers(0, 5, (1, 4)), "x": draw.normal(size=(1, 8, 6, 6)).astype(np.float32)} for _ in range(8)]
for name, preset, fields, options in CASES:
    config = get_default_config(preset)
    config = replace(config, **fields, extra_options={**config.extra_options, **options})
    model = f"{sys.argv[1]}/{name}.onnx"
    done = ModelQuantizer(config).quantize_model("model.onnx", model, data if config.needs_data else None)
    done.plan.save(f"{sys.argv[1]}/{name}")
"""
CASES = [
    ("tuned", "S8S8_AAWS_ADAQUANT", {}, {"FastFinetune": {"OptimAlgorithm": "adaquant", "NumIterations": 5}}),
    ("protected", "S8S8_AAWS", {"per_channel": True}, {"Protect": ["l0", "l2", "l4", "l7", "l8", "l11"]}),
    ("run time", "UINT8_DYNAMIC_QUANT", {}, {}),
    ("half", "FP16", {"nodes_to_exclude": ["l*"]}, {}),
    ("some in half", "FP16", {"nodes_to_quantize": ["l[0-4]"]}, {}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What two processes with different hashes make of each case."""
    folder = tmp_path_factory.mktemp("hashes")
    weights = {f"w{n}": normal(5, 8, seed=n) for n in range(4)}
    onnx.save(text_model(ROWS, **weights, k=normal(8, 8, 1, 1), v=normal(8, 8), last=[-1]), folder / "model.onnx")
    runs = []
    for seed in "12":
        (folder / seed).mkdir()
        command = [sys.executable, "-c", f"CASES = {CASES}{EACH_CASE}", seed]
        runs.append(subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONHASHSEED": seed}))
    assert [run.wait() for run in runs] == [0, 0]
    yield folder


@pytest.mark.parametrize("case", [name for name, *_ in CASES])
def test_hashes_of_names_change_no_byte(folder: Path, case: str) -> None:
    for file in (f"{case}.onnx", f"{case}/plan.json"):
        assert (folder / "1" / file).read_bytes() == (folder / "2" / file).read_bytes()
