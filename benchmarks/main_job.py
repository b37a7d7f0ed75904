"""The whole job, ours and onnxruntime's own quantizer, in turn: `python benchmarks/main_job.py TASK [ROUNDS]`.

Each run is a process of its own; seconds are those inside the quantizer (imports excluded), peak memory is that of
the process.
Prints one JSON document with medians and the ratio of each round.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

SHARED = Path(__file__).parents[2] / "shared"

OURS = """
import json, resource, sys, time
from dataclasses import replace
sys.path.insert(0, {bench!r})
from tasks import TASKS, Reader
task, output = sys.argv[1:]
feeds = TASKS[task].calib(200)
from quark_onnx import Config, ModelQuantizer, get_default_config
import onnxscript.optimizer
config = replace(get_default_config("S8S8_AAWS"), per_channel={per_channel})
start = time.perf_counter()
ModelQuantizer(Config(config)).quantize_model(TASKS[task].model, output, Reader(feeds))
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}}))
"""


def run(command: list[str]) -> dict[str, float]:
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()
    return dict(json.loads(lines[-1]))


def main(task: str, rounds: str = "5") -> None:
    per_channel = task != "resnet20-cifar10"
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        script = OURS.format(bench=str(SHARED / "bench"), per_channel=per_channel)
        peer = [
            sys.executable,
            str(SHARED / "bench" / "peers.py"),
            "ort",
            task,
            "S8S8_PC" if per_channel else "S8S8_PT",
        ]
        for _ in range(int(rounds)):
            ours.append(run([sys.executable, "-c", script, task, f"{folder}/ours.onnx"]))
            theirs.append(run([*peer, f"{folder}/ort.onnx"]))
        sizes = {name: Path(folder, f"{name}.onnx").stat().st_size for name in ("ours", "ort")}
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(ours, theirs, strict=True)]
    print(
        json.dumps(
            {
                "task": task,
                "machine": platform.platform(),
                "seconds": median(r["seconds"] for r in ours),
                "ort_seconds": median(r["seconds"] for r in theirs),
                "ratio": {"min": min(ratios), "median": median(ratios), "max": max(ratios)},
                "peak_gb": max(r["peak_gb"] for r in ours),
                "ort_peak_gb": max(r["peak_gb"] for r in theirs),
                "bytes": sizes,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
