"""Memory that a model takes while it runs: measured in a process of its own, which is all that can be trusted.

`python -m quark_onnx.report.footprint RUNTIME MODEL FEED.npz THREADS` prints the bytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from quark_onnx.child_environment import child_environment
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import fit
from quark_onnx.engine.runtimes.known import NOWHERE, RUNTIMES
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.graph import Model, io

TIMEOUT = 300.0
"""Seconds."""

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """The most memory that this process has had in use; None where the system does not tell (it is Linux that does).

    Not `resource.getrusage`: there a new process begins with the peak of the one that started it.
    """
    try:
        lines = _STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def footprint(model: Model, feed: Feed, runtime: str = NOWHERE, *, threads: int = 1) -> int | None:
    """Bytes that a process grows by when it loads the model and runs it once; None where that cannot be told.

    runtime: name of the one that runs it.
    """
    if peak_bytes() is None or any(array.dtype == object for array in feed.values()):
        return None
    with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
        path, data = Path(folder) / "model.onnx", Path(folder) / "feed.npz"
        io.save(model, path, source=model)
        np.savez(data, **fit(feed, model))  # type: ignore[arg-type]  # names of inputs are strings
        command = [sys.executable, "-m", __name__, runtime, str(path), str(data)]
        try:
            done = subprocess.run(
                [*command, str(threads)],
                cwd=folder,  # of which we know what is in it
                env=child_environment(),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
    return int(done.stdout)


def _main(runtime: str, model: str, data: str, threads: str) -> None:
    found = RUNTIMES[runtime]()
    if isinstance(found, Missing):
        sys.exit(found.reason)
    with np.load(data) as stored:
        feed = {name: stored[name] for name in stored.files}
    before = peak_bytes() or 0
    found.run_file(Path(model), feed, int(threads))
    print((peak_bytes() or 0) - before)


if __name__ == "__main__":
    _main(*sys.argv[1:])
