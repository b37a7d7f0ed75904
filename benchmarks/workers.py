#!/usr/bin/env python3
"""Two workers against one: seconds of the stages that workers share, and whether the bytes are the same.

    python benchmarks/workers.py [--rounds 3] [--samples 512] [--steps 12]

A residual network of convolutions with random weights and samples is calibrated, tuned (AdaRound, layers apart) and
trained, by one worker and by two, of one thread each, that have started and imported all they need. Prints ratios of
seconds by stage, and their median. Exits with 1 if bytes differ, or a median is below 1.6: two cores have to be free.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measure import ROOT, machine
from zoo_models import PIXELS, cnn

STAGES = ("calibrate", "tune", "train")
TUNED = {"OptimAlgorithm": "adaround", "Parallel": True}


def quantized(model: Any, feeds: list[dict[str, Any]], steps: int, address: str) -> tuple[str, dict[str, float]]:
    """A hash of plan and model, and seconds by stage."""
    from quark_onnx import Config, ModelQuantizer, get_default_config

    config = get_default_config("S4S4_AAWS_QAT")
    options = {**config.extra_options, "FastFinetune": TUNED, "QAT": {"steps": steps, "check_every": steps}}
    config = replace(config, per_channel=True, extra_options=options)
    with tempfile.TemporaryDirectory() as folder:
        result = ModelQuantizer(Config(config), scheduler=address).quantize_model(model, f"{folder}/m.onnx", feeds)
        result.plan.save(f"{folder}/plan")
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    return digest, {name: result.report.seconds[name] for name in STAGES}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from quark_onnx.cluster.connections import own_processes

    rng = np.random.default_rng(0)
    model, shape = cnn(64, 4, 0), (1, 3, PIXELS, PIXELS)
    feeds = [{"x": rng.standard_normal(shape, np.float32)} for _ in range(args.samples)]
    found: dict[str, Any] = {"machine": machine(), **{name: [] for name in STAGES}}
    hashes = set()
    with contextlib.ExitStack() as stack:
        clusters = [stack.enter_context(own_processes(count)).scheduler.address for count in (1, 2)]
        for address in clusters:
            quantized(model, feeds[:32], 1, address)  # imports
        for _ in range(args.rounds):
            one, two = (quantized(model, feeds, args.steps, address) for address in clusters)
            hashes |= {one[0], two[0]}
            for name in STAGES:
                found[name].append([one[1][name], two[1][name]])
    ratios = {name: [round(one / two, 2) for one, two in found[name]] for name in STAGES}
    medians = {name: median(each) for name, each in ratios.items()}
    print(json.dumps({**found, "ratios": ratios, "medians": medians, "same_bytes": len(hashes) == 1}, indent=1))
    sys.exit(len(hashes) > 1 or min(medians.values()) < 1.6)


if __name__ == "__main__":
    main()
