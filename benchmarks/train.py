"""A step of training against torch: `python benchmarks/train.py [NET …] --torch PYTHON`.

    demo, resnet20, mobilenet, minilm   quantized with `S8S8_AAWS`, and trained by KL from the float model's outputs

    python -m venv V && V/bin/pip install torch onnx numpy
    python benchmarks/train.py --torch V/bin/python

A step is one mini-batch: what the float model makes of it, the quantized model and the way back, shard by shard, then
Adam's move of weights, biases and scales of weights and activations. `torch` does the same with the same float model, a
quantizer with a learned scale (`torch.autograd.Function`) wherever the plan has one, and the same shards; `torch_float`
has no quantizers, so that it is what any training takes at least. All take one thread and a process of
their own, in turns; `cpu_seconds` are those of the fastest step, `peak_gb` the most memory of a process that has torch
or onnxruntime in it, `step_gb` what of it came with the steps, and `loss` that of the first: both begin at about the
same, where torch has float biases and rounds weights to the nearest. `ratio` is ours to each of torch's: below 1 is
faster, or less memory. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import machine, train_step

NETS = {"demo": "demo", "resnet20": "resnet20-cifar10", "mobilenet": "mobilenet-imagenet", "minilm": "minilm-stsb"}
COSTS = ("cpu_seconds", "peak_gb", "step_gb")


def measured_net(subject: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What both take, and the ratio."""
    train_step("write", folder, subject, args.batch)
    peers = ("torch", "torch_float") if args.torch else ()
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ("ours", *peers)}
    for _ in range(args.rounds):
        for way, many in runs.items():
            python = args.torch if way in peers else sys.executable
            many.append(train_step(way, folder, args.steps, args.shard, python=python))
    found: dict[str, Any] = {}
    for way, many in runs.items():
        found[way] = {**many[0], **{key: min(run[key] for run in many) for key in COSTS}}
    for peer in peers:
        found[peer]["ratio"] = {key: round(found["ours"][key] / found[peer][key], 2) for key in COSTS}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", nargs="*", help=", ".join(NETS) + " (default: all)")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has torch and onnx")
    parser.add_argument("--batch", type=int, default=32, help="samples of a step (default: %(default)s)")
    parser.add_argument("--shard", type=int, default=8, help="of them that run together (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="of each process (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each (default: %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.net) - NETS.keys():
        parser.error(f"unknown net {min(unknown)!r}; there are {', '.join(NETS)}")
    if args.torch:
        args.torch = shutil.which(args.torch) or parser.error(f"--torch {args.torch}: no such program")
        args.torch = os.path.abspath(args.torch)  # not resolved: a virtual environment is told by the link
    document: dict[str, Any] = {"batch": args.batch, "shard": args.shard, "machine": machine()}
    for net in args.net or NETS:
        with tempfile.TemporaryDirectory() as folder:
            document[net] = measured_net(NETS[net], args, Path(folder))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
