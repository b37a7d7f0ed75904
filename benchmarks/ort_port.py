"""onnxruntime.quantization and `quark_onnx.ort`, the same call: `python benchmarks/ort_port.py [--call …]`.

    python benchmarks/ort_port.py
    python benchmarks/ort_port.py --subject mobilenet-imagenet --call static dynamic --samples 200

A line of JSON for each subject, call and tool: the score of the task, dB and KL divergence as run; layers on integers,
of all; seconds of the whole call, on one thread. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from measure import machine, ported, scores

SUBJECTS = ("mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb")
REAL = ("nudenet", "ocr_det", "ocr_rec", "ocr_cls", "basic_pitch", "magika")
CALLS = ("static", "channel", "dynamic")
TOOLS = ("onnxruntime.quantization", "quark_onnx.ort")


def row(subject: str, call: str, tool: str, samples: int) -> dict[str, Any]:
    """One measured row."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        found = ported(tool, subject, model, call, samples)
        ort = scores(subject, model)["ort"] if "failed" not in found else {}
    return {"subject": subject, "call": call, "tool": tool, "samples": samples, **ort, **found}


def main() -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", nargs="+", choices=(*SUBJECTS, *REAL), default=(*SUBJECTS, *REAL))
    parser.add_argument("--call", nargs="+", choices=CALLS, default=CALLS)
    parser.add_argument("--samples", type=int, default=64)
    args = parser.parse_args()
    print(json.dumps({"machine": machine()}), flush=True)
    for call, subject, tool in product(args.call, args.subject, TOOLS):
        print(json.dumps(row(subject, call, tool, args.samples)), flush=True)


if __name__ == "__main__":
    main()
