"""What a simulation costs: `python benchmarks/simulation.py [TASK …] [--rounds N]`.

Seconds of a pass over 24 samples, one by one on one thread, in turn in one process: the float model as onnxruntime runs
it, the simulation (`fast`), the one that rounds as AIMET does (`exact`), and what `to_onnx_qdq` makes of it, on integer
kernels (`qdq`). BatchNormalizations are folded first. Beside it the seconds until there is a session: construction,
`compute_encodings` with 12 of the samples, session.

Prints one JSON document; ratios are to the float model, above 1 is slower.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measure import ROOT, TASKS, machine, measured

ALL = ("mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb")
SAMPLES, CALIBRATION = 24, 12


def session(proto: Any) -> Any:
    """A model on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def forward(task: str, rounds: int) -> dict[str, Any]:
    """Seconds of a pass by round, and ratios."""
    from tasks import TASKS as tasks

    from quark_onnx.graph import io
    from quark_onnx.quantsim import QuantizationSimModel
    from quark_onnx.stages.prepare import prepare

    proto = io.to_proto(prepare(io.load(tasks[task].model), opset=13, optimize=task != "minilm-stsb").model)
    feeds = tasks[task].calib(SAMPLES)
    marks = [time.perf_counter()]
    sim = QuantizationSimModel(proto, threads=1)
    marks.append(time.perf_counter())
    sim.compute_encodings(feeds[:CALIBRATION])
    marks.append(time.perf_counter())
    sessions = {"float": session(proto), "fast": sim.session}
    marks.append(time.perf_counter())
    exact = QuantizationSimModel(proto, exact=True, threads=1)
    exact.compute_encodings(feeds[:CALIBRATION])
    sessions |= {"exact": exact.session, "qdq": session(sim.to_onnx_qdq())}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 2):
        for name, runs in sessions.items():
            start = time.perf_counter()
            for feed in feeds:
                runs.run(None, feed)
            if turn >= 2:  # warm-up
                seconds[name].append(round(time.perf_counter() - start, 5))
    steps = ("construction", "compute_encodings", "session")
    return {
        "quantizers": sum(q.enabled for q in sim.qc_quantize_op_dict.values()),
        "setup": {name: round(b - a, 2) for name, a, b in zip(steps, marks, marks[1:], strict=False)},
        "milliseconds": {name: round(1e3 * median(times) / SAMPLES, 3) for name, times in seconds.items()},
        "ratio": {
            name: round(median(a / b for a, b in zip(times, seconds["float"], strict=True)), 2)
            for name, times in seconds.items()
        },
    }


def main() -> None:
    """Measure and print; or, as a process that this one started, one task."""
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(forward(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(ALL) + " (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if unknown := set(args.tasks) - set(ALL):
        parser.error(f"unknown task {min(unknown)!r}; there are {', '.join(ALL)}")
    command = [sys.executable, Path(__file__).resolve(), "--inside"]
    found = {task: measured([*command, task, args.rounds], ROOT, TASKS.parent) for task in args.tasks or ALL}
    print(json.dumps({"machine": machine(), "samples": SAMPLES, "rounds": args.rounds, **found}, indent=1))


if __name__ == "__main__":
    main()
