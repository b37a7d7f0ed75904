"""Steps of our training, measured: `python benchmarks/train_worker.py ours FOLDER STEPS SHARD`.

`… write FOLDER SUBJECT BATCH` puts into the folder what both this and `train_peer.py` read: the prepared float model,
the plan, the samples of a batch, and where quantizers stand.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from measure import leave_folder, step_costs
from subjects import material

from quark_onnx import get_default_config
from quark_onnx.clock import Clock, unseen
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.demo.handwritten_digits import MODEL, digits
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.graph import io
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import decide
from quark_onnx.stages.train.optimizers import Momenta, Optimizer
from quark_onnx.stages.train.plan_parameters import parameters
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph

RATE = 1e-4


def write(folder: Path, subject: str, batch: str) -> None:
    """The model, its plan, and samples."""
    source, feeds = _material(subject, int(batch))
    job = open_job(source, get_default_config("S8S8_AAWS"))
    decided = decide(job, job.data(feeds, None), Clock(unseen))
    (folder / "float.onnx").write_bytes(io.to_proto(decided.job.prepared).SerializeToString())
    decided.plan.save(folder / "plan")
    names = feeds[0].keys()
    np.savez(folder / "batch.npz", **{name: np.concatenate([feed[name] for feed in feeds]) for name in names})
    sites, arrays = {}, {}
    for tensor, site in decided.plan.sites.items():
        if has_scale(site):
            q = decided.plan.qparams_of(tensor)
            low, high, axis = site.format.lo, site.format.hi, site.format.axis
            sites[tensor] = {**asdict(site), "low": low, "high": high, "axis": axis}
            arrays |= {f"{site.group}/scale": q.scale, f"{site.group}/zero_point": q.zero_point}
    (folder / "sites.json").write_text(json.dumps(sites))
    np.savez(folder / "scales.npz", **arrays)


def _material(subject: str, count: int) -> tuple[Path, list[dict[str, Any]]]:
    if subject == "demo":
        return MODEL, [{"input": image[None]} for image in digits()[0][:count]]
    return material(subject, count)


def ours(folder: Path, steps: str, shard: str) -> dict[str, Any]:
    """CPU seconds of a step, peak memory, and the loss step by step."""
    model, plan, size = io.load(folder / "float.onnx"), Plan.load(folder / "plan"), int(shard)
    batch = dict(np.load(folder / "batch.npz"))
    count = len(next(iter(batch.values())))
    shards = [{name: rows[at : at + size] for name, rows in batch.items()} for at in range(0, count, size)]
    graph = training_graph(model, plan, Losses())
    known, step, optimizer = parameters(model, plan, graph, QAT()), Step(graph, model), Optimizer("adam", 0.9)
    state, past = known.start(), Momenta()

    def one() -> float:
        nonlocal state, past
        values, sums, loss = known.values(state, final=False), {}, 0.0
        for part in shards:
            found = step.gradients(values, part)
            loss += found.terms["kl"] / count
            sums = {name: slope + sums.get(name, 0) for name, slope in found.of.items()}
        slopes = known.slopes(state, {name: np.asarray(total / np.float32(count)) for name, total in sums.items()})
        units = known.units()
        rates = {key: RATE * units.get(key, 1) for key in slopes}
        state, past = optimizer.step(state, slopes, rates, {}, past)
        return loss

    return step_costs(one, int(steps))


def main(way: str, folder: str, *rest: str) -> None:
    """Write, or measure and print."""
    leave_folder()
    if way == "write":
        write(Path(folder), *rest)
        print("{}")
    else:
        print(json.dumps(ours(Path(folder), *rest)))


if __name__ == "__main__":
    main(*sys.argv[1:])
