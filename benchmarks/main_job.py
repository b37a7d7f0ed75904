"""The whole job, ours and onnxruntime's own quantizer, in turn: `python benchmarks/main_job.py TASK [ROUNDS]`.

Each run is a process of its own; seconds are those inside the quantizer (imports excluded), peak memory is that of
the process. Prints one JSON document with medians and the ratio of each round.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measure import machine, ours, peer


def main(task: str, rounds: str = "5") -> None:
    """Measure and print."""
    per_channel = task != "resnet20-cifar10"
    how = {"preset": "S8S8_AAWS", "per_channel": per_channel}
    scheme = "S8S8_PC" if per_channel else "S8S8_PT"
    mine, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        models = {name: Path(folder, f"{name}.onnx") for name in ("ours", "ort")}
        for _ in range(int(rounds)):
            mine.append(ours(task, models["ours"], how))
            theirs.append(peer("ort", task, models["ort"], scheme))
        sizes = {name: model.stat().st_size for name, model in models.items()}
    found = {
        "task": task,
        "machine": machine(),
        "seconds": median(r["seconds"] for r in mine),
        "cpu_seconds": median(r["cpu_seconds"] for r in mine),
        "ort_seconds": median(r["seconds"] for r in theirs),
        "ratio": {key: _ratios(mine, theirs, key) for key in ("seconds", "cpu_seconds")},
        "peak_gb": max(r["peak_gb"] for r in mine),
        "ort_peak_gb": max(r["peak_gb"] for r in theirs),
        "bytes": sizes,
    }
    print(json.dumps(found, indent=1))


def _ratios(mine: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]], key: str) -> dict[str, float]:
    """Ours to theirs, by round."""
    found = [a[key] / b[key] for a, b in zip(mine, theirs, strict=True)]
    return {"min": min(found), "median": median(found), "max": max(found)}


if __name__ == "__main__":
    main(*sys.argv[1:])
