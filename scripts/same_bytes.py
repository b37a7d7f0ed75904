#!/usr/bin/env python3
"""Prove that a change of structure changes nothing: the same bytes of models, plans and encodings from two checkouts.

    python scripts/same_bytes.py BEFORE AFTER          # folders of two checkouts; needs ../shared beside this one

Each quantizes the three real models in a process of its own: the two nets of convolutions with every preset (of those
that fine-tune with few iterations, and one with AdaQuant), with all range methods, and as a simulation whose ranges are
learned; sentences with five presets. Prints a hash per result, and exits with 1 if one differs or there is none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

CONVS, SENTENCES = ("mobilenet-imagenet", "resnet20-cifar10"), "minilm-stsb"
METHODS = ("MinMax", "Entropy", "MinMSE", "Distribution", "LayerwisePercentile", "NonOverflow")
METHODS += ("tf", "tf_enhanced", "tf_percentile")
QUICK = {"FastFinetune": {"OptimAlgorithm": "adaround", "NumIterations": 60}}
SAMPLES = 64
SETTINGS = {"SAME_BYTES": "1", "QUARK_ONNX_THREADS": "1"}
"""Of both processes."""


def variants() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Task, preset, and what differs from it."""
    from quark_onnx import PRESETS

    for task in CONVS:
        for preset in PRESETS:
            quick = {"extra_options": QUICK} if preset.endswith("_ADAROUND") else {}
            if not preset.endswith(("_ADAQUANT", "_GPTQ")):
                yield task, preset, quick
        yield task, "S8S8_AAWS_ADAROUND", {"per_channel": True}
        yield task, "S8S8_AAWS_ADAQUANT", {}
        yield task, "S8S4_AAWS_GPTQ", {"per_channel": True}
        yield task, "S8S8_AAWS_ADAROUND", {"per_channel": True, "weight_type": "int4", "extra_options": QUICK}
        for key in ("BiasCorrection", "HighBiasAbsorption"):
            yield task, "S8S8_AAWS", {"extra_options": {key: True}}
        yield task, "S8S8_AAWS", {"per_channel": True, "extra_options": {"WeightCalibrateMethod": "SeqMSE"}}
    for method in METHODS:
        yield CONVS[1], "S8S8_AAWS", {"calibrate_method": method}
    for preset in ("S8S8_AAWS", "A16W8", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS", "FP16"):
        yield SENTENCES, preset, {"per_channel": preset == "S8S8_AAWS"}


def digest(*files: Path) -> str:
    """Of the contents of files."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def simulated(task: Any, feeds: list[Any], folder: Path) -> str:
    """A simulation whose ranges are learned, exported."""
    from quark_onnx.quantsim import QuantizationSimModel, QuantScheme, fine_tune

    scheme = QuantScheme.training_range_learning_with_tf_init
    sim = QuantizationSimModel(str(task.model), quant_scheme=scheme, default_param_bw=4)
    sim.compute_encodings(feeds)
    fine_tune(sim, feeds)
    sim.export(str(folder), "model")
    return digest(*sorted(path for path in folder.iterdir() if path.suffix in (".onnx", ".encodings")))


def made_here() -> None:
    """Print a line of JSON per result of the checkout that this process imports."""
    sys.path.insert(0, str(Path(__file__).parents[1].parent / "shared" / "bench"))
    import tasks

    import quark_onnx
    from quark_onnx import ModelQuantizer, get_default_config

    if not Path(quark_onnx.__file__).is_relative_to(os.environ["PYTHONPATH"]):
        sys.exit(f"{os.environ['PYTHONPATH']} is no checkout: {quark_onnx.__file__} was imported")
    logging.getLogger("quark_onnx").setLevel(logging.ERROR)
    calibration = {name: tasks.TASKS[name].calib(SAMPLES) for name in (*CONVS, SENTENCES)}
    for name, preset, changes in variants():
        config = get_default_config(preset)
        options = {**config.extra_options, **changes.get("extra_options", {})}
        config = replace(config, **{**changes, "extra_options": options})
        with tempfile.TemporaryDirectory() as folder:
            result = ModelQuantizer(config).quantize_model(
                str(tasks.TASKS[name].model), Path(folder) / "m.onnx", calibration[name] if config.needs_data else None
            )
            result.plan.save(Path(folder) / "plan")
            files = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".onnx", ".json"))
            with np.load(Path(folder) / "plan" / "arrays.npz") as stored:  # a zip file, which holds the time
                arrays = b"".join(stored[name].tobytes() for name in sorted(stored.files))
            found = f"{digest(*files)} {hashlib.sha256(arrays).hexdigest()[:8]}"
        print(json.dumps([f"{name} {preset} {json.dumps(changes) if changes else ''}".strip(), found]), flush=True)
    for name in CONVS:
        with tempfile.TemporaryDirectory() as folder:
            found = simulated(tasks.TASKS[name], calibration[name], Path(folder))
        print(json.dumps([f"{name} simulation, ranges learned", found]), flush=True)


def main() -> None:
    """Compare two checkouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs=2, type=Path, metavar="CHECKOUT")
    found = []
    workers = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": str(folder.resolve()), **SETTINGS},
            cwd=tempfile.gettempdir(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for folder in parser.parse_args().checkouts
    ]
    for worker in workers:
        lines, _ = worker.communicate()
        if worker.returncode:
            for other in workers:
                other.kill()
            sys.exit(f"a checkout failed with exit code {worker.returncode}")
        found.append(dict(json.loads(line) for line in lines.splitlines() if line.startswith("[")))
    before, after = found
    for name in {**before, **after}:
        same = before.get(name) == after.get(name)
        print(f"{'same' if same else 'DIFFERS':7} {before.get(name)}  {'' if same else after.get(name)}  {name}")
    different = sum(before.get(name) != after.get(name) for name in {**before, **after})
    print(f"{len(before)} results before, {len(after)} after, {different} different")
    sys.exit(different > 0 or not before)


if __name__ == "__main__":
    made_here() if "SAME_BYTES" in os.environ else main()
