"""Our models and NNCF's in OpenVINO, one thread, beside its float ones: `python benchmarks/openvino.py [SUBJECT …]`.

    python -m venv V && V/bin/pip install nncf openvino onnx onnxruntime pillow scipy matplotlib     (no torch)
    python benchmarks/openvino.py mobilenet-imagenet nudenet --nncf V/bin/python --isa avx2 native

For each subject: presets for the target `openvino`, one scale per channel, and NNCF's file if an interpreter that has
it is given. `--isa` runs them in a process whose oneDNN is held to these instructions: `avx2` and `avx512` are
processors without VNNI, which add products of neighbouring weights in 16 bits; `native` is the machine as it is.

The metric is that of the task, of real models 1 is as float; dB against OpenVINO's float; latency, in CPU time, the
median ratio to it in the same turn, below 1 is faster; products of matrices on integers, of all. All models of a
subject take turns in one process. Tables go to stderr, one JSON document to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import in_openvino, machine, ours, peer

TASKS = ("mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb")
REAL = ("nudenet", "ocr_det", "ocr_rec", "ocr_cls", "basic_pitch", "magika")
TRANSFORMERS = ("minilm-stsb", "ocr_rec")
"""NNCF is told of these."""

PRESETS = ("S8S8_AAWS", "S8S8_AAWS_ADAROUND", "INT8_PROTECTED")
ISA = {"avx2": "AVX2", "avx512": "AVX512_CORE", "native": None}


def quantized(subject: str, args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Name → model."""
    models = {}
    for preset in args.preset:
        models[preset] = folder / f"{subject}-{preset}.onnx"
        how = {"preset": preset, "per_channel": True, "target": "openvino"}
        ours(subject, models[preset], how, args.samples, threads=1)
    if args.nncf:
        models["NNCF"] = folder / f"{subject}-nncf.onnx"
        scheme = "transformer" if subject in TRANSFORMERS else "default"
        peer("nncf", subject, models["NNCF"], scheme, args.samples, threads=1, python=args.nncf)
    return models


def measured(subject: str, models: dict[str, Path], rounds: int, isa: str) -> dict[str, Any]:
    """What OpenVINO makes of the models of a subject; a process that it ends is told of, and the others go on."""
    try:
        return in_openvino(subject, models, rounds, ISA[isa])
    except subprocess.CalledProcessError as error:
        return {"failed": f"the process ended with code {error.returncode}"}


def table(subject: str, isa: str, found: dict[str, Any]) -> str:
    """What was measured, in Markdown."""
    if "failed" in found:
        return f"{subject}, {isa}: {found['failed']}\n"
    head = f"{subject}, OpenVINO {found['openvino']}, {found['processor'].strip()}, {isa}"
    lines = [head, "", "| model | metric | dB | latency | integer products |", "|---|---|---|---|---|"]
    for name, row in found["models"].items():
        count = row["products"]
        figures = f"{row['metric']:.4f} | {row['sqnr_db']:.1f} | {row['latency']:.2f}"
        lines.append(f"| {name} | {figures} | {count['integer']} of {count['all']} |")
    return "\n".join((*lines, ""))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", nargs="*", metavar="SUBJECT", help=", ".join((*TASKS, *REAL)) + " (default: all)")
    parser.add_argument("--preset", nargs="+", default=PRESETS)
    parser.add_argument("--nncf", metavar="PYTHON", help="interpreter of a virtual environment that has nncf")
    parser.add_argument("--isa", nargs="+", choices=ISA, default=["native"])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the models there")
    args = parser.parse_args()
    if unknown := set(args.subject) - {*TASKS, *REAL}:
        parser.error(f"unknown subject {min(unknown)!r}; there are {', '.join((*TASKS, *REAL))}")
    if args.nncf:
        args.nncf = shutil.which(args.nncf) or parser.error(f"--nncf {args.nncf}: no such program")
        args.nncf = os.path.abspath(args.nncf)  # not resolved: a virtual environment is told by the link
    document: dict[str, Any] = {"machine": machine(), "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for subject in args.subject or (*TASKS, *REAL):
            models = quantized(subject, args, folder)
            document[subject] = {isa: measured(subject, models, args.rounds, isa) for isa in args.isa}
            for isa, found in document[subject].items():
                print(table(subject, isa, found), file=sys.stderr, flush=True)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
