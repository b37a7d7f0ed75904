"""Fine-tuning, ours and AMD Quark's own, in turn: `python benchmarks/finetune.py [--quark PYTHON]`.

    python -m venv V && V/bin/pip install torch==2.13.0 amd-quark onnxruntime==1.28.0 onnxruntime_extensions pillow
    python benchmarks/finetune.py --quark V/bin/python

The whole call with one preset on one task, each in a process of its own; Quark's in the interpreter that is given, ours
alone where none is. Both models are then scored by this interpreter. Seconds are those inside the quantizer, imports
excluded. Prints one JSON document: every round, and the ratios (ours to Quark's; below 1 is faster, or less memory).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measure import PEERS, machine, measured, ours, scores

Round = dict[str, Any]


def one_round(args: argparse.Namespace, folder: Path) -> dict[str, Round]:
    """One model of each tool, with its measurements and scores."""
    models = {name: folder / f"{name}.onnx" for name in (("ours", "quark") if args.quark else ("ours",))}
    found = {"ours": ours(args.task, models["ours"], {"preset": args.preset}, args.samples)}
    if args.quark:
        found["quark"] = measured([args.quark, PEERS, "quark", args.task, args.preset, models["quark"], args.samples])
    for name, model in models.items():
        found[name] |= {"bytes": model.stat().st_size, "scores": scores(args.task, model)}
    return found


def ratios(rounds: Sequence[dict[str, Round]], key: str) -> dict[str, float]:
    """Ours to Quark's, by round."""
    found = [one["ours"][key] / one["quark"][key] for one in rounds]
    return {"min": min(found), "median": median(found), "max": max(found)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quark", metavar="PYTHON", help="interpreter of a virtual environment that has amd-quark")
    parser.add_argument("--task", default="mobilenet-imagenet")
    parser.add_argument("--preset", default="S8S8_AAWS_ADAROUND", help="known to both (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if args.quark:
        args.quark = shutil.which(args.quark) or parser.error(f"--quark {args.quark}: no such program")
        args.quark = os.path.abspath(args.quark)  # not resolved: a virtual environment is told by the link
    document: dict[str, Any] = {"task": args.task, "preset": args.preset, "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        rounds = document["rounds"] = [one_round(args, Path(folder)) for _ in range(args.rounds)]
    if args.quark:
        document["ratio"] = {key: ratios(rounds, key) for key in ("seconds", "peak_gb")}
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
