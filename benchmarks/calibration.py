"""What calibration costs: `python benchmarks/calibration.py [speed memory entropy] [--task TASK] [--rounds N]`.

speed    seconds of `observe`, with histograms, and of inference that fetches the same tensors and drops them, in turn
         in one process, sessions included: as onnxruntime does it by default (all cores on one feed), with the session
         of `observe` one feed after the other, and with that session on as many feeds at a time as `observe` runs;
         wall clock, and processor time, which depends less on what else the machine does
memory   peak of the whole call, and of `observe` above what the process holds already, for 200 feeds and for the same
         feeds five times over; each in a process of its own
entropy  seconds from the same fetched arrays to Entropy's ranges: ours, onnxruntime's calibrator with the same number
         of bins, and with its own default, which finds nothing but the extremes

Prints one JSON document; ratios above 1 mean that ours is slower (speed) or faster (entropy).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from measure import ROOT, TASKS, machine, measured

Found = dict[str, Any]


def unseen(done: int) -> None:
    """Nobody looks."""


class Case:
    """A task ready to be observed: model, tensors, feeds."""

    def __init__(self, task: str, feeds: int) -> None:
        from tasks import TASKS as tasks

        from quark_onnx import get_default_config
        from quark_onnx.graph import io as models
        from quark_onnx.job import open_job
        from quark_onnx.stages.ranges import observed_tensors

        job = open_job(tasks[task].model, get_default_config("S8S8_AAWS"))
        self.model, self.tensors = job.prepared, observed_tensors(job.sites)
        inputs = {value.name for value in self.model.graph.inputs}
        self.fetched = [name for name in self.tensors if name not in inputs]
        self.tapped = models.with_outputs(self.model, self.fetched)
        self.feeds = tasks[task].calib(feeds)

    def observe(self) -> Any:
        """Statistics of all feeds."""
        from quark_onnx.engine.observe import observe

        return observe(self.model, self.feeds, self.tensors, unseen)

    def fetch(self, threads: int, workers: int) -> None:
        """Plain inference with the options of `Runner`; what is fetched is dropped."""
        from quark_onnx.engine.runner import Runner

        runner = Runner(self.tapped, self.fetched, threads=threads)
        with ThreadPoolExecutor(workers) as executor:
            for _ in executor.map(lambda feed: len(runner(feed)), self.feeds):
                pass


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The first to the second, by round."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"min": round(min(found), 3), "median": round(median(found), 3), "max": round(max(found), 3)}


def speed(task: str, rounds: int) -> Found:
    """Seconds of each way, by round, and the ratios of `observe` to the others."""
    from quark_onnx.engine import observe

    case, workers, threads = Case(task, 200), observe.WORKERS, observe._threads()
    ways: dict[str, Callable[[], object]] = {
        "observe": case.observe,
        "default": lambda: case.fetch(0, 1),
        "one at a time": lambda: case.fetch(threads, 1),
        "as observe": lambda: case.fetch(threads, workers),
    }
    for work in ways.values():
        work()  # warm
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            start = time.process_time()
            wall[name].append(round(seconds(work), 4))
            processor[name].append(round(time.process_time() - start, 4))
    others = list(ways)[1:]
    return {
        "feeds": 200,
        "tensors": len(case.tensors),
        "wall": wall,
        "ratio": {name: ratios(wall["observe"], wall[name]) for name in others},
        "processor": {name: median(times) for name, times in processor.items()},
        "processor_ratio": {name: ratios(processor["observe"], processor[name]) for name in others},
    }


def peak() -> float:
    """Peak memory of this process, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def observed(task: str, times: int) -> Found:
    """Peak memory of `observe` with the feeds so many times over."""
    case = Case(task, 200)
    case.feeds = case.feeds * times
    before = peak()
    case.observe()
    return {"before_mb": before, "peak_mb": peak()}


def whole(task: str, times: int) -> Found:
    """Peak memory of the whole call; the feeds are the same arrays again, so that those themselves do not count."""
    from tasks import TASKS as tasks

    from quark_onnx import Config, ModelQuantizer, get_default_config

    feeds = tasks[task].calib(200)
    result = ModelQuantizer(Config(get_default_config("S8S8_AAWS"))).quantize_model(
        tasks[task].model, None, [feed for _ in range(times) for feed in feeds]
    )
    return {"samples": result.report.samples, "peak_mb": peak()}


def entropy(task: str, rounds: int) -> Found:
    """Ours and onnxruntime's, from the same arrays to thresholds; every array is in memory beforehand."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    from quark_onnx.core.number_formats import Format
    from quark_onnx.core.settings.range_methods import Ranging
    from quark_onnx.engine.runner import Runner
    from quark_onnx.numerics.ranges.calibration_statistics import Tally
    from quark_onnx.numerics.ranges.methods import find_range

    case = Case(task, 200)
    runner = Runner(case.tapped, case.fetched)
    columns = dict(zip(case.fetched, zip(*map(runner, case.feeds), strict=True), strict=True))

    def ours() -> dict[str, tuple[float, float]]:
        found = {}
        for name, arrays in columns.items():
            tally = Tally()
            ends = [tally.add(array) for array in arrays]
            statistics = tally.statistics(min(e[0] for e in ends if e), max(e[1] for e in ends if e))
            found[name] = find_range(statistics, Format(8, True, False), Ranging("Entropy", bins=2048, levels=128))
        return found

    def theirs(bins: int) -> Any:
        collector = HistogramCollector("entropy", False, bins, 128, 99.999, "same")
        with contextlib.redirect_stdout(io.StringIO()):
            collector.collect(columns)
            return collector.compute_collection_result()

    found: dict[str, list[float]] = {"ours": [], "ort 2048 bins": [], "ort 128 bins": []}
    for _ in range(rounds):
        found["ours"].append(round(seconds(ours), 3))
        found["ort 2048 bins"].append(round(seconds(lambda: theirs(2048)), 3))
        found["ort 128 bins"].append(round(seconds(lambda: theirs(128)), 3))
    return {
        "tensors": len(columns),
        "seconds": found,
        "times_faster": {name: ratios(found[name], found["ours"]) for name in list(found)[1:]},
    }


def process(what: str, task: str, count: int) -> Found:
    """One measurement in a process of its own, which is small when it begins."""
    return measured([sys.executable, Path(__file__).resolve(), "--inside", what, task, count], ROOT, TASKS.parent)


def memory(task: str) -> Found:
    """Peak memory by number of feeds."""
    return {name: {200 * n: process(name, task, n) for n in (1, 5)} for name in ("observed", "whole")}


def main() -> None:
    """Measure and print; or, as a process that `process` started, one measurement."""
    if sys.argv[1:2] == ["--inside"]:
        what, task, count = sys.argv[2:]
        inside = {"speed": speed, "entropy": entropy, "observed": observed, "whole": whole}
        print(json.dumps(inside[what](task, int(count))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="speed, memory, entropy (default: all)")
    parser.add_argument("--task", default="mobilenet-imagenet")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    cases: dict[str, Callable[[], Found]] = {
        "speed": lambda: process("speed", args.task, args.rounds),
        "memory": lambda: memory(args.task),
        "entropy": lambda: process("entropy", args.task, max(1, args.rounds // 3)),
    }
    if unknown := set(args.cases) - cases.keys():
        parser.error(f"unknown case {min(unknown)!r}; there are {', '.join(cases)}")
    found = {name: cases[name]() for name in args.cases or cases}
    print(json.dumps({"task": args.task, "machine": machine(), **found}, indent=1))


if __name__ == "__main__":
    main()
