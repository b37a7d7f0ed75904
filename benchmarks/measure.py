"""What the benchmarks share: every measured call is a process of its own, and this module imports nothing heavy.

The peak memory of a process counts that of the one that started it, so a script that measures must stay small itself.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "bench" / "tasks.py"
PEERS = TASKS.with_name("peers.py")
OURS = ROOT / "benchmarks" / "worker.py"


def measured(command: Sequence[object], *paths: Path) -> dict[str, Any]:
    """The JSON document that a command prints as its last line; `paths` are where it imports from, besides its own.

    It runs in a folder that vanishes: Quark leaves files wherever it is.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment, cwd=folder, check=True
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ours(task: str, output: Path, how: Mapping[str, Any], samples: int = 200) -> dict[str, Any]:
    """Our whole call on a task: seconds, peak memory, fused layers; see `worker.py` for `how`."""
    return measured([sys.executable, OURS, task, output, json.dumps(how), samples], ROOT, TASKS.parent)


def scores(task: str, model: Path) -> dict[str, dict[str, float]]:
    """How good a model is, as onnxruntime runs it (`ort`) and as it is written (`raw`)."""
    found = measured([sys.executable, TASKS, "eval", task, model, "--raw"])
    return {kind: found[kind] for kind in ("ort", "raw")}


def machine() -> dict[str, Any]:
    """Where figures come from, and how busy it was: processes that wanted to run in the last minute."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
