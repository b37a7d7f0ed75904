"""A zoo as a team would have it: `python benchmarks/zoo.py [accept resume workers memory] [--folder F] [--seed S]`.

accept   30 models: CNNs, MLPs and transformers with random weights, one of 2.2 GB with most of its file a hole; and one
         that is corrupt, one that ends onnxruntime's process (SIGFPE; on x86 only), one that hangs, one that is not
         there. 26 must be good; the others must have a stage, a reason and a log; the exit code must be 1
resume   the runner is killed at a random time, by SIGKILL or now and then by Ctrl-C, and started again until it ends,
         20 times; what is in the folder in the end, all but files that hold times, must be the same as without. To keep
         this short it is done with ten models, without pages, the large one and the one that hangs
workers  models a minute of two workers against one, each with one thread; and the same zoo through a scheduler and a
         worker that are processes of their own. Takes as many rounds as asked for
memory   the large model with MinMax: peak of resident memory as the kernel sees it, files that are mapped included, and
         of what is no file, both in parts of the size of the model; by stage

Prints one JSON document; the exit code is 1 if something is not as it must be. FOLDER needs 10 GB; default: a temporary
one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measure import ROOT, machine, measured

Found = dict[str, Any]

CLI = [sys.executable, "-c", "from quark_onnx.cli import main; main()"]
BAD = {"corrupt": "prepare", "crash": "verify", "hang": "verify", "gone": "input"}
"""Models that cannot be converted, and the stage in which that shows."""

TIMES = ("seconds", "stages", "peak_bytes", "attempts", "pages", "kept", "log")
"""What a line of results.jsonl holds beside the row."""


SOON = 5
"""Seconds after which no process of a killed run may be left: while it starts, it does not see that it is alone."""


def zoo(folder: Path, output: Path, *flags: object) -> subprocess.Popen[bytes]:
    """The command, started; what it prints goes to a file beside the output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with output.with_suffix(".txt").open("ab") as log:
        command = [*CLI, "zoo", str(folder / "zoo.json"), "-o", str(output), *map(str, flags)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def manifest(folder: Path, models: Sequence[object], **defaults: object) -> None:
    """`zoo.json` (JSON is YAML), with data by the name of the model."""
    document = {"defaults": {"data": "data/{stem}.npz", **defaults}, "models": list(models)}
    (folder / "zoo.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def rows(output: Path) -> list[Found]:
    """The lines of results.jsonl."""
    return [json.loads(line) for line in (output / "results.jsonl").read_text("utf-8").splitlines()]


def accept(folder: Path, seed: int, rounds: int) -> Found:
    """The whole zoo, once."""
    from zoo_models import sound, write, write_broken, write_large

    for name, proto in sound():
        write(proto, folder, name)
    write_broken(folder)
    write_large(folder)
    special = [
        {"input": "models/large.onnx", "config": {"calibrate_method": "MinMax"}},
        {"input": "models/hang.onnx", "timeout": 30},
        {"input": "models/gone.onnx", "data": "random"},
    ]
    manifest(folder, ["models/*.onnx", *special], timeout="10m")
    start = time.monotonic()
    code = zoo(folder, folder / "out", "--workers", 2).wait()
    found = rows(folder / "out")
    failed = {row["name"]: row for row in found if row["status"] != "good"}
    honest = all(row["stage"] == BAD.get(name) and row["reason"] and row["log"] for name, row in failed.items())
    good = len(found) - len(failed)
    return {
        "ok": len(found) == 30 and failed.keys() == BAD.keys() and honest and code == 1,
        "exit": code,
        "good": good,
        "failed": {name: f"{row['stage']}: {row['reason']}" for name, row in failed.items()},
        "seconds": round(time.monotonic() - start),
    }


def content(output: Path) -> str:
    """A hash of everything in the folder that is to be the same in every run."""
    from quark_onnx.zoo.store import MEASURED, RESULTS

    digest = hashlib.sha256()
    for file in sorted(path for path in output.rglob("*") if path.is_file() and path.name not in MEASURED):
        digest.update(file.relative_to(output).as_posix().encode())
        if file.name == RESULTS:
            lines = [{key: value for key, value in row.items() if key not in TIMES} for row in rows(output)]
            digest.update(json.dumps(lines).encode())
        else:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def alive(output: Path) -> list[int]:
    """Processes of models that are at work for this folder."""
    import psutil

    found = psutil.process_iter(["cmdline"])
    return [p.pid for p in found if any(str(output) in part for part in (p.info["cmdline"] or [])[3:4])]


def resume(folder: Path, seed: int, rounds: int) -> Found:
    """Kill and go on."""
    from zoo_models import sound, write, write_broken

    for name, proto in sound(7):
        write(proto, folder, name)
    write_broken(folder)
    (folder / "models" / "hang.onnx").unlink()
    manifest(folder, ["models/*.onnx", {"input": "models/gone.onnx", "data": "random"}])
    flags = ("--workers", 2, "--threads", 1, "--no-report")
    start = time.monotonic()
    zoo(folder, folder / "whole", *flags).wait()
    seconds = time.monotonic() - start
    expected, draw = content(folder / "whole"), random.Random(seed)
    same, left, kills = 0, 0, []
    for index in range(20):
        output, ended = folder / f"out{index}", False
        while not ended:
            runner, how = zoo(folder, output, *flags), signal.SIGINT if index % 4 == 3 else signal.SIGKILL
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(draw.uniform(0.3, seconds))
                assert runner.returncode == 1, f"it ended by itself: see {output}.txt"
                ended = True
                continue
            kills.append(len(list(output.glob("*/result.json"))))
            runner.send_signal(how)
            runner.wait()
            end = time.monotonic() + SOON
            while alive(output) and time.monotonic() < end:
                time.sleep(0.05)
            left += len(alive(output))
        same += content(output) == expected and not any((output / ".zoo").iterdir())
    return {"ok": same == 20 and not left, "same": same, "of": 20, "kills": kills, "processes_left": left}


def workers(folder: Path, seed: int, rounds: int) -> Found:
    """Throughput."""
    from zoo_models import cnn, transformer, write

    for index in range(4):
        write(cnn(48, 3, index), folder, f"cnn{index}", samples=512)
        write(transformer(96, 2, 32, index), folder, f"transformer{index}", samples=512)
    tuned = {"NumIterations": 300, "DataSize": 128, "OptimAlgorithm": "adaround"}
    manifest(folder, ["models/*.onnx"], preset="S8S8_AAWS_ADAROUND", options={"FastFinetune": tuned})
    ratios, each = [], []
    for index in range(rounds):
        times = []
        for count in (1, 2):
            start, output = time.monotonic(), folder / f"out{index}-{count}"
            assert zoo(folder, output, "--workers", count, "--threads", 1, "--no-report").wait() == 0
            times.append(time.monotonic() - start)
        each.append([round(row["seconds"], 1) for row in rows(folder / f"out{index}-1")])
        ratios.append(round(times[0] / times[1], 2))
    with scheduler() as address:
        code = zoo(folder, folder / "elsewhere", "--scheduler", address, "--threads", 1, "--no-report").wait()
    same = content(folder / "elsewhere") == content(folder / "out0-1") == content(folder / "out0-2")
    return {
        "ok": median(ratios) >= 1.6 and code == 0 and same,
        "ratios": ratios,
        "median": median(ratios),
        "seconds_of_a_model": each[0],
        "scheduler": {"exit": code, "same_content": same},
    }


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    """The address of a scheduler with one worker that takes two models at a time, each in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def started(*command: str) -> None:
            call = [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]]
            process = subprocess.Popen(call, env=environment, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        file = Path(folder) / "scheduler.json"
        started("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text("utf-8"))["address"]
        started("dask_worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--local-directory", folder)
        time.sleep(5)
        yield address
        stack.close()


class Memory:
    """The memory of this process by stage, looked at a hundred times a second."""

    def __init__(self) -> None:
        self.stage, self.peaks = "load", {"load": [0.0, 0.0]}
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Progress, as the quantizer tells it."""
        self.peaks.setdefault(stage, [0.0, 0.0])
        self.stage = stage

    def _watch(self) -> None:
        while True:
            peak = self.peaks[self.stage]
            peak[:] = (max(a, b) for a, b in zip(peak, (kernel("VmRSS"), kernel("RssAnon")), strict=True))
            time.sleep(0.01)


def kernel(name: str) -> int:
    """Bytes under a name in /proc/self/status."""
    text = Path("/proc/self/status").read_text("ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def inside(folder: Path) -> Found:
    """The large model in this process, which did nothing else before."""
    from dataclasses import replace

    from quark_onnx import Config, ModelQuantizer, get_default_config

    size = (folder / "models" / "large.weights").stat().st_size
    memory, config = Memory(), replace(get_default_config("S8S8_AAWS"), calibrate_method="MinMax")
    model, data = (folder / part / f"large.{end}" for part, end in (("models", "onnx"), ("data", "npz")))
    result = ModelQuantizer(Config(config), memory).quantize_model(model, folder / "int8.onnx", None, data)
    by_stage = {name: [round(value / size, 2) for value in peak] for name, peak in memory.peaks.items() if peak[0]}
    resident, other = kernel("VmHWM") / size, max(peak[1] for peak in memory.peaks.values()) / size
    return {
        "ok": resident <= 1.5,
        "bytes": size,
        "blocks_on_disk": (folder / "models" / "large.weights").stat().st_blocks * 512,
        "sqnr": result.report.sqnr,
        "resident": round(resident, 2),
        "no_file": round(other, 2),
        "by_stage": by_stage,
    }


def memory(folder: Path, seed: int, rounds: int) -> Found:
    """The large model, in a process that is small when it begins."""
    from zoo_models import write_large

    write_large(folder)
    return measured([sys.executable, Path(__file__).resolve(), "--inside", folder], ROOT)


def main() -> None:
    """Measure and print; or, as the process of the large model, that one alone."""
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(inside(Path(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="accept, resume, workers, memory (default: all)")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cases: dict[str, Callable[[Path, int, int], Found]] = {
        "accept": accept,
        "resume": resume,
        "workers": workers,
        "memory": memory,
    }
    if unknown := set(args.cases) - cases.keys():
        parser.error(f"unknown case {min(unknown)!r}; there are {', '.join(cases)}")
    sys.path.insert(0, str(ROOT))
    found: Found = {"machine": machine()}
    for name in args.cases or cases:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found[name] = cases[name](Path(folder), args.seed, args.rounds)
    print(json.dumps(found, indent=1))
    sys.exit(not all(case["ok"] for name, case in found.items() if name != "machine"))


if __name__ == "__main__":
    main()
