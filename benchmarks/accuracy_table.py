"""Accuracy by preset, variant and seed: `python benchmarks/accuracy_table.py [--task …] [--preset …] [--variant …]`.

    python benchmarks/accuracy_table.py --task mobilenet-imagenet --preset S8S8_AAWS_ADAROUND --variant channel int4
    python benchmarks/accuracy_table.py --preset S8S8_AAWS_ADAROUND S8S8_AAWS_ADAQUANT --seed 1 2 3
    python benchmarks/accuracy_table.py --preset S8S8_AAWS --variant channel --method MinMSE Entropy --weights SeqMSE

A row for every combination of what is chosen, printed as a line of JSON as soon as it is measured. `score` is top-1, or
Spearman's correlation; `ort` as onnxruntime runs the model, `raw` as it is written; `agree` is the part of the answers
that are those of the float model, `kl` the divergence from it in nats; `fused` counts layers on integer kernels, of all
that the target can fuse. Presets without fine-tuning have no seed: they are measured once. Each row is a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from measure import ours, scores

TASKS = ("mobilenet-imagenet", "resnet20-cifar10", "minilm-stsb")
PRESETS = ("S8S8_AAWS", "S8S8_AAWS_ADAROUND", "S8S8_AAWS_ADAQUANT")
VARIANTS: dict[str, dict[str, Any]] = {
    "tensor": {},
    "channel": {"per_channel": True},
    "int4": {"per_channel": True, "weight_type": "int4"},
    "no-cle": {"include_cle": False},
    "bias": {"options": {"BiasCorrection": True}},
    "bias-channel": {"per_channel": True, "options": {"BiasCorrection": True}},
    "no-bias": {"finetune": {"UpdateBias": False}},
    "quark": {"finetune": {"ScaleSearch": False, "Polish": 0, "Objective": "sampled"}},
    "parallel": {"finetune": {"Parallel": True}},
}
"""What a row changes in its preset. `quark`: the algorithm as Quark has it, without our search and polish."""


Chosen = tuple[str, str, str, int | None, str | None, str | None]


def rows(args: argparse.Namespace) -> Iterator[Chosen]:
    """Task, preset, variant, seed, range method of activations and of weights, for every row that makes sense."""
    ranged = list(product(args.method, args.weights))
    for task in args.task:
        for preset in args.preset:
            tunes = preset.endswith(("_ADAROUND", "_ADAQUANT"))
            for variant in args.variant:
                if tunes or "finetune" not in VARIANTS[variant]:
                    seeds: list[int | None] = args.seed if tunes and args.seed else [None]
                    yield from ((task, preset, variant, seed, *how) for seed in seeds for how in ranged)


def row(
    task: str, preset: str, variant: str, seed: int | None, method: str | None, weights: str | None, samples: int
) -> dict[str, Any]:
    """One measured row."""
    how = {"preset": preset, **VARIANTS[variant]}
    if method is not None:
        how["calibrate_method"] = method
    if weights is not None:
        how["options"] = {**how.get("options", {}), "WeightCalibrateMethod": weights}
    if seed is not None:
        how["finetune"] = {**how.get("finetune", {}), "FixedSeed": seed}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        found = ours(task, model, how, samples)
        ort, raw = scores(task, model).values()
    fused = {kind: f"{done}/{count}" for kind, (done, count) in found["fused"].items()}
    return {
        "task": task,
        "preset": preset,
        "variant": variant,
        "seed": seed,
        "method": method,
        "weights": weights,
        "samples": found["samples"],
        "float": ort["float"],
        "ort": ort["score"],
        "raw": raw["score"],
        "agree": ort.get("agree"),
        "kl": ort.get("kl"),
        "sqnr_db": round(ort["sqnr_db"], 2),
        "raw_sqnr_db": round(raw["sqnr_db"], 2),
        "layers": found["layers"],
        "fused": fused,
        "seconds": found["seconds"],
        "cpu_seconds": found["cpu_seconds"],
        "peak_gb": found["peak_gb"],
    }


def main() -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--preset", nargs="+", default=PRESETS)
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=("tensor", "channel", "int4"))
    parser.add_argument("--seed", nargs="+", type=int, help="of fine-tuning (default: the preset's)")
    parser.add_argument(
        "--method", nargs="+", default=[None], help="of activation ranges, or all (default: the preset's)"
    )
    parser.add_argument("--weights", nargs="+", default=[None], help="of weight ranges (default: the preset's)")
    parser.add_argument("--samples", type=int, default=200)
    args = parser.parse_args()
    for chosen in rows(args):
        print(json.dumps(row(*chosen, args.samples)), flush=True)


if __name__ == "__main__":
    main()
