"""How fast quantized models are against the float one, run in turn: a ratio above 1 is slower.

    python benchmarks/latency.py [NAME …] [--preset …]            models of ../shared, quantized here, per channel
    python benchmarks/latency.py NAME INT8.onnx … [--nodes]       files against the float model of NAME, on its data
    python benchmarks/latency.py FLOAT.onnx INT8.onnx … [--nodes] on made-up data; the first may be an int8 model

One sample at a time. In each turn every model runs twice, the second run counts: the first one fetches its weights back
into the caches. `--nodes` adds milliseconds by operator, and the slowest nodes, from onnxruntime's profile.

Prints one JSON document; what is known of a model already goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from measure import ROOT, TASKS, machine

sys.path[:0] = [str(ROOT), str(TASKS.parent), str(TASKS.parents[1] / "real")]

Feeds = list[dict[str, np.ndarray[Any, Any]]]

WARM_UP, FEEDS, SLOWEST = 5, 8, 15


def session(path: Path, threads: int, profile: Path | None = None) -> Any:
    """A model as onnxruntime runs it; its threads wait for nothing while another model has its turn."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def known() -> dict[str, Any]:
    """Name → the task or real model beside the repository."""
    from real import MODELS
    from tasks import TASKS as tasks

    return {**tasks, **MODELS}


def source(name: str) -> tuple[Path, Feeds, Feeds]:
    """The float model, what it is calibrated with, and what it is timed on."""
    found = known()[name]
    if hasattr(found, "calib"):
        feeds = found.calib(200)
        return found.model, feeds, feeds[:FEEDS]
    return found.path(), found.calibration(), found.evaluation()[:FEEDS]


def made_up(path: Path) -> Feeds:
    """A feed that fits the inputs of a model: one sample, open dimensions are 64."""
    rng, feed = np.random.default_rng(0), {}
    for one in session(path, 1).get_inputs():
        shape = [d if isinstance(d, int) else (1 if k == 0 else 64) for k, d in enumerate(one.shape)]
        integers = "int64" in one.type
        feed[one.name] = np.ones(shape, np.int64) if integers else rng.uniform(-1, 1, shape).astype(np.float32)
    return [feed]


def quantized(model: Path, data: Feeds, preset: str, output: Path) -> Path:
    """The model that a preset makes, with a scale per channel."""
    from quark_onnx import Config, ModelQuantizer, get_default_config

    ModelQuantizer(Config(replace(get_default_config(preset), per_channel=True))).quantize_model(model, output, data)
    return output


def timed(
    runs: Mapping[str, Callable[[dict[str, Any]], Any]],
    feeds: Feeds,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Median milliseconds, and the median of the ratios to the first model within a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn, feed in enumerate(islice(cycle(feeds), rounds + WARM_UP)):
        for name, run in runs.items():
            run(feed)
            start = clock()
            run(feed)
            if turn >= WARM_UP:
                seconds[name].append(clock() - start)
    first = next(iter(seconds.values()))
    return {
        "ms": {name: round(1e3 * median(times), 3) for name, times in seconds.items()},
        "ratio": {
            name: round(median(b / a for a, b in zip(first, times, strict=True)), 3) for name, times in seconds.items()
        },
    }


def profiled(path: Path, feeds: Feeds, rounds: int) -> dict[str, Any]:
    """Milliseconds of a run on one thread: operator → [nodes, ms], and the slowest nodes → ms."""
    with tempfile.TemporaryDirectory() as folder:
        run = session(path, 1, Path(folder) / "profile")
        for feed in islice(cycle(feeds), rounds):
            run.run(None, feed)
        events = json.loads(Path(run.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
            times.setdefault(key, []).append(event["dur"] / 1e3)
    nodes = Counter({key: median(durations) for key, durations in times.items()})
    operators: Counter[str] = Counter()
    for (operator, _), taken in nodes.items():
        operators[operator] += taken
    count = Counter(operator for operator, _ in nodes)
    return {
        "operators": {name: [count[name], round(taken, 3)] for name, taken in operators.most_common()},
        "slowest": {f"{operator} {name}": round(t, 3) for (operator, name), t in nodes.most_common(SLOWEST)},
    }


def measured(models: Mapping[str, Path], feeds: Feeds, args: argparse.Namespace) -> dict[str, Any]:
    """Times for every number of threads, and where they go."""
    found: dict[str, Any] = {"threads": {}}
    for threads in args.threads:
        runs = {name: partial(session(path, threads).run, None) for name, path in models.items()}
        found["threads"][threads] = timed(runs, feeds, args.rounds)
    if args.nodes:
        found["nodes"] = {name: profiled(path, feeds, args.rounds) for name, path in models.items()}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME or FILE")
    parser.add_argument("--preset", nargs="+", default=["INT8_PROTECTED", "S8S8_AAWS"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--nodes", action="store_true", help="where the time goes, on one thread")
    args = parser.parse_args()
    files = [Path(name) for name in args.models if name.endswith(".onnx")]
    names = [name for name in args.models or known() if not name.endswith(".onnx")]
    document: dict[str, Any] = {"machine": machine(), "rounds": args.rounds}
    if files:
        path, _, feeds = source(names[0]) if names else (files.pop(0), [], [])
        models = {"float" if names else str(path): path} | {str(file): file for file in files}
        document["files"] = measured(models, feeds or made_up(path), args)
    for name in () if files else names:
        path, data, feeds = source(name)
        with tempfile.TemporaryDirectory() as folder:
            made = {p: quantized(path, data, p, Path(folder) / f"{p}.onnx") for p in args.preset}
            document[name] = measured({"float": path} | made, feeds, args)
        print(name, json.dumps(document[name]), file=sys.stderr, flush=True)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
