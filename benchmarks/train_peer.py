"""The same steps in torch: `python benchmarks/train_peer.py torch FOLDER STEPS SHARD`, see `train_worker.py`.

`torch_float` trains the float model instead, without a quantizer.

The interpreter is one that has torch and onnx; it need not have what we need.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from measure import ROOT, leave_folder, step_costs

sys.path.append(str(ROOT / "tests" / "helpers"))
from torch_nets import torch_net

RATE = 1e-4


class LearnedStepSize(torch.autograd.Function):
    """Straight through in range, with the gradient of the scale; three quarters of what torch's own operator takes."""

    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any, zero: Any, low: int, high: int) -> Any:
        """(clamp(round(x / s) + z) − z)·s"""
        y = torch.round(x / scale).clamp_(low - zero, high - zero).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.ends = (low - zero) * scale, (high - zero) * scale
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        """dy in range; Σ dy·(y − x in range) / s"""
        x, y, scale = ctx.saved_tensors
        dx = dy * (x.clamp(*ctx.ends) == x)
        total = (dy * y).sum() - (dx * x).sum()
        return dx, (total / scale).reshape(scale.shape), None, None, None


class FakeQuantizers:
    """The quantizers of a plan, each group with a scale that is learned."""

    def __init__(self, folder: Path) -> None:
        arrays = np.load(folder / "scales.npz")
        self.sites = json.loads((folder / "sites.json").read_text())
        groups = {site["group"] for site in self.sites.values()}
        self.scales = {g: torch.from_numpy(arrays[f"{g}/scale"].reshape(-1)).requires_grad_() for g in groups}
        self.zeros = {g: torch.from_numpy(arrays[f"{g}/zero_point"].reshape(-1)).float() for g in groups}

    def __call__(self, name: str, value: Any) -> Any:
        """What a tensor is read as."""
        site = self.sites.get(name)
        if site is None:
            return value
        scale, zero = self.scales[site["group"]], self.zeros[site["group"]]
        low, high = site["low"], site["high"]
        if site["axis"] is None:
            return LearnedStepSize.apply(value, scale, zero, low, high)
        return torch._fake_quantize_learnable_per_channel_affine(value, scale, zero, site["axis"], low, high, 1.0)


def steps_of(way: str, folder: Path, steps: str, shard: str) -> dict[str, Any]:
    """CPU seconds of a step, peak memory, and the loss step by step."""
    torch.set_num_threads(1)
    proto, size = onnx.load(folder / "float.onnx"), int(shard)
    batch = {name: torch.from_numpy(rows) for name, rows in np.load(folder / "batch.npz").items()}
    count = len(next(iter(batch.values())))
    quantizers = FakeQuantizers(folder)
    teacher, _ = torch_net(proto, np.float32)
    student, tensors = torch_net(proto, np.float32, *[quantizers] * (way == "torch"))
    learned = [one.requires_grad_() for one in tensors.values() if one.dtype == torch.float32 and one.numel() > 1]
    adam = torch.optim.Adam([*learned, *quantizers.scales.values()], RATE, betas=(0.9, 0.99))

    def one() -> float:
        adam.zero_grad()
        total = 0.0
        for at in range(0, count, size):
            part = {name: rows[at : at + size] for name, rows in batch.items()}
            with torch.no_grad():
                wanted = torch.log_softmax(teacher(part), 1)
            mine = torch.log_softmax(student(part), 1)
            loss = (wanted.exp() * (wanted - mine)).sum() / count
            loss.backward()
            total += loss.item()
        adam.step()
        return total

    return step_costs(one, int(steps))


def main(way: str, folder: str, *rest: str) -> None:
    """Measure and print."""
    leave_folder()
    print(json.dumps(steps_of(way, Path(folder), *rest)))


if __name__ == "__main__":
    main(*sys.argv[1:])
