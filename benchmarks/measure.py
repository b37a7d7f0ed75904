"""What the benchmarks share: every measured call is a process of its own, and this module imports nothing heavy.

The peak memory of a process counts that of the one that started it, so a script that measures must stay small itself.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "bench" / "tasks.py"
REAL = TASKS.parents[1] / "real"
HELD = ("QUARK_ONNX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables that hold a process to a number of threads: ours, and those of the libraries below."""


def leave_folder() -> None:
    """Take this folder off the path of imports: `openvino.py` in it has the name of a package that others look for."""
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]


def measured(
    command: Sequence[object], *paths: Path, threads: int | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON document that a command prints as its last line; `paths` are where it imports from, besides its own.

    It runs on so many threads, default: as many as it likes, with these variables in its environment, and in a folder
    that vanishes: Quark leaves files around.
    """
    held = {**({} if threads is None else dict.fromkeys(HELD, str(threads))), **(variables or {})}
    environment = {**os.environ, **held, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*map(str, command)], stdout=subprocess.PIPE, text=True, env=environment, cwd=folder, check=True
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _script(
    name: str,
    *arguments: object,
    threads: int | None = None,
    variables: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> dict[str, Any]:
    """What a script of this folder prints that reads tasks and real models."""
    command = [python, ROOT / "benchmarks" / name, *arguments]
    return measured(command, ROOT, TASKS.parent, REAL, threads=threads, variables=variables)


def ours(
    subject: str, output: Path, how: Mapping[str, Any], samples: int = 200, threads: int | None = None
) -> dict[str, Any]:
    """Our whole call on a task or a real model: seconds, peak memory, fused layers; see `worker.py` for `how`."""
    return _script("worker.py", subject, output, json.dumps(how), samples, threads=threads)


def peer(
    name: str,
    subject: str,
    output: Path,
    scheme: str,
    samples: int = 200,
    threads: int | None = None,
    python: str = sys.executable,
) -> dict[str, Any]:
    """The whole call of another quantizer, in an interpreter that has it; see `peer_worker.py`."""
    return _script("peer_worker.py", name, subject, output, scheme, samples, threads=threads, python=python)


def ported(tool: str, subject: str, output: Path, call: str, samples: int) -> dict[str, Any]:
    """A call of onnxruntime.quantization, or of our port of it, on one thread; see `ort_worker.py`."""
    return _script("ort_worker.py", tool, subject, output, call, samples, threads=1)


def train_step(way: str, folder: Path, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """Steps of training on one thread, ours or torch's in an interpreter that has it; see `train_worker.py`."""
    name = "train_peer.py" if way.startswith("torch") else "train_worker.py"
    return _script(name, way, folder, *arguments, threads=1, python=python)


def searched(subject: str, way: str) -> dict[str, Any]:
    """A search for the smallest model within a budget, ours or a peer's; see `searches.py`."""
    return _script("searches.py", subject, way)


def in_openvino(subject: str, models: Mapping[str, Path], rounds: int, isa: str | None) -> dict[str, Any]:
    """Models of a subject, by name, in OpenVINO on one thread, with oneDNN held to a set of instructions; see
    `openvino_worker.py`."""
    variables = {} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa}
    named = json.dumps({name: str(path) for name, path in models.items()})
    return _script("openvino_worker.py", subject, named, rounds, threads=1, variables=variables)


def scores(subject: str, model: Path) -> dict[str, dict[str, float]]:
    """How good a model is, as onnxruntime runs it (`ort`) and as it is written (`raw`)."""
    return _script("subjects.py", subject, model)


@contextmanager
def metered() -> Iterator[dict[str, Any]]:
    """Fills in what the block took: seconds, CPU seconds of all threads and children, peak memory of the process."""
    found: dict[str, Any] = {}
    start, busy = time.perf_counter(), sum(os.times()[:4])
    yield found
    found["seconds"] = round(time.perf_counter() - start, 2)
    found["cpu_seconds"] = round(sum(os.times()[:4]) - busy, 2)
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def step_costs(step: Callable[[], float], count: int) -> dict[str, Any]:
    """What steps take that return a loss: CPU seconds of the fastest, and memory; and the loss of the first."""
    recent_peak_gb()
    before, losses, seconds = recent_peak_gb(), [], []
    for _ in range(count):
        busy = time.process_time()
        losses.append(step())
        seconds.append(time.process_time() - busy)
    peak = recent_peak_gb()
    costs = {"cpu_seconds": round(min(seconds), 4), "peak_gb": peak, "step_gb": round(peak - before, 3)}
    return {**costs, "loss": float(f"{losses[0]:.3g}")}


def recent_peak_gb() -> float:
    """Peak memory of this process since this was last asked; it starts anew from here (Linux only)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return round(int(line.split()[1]) / 2**20, 3)


def machine() -> dict[str, Any]:
    """Where figures come from, and how busy it was: processes that wanted to run in the last minute."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
