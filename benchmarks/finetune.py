"""Fine-tuning by AdaRound, and against AMD Quark's own: `python benchmarks/finetune.py [CASE …] [--quark PYTHON]`.

    mobilenet, resnet20                 `S8S8_AAWS_ADAROUND`, int8 per tensor, 200 samples
    mobilenet-int4, resnet20-int4       the same with int4 per channel
    nudenet                             a YOLOv8n of a package, int8 per channel, 64 samples, one seed

    python -m venv V && V/bin/pip install torch==2.13.0 amd-quark onnxruntime==1.28.0 onnxruntime_extensions pillow
    python benchmarks/finetune.py mobilenet --quark V/bin/python

Every case is tuned on one thread with each seed, where CPU seconds mean most, and once, `whole`, with the first seed on
as many threads as the machine has, or `--threads`; `same_bytes` says whether both files are one. With an interpreter
that has Quark, its whole call follows at once, on as many, wherever the preset says all: `ratio` is ours to Quark's,
below 1 is faster, or less memory. On a busy machine torch's threads wait for each other for many minutes: take one.
All models are scored by this interpreter, as run (`ort`) and as written (`raw`): `score` is top-1, `agree` the part of
the answers that are the float model's, `kl` the divergence from it in nats; a real model has the names of `real.py`.
Each call is a process of its own; seconds are those inside the quantizer, imports excluded.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from measure import machine, ours, peer, scores

Row = dict[str, Any]
INT4 = {"per_channel": True, "weight_type": "int4"}
COSTS = ("seconds", "cpu_seconds", "peak_gb")


@dataclass(frozen=True)
class Case:
    """What is tuned, what differs from the preset, and how many seeds, of those asked for, it is worth."""

    subject: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 200
    seeds: int | None = None


CASES = {
    "mobilenet": Case("mobilenet-imagenet"),
    "resnet20": Case("resnet20-cifar10"),
    "resnet20-int4": Case("resnet20-cifar10", INT4),
    "mobilenet-int4": Case("mobilenet-imagenet", INT4),
    "nudenet": Case("nudenet", {"per_channel": True}, samples=64, seeds=1),
}


def measured_case(case: Case, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every row of a case, and what they come to."""
    seeds = args.seed[: case.seeds]
    how = {"preset": args.preset, **case.changes}
    rows = [_row(case, how, seed, 1, folder / f"{seed}.onnx") for seed in seeds]
    whole = _row(case, how, seeds[0], args.threads, folder / "whole.onnx")
    same = (folder / f"{seeds[0]}.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()
    found = {"one_thread": rows, "mean": _mean(rows), "whole": whole, "same_bytes": same}
    if args.quark and not case.changes:
        model = folder / "quark.onnx"
        quark = peer("quark", case.subject, model, args.preset, case.samples, args.threads, args.quark)
        found["quark"] = {**quark, "bytes": model.stat().st_size, "scores": scores(case.subject, model)}
        found["ratio"] = {key: whole[key] / quark[key] for key in COSTS}
    return found


def _row(case: Case, how: Mapping[str, Any], seed: int, threads: int | None, model: Path) -> Row:
    found = ours(case.subject, model, {**how, "finetune": {"FixedSeed": seed}}, case.samples, threads)
    return {"seed": seed, **found, "bytes": model.stat().st_size, "scores": scores(case.subject, model)}


def _mean(rows: Sequence[Row]) -> Row:
    """Over the seeds: costs, and what is said of the models."""
    kinds = rows[0]["scores"]
    return {key: mean(row[key] for row in rows) for key in COSTS} | {
        kind: {key: mean(row["scores"][kind][key] for row in rows) for key in names} for kind, names in kinds.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=", ".join(CASES) + " (default: all)")
    parser.add_argument("--quark", metavar="PYTHON", help="interpreter of a virtual environment that has amd-quark")
    parser.add_argument("--threads", type=int, help="of the whole call, ours and Quark's (default: the machine's)")
    parser.add_argument("--preset", default="S8S8_AAWS_ADAROUND", help="(default: %(default)s)")
    parser.add_argument("--seed", nargs="+", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    if unknown := set(args.case) - CASES.keys():
        parser.error(f"unknown case {min(unknown)!r}; there are {', '.join(CASES)}")
    if args.quark:
        args.quark = shutil.which(args.quark) or parser.error(f"--quark {args.quark}: no such program")
        args.quark = os.path.abspath(args.quark)  # not resolved: a virtual environment is told by the link
    document: dict[str, Any] = {"preset": args.preset, "machine": machine()}
    for name in args.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            document[name] = measured_case(CASES[name], args, Path(folder))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
