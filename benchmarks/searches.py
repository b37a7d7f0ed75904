"""One search for the smallest model within a budget, measured: `python benchmarks/searches.py SUBJECT WAY`.

    optimize  ours: the ladder, the table of layers, and the path of mixtures that it gives
    grid      a list of presets, as a zoo tries them: weights of 4, then of 8 bits; per tensor, per channel; plain, with
              BiasCorrection, with AdaRound. The first that meets the budget is the smallest of them
    revert    all weights of 4 bits; what each layer gains when it alone has 8; then layer after layer goes to 8, the
              most gain for a byte first, until the budget is met, as in NNCF's accuracy control
    lower     all weights of 8 bits; what each layer loses when it alone has 4; then layer after layer goes to 4, the
              least loss for a byte first, until the budget is broken, as in AIMET's mixed precision

The JSON holds evaluations (a model quantized and judged), seconds, and the smallest model within the budget: bytes,
also as a part of the float one's, what was lost where it is judged, of what may be lost, and figures of images that
judged nothing. `smaller` tells at which evaluation there was a smaller one within the budget, and its bytes.
MobileNet may lose KL .10, on 40 of its 200 samples; ResNet-20 .3 % of its accuracy, on 2,000 test images.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tasks
from measure import metered
from subjects import divergence, material

from quark_onnx import Config, ModelQuantizer, QuantizationConfig, get_default_config
from quark_onnx.optimize import Budget, optimize

Array = np.ndarray[Any, Any]
Feeds = list[dict[str, Array]]

SAMPLES, FIRST, APART = 200, 2, 5
"""Samples, and those of them that judge, as `optimize` has it: one of five."""


@dataclass(frozen=True)
class Subject:
    """What is made small.

    feeds    all samples; `taught`: those that judge nothing
    lost     of a model's path: what it has lost where it is judged
    allowed  of it
    unseen   of a model's path: figures of images that judged nothing
    """

    model: Path
    feeds: Feeds
    budget: Budget
    lost: Callable[[Path], float]
    allowed: float
    unseen: Callable[[Path], dict[str, float]]
    evaluate: Callable[[str], Array] | None = None

    @property
    def taught(self) -> Feeds:
        """Samples that teach; those that judge do not, where no evaluator does."""
        return self.feeds if self.evaluate else [f for i, f in enumerate(self.feeds) if i % APART != FIRST]


def mobilenet() -> Subject:
    """KL on every fifth sample; top-1, agreement and KL on the 800 images of the task."""
    model, feeds = material("mobilenet-imagenet", SAMPLES)
    judges = feeds[FIRST::APART]
    labels = np.flatnonzero(np.arange(1000) % 5)
    images = [{"input": tasks.imagenet(part)} for part in np.array_split(labels, 16)]
    expected, known = tasks._run(model, True, judges), tasks._run(model, True, images)
    return Subject(
        model,
        feeds,
        Budget(max_kl=0.1),
        lambda path: divergence(expected, tasks._run(path, True, judges)),
        0.1,
        lambda path: _classes(known, tasks._run(path, True, images), labels),
    )


def resnet() -> Subject:
    """Accuracy on the first 2,000 test images; the same figures on the other 2,000."""
    model, feeds = material("resnet20-cifar10", SAMPLES)
    data = np.load(tasks.ASSETS / "cifar10.npz")
    images, labels = tasks._cifar(data["test"]), data["label"]
    halves = [[{"input": part} for part in np.array_split(half, 4)] for half in (images[:2000], images[2000:4000])]
    known = tasks._run(model, True, halves[1])

    def right(path: str | Path) -> Array:
        return np.asarray(tasks._run(path, True, halves[0]).argmax(1) == labels[:2000])

    top = right(model).mean()
    return Subject(
        model,
        feeds,
        Budget(max_drop="0.3%"),
        lambda path: float(top - right(path).mean()),
        float(top) * 0.003,
        lambda path: _classes(known, tasks._run(path, True, halves[1]), labels[2000:4000]),
        right,
    )


def _classes(known: Array, logits: Array, labels: Array) -> dict[str, float]:
    found = {"top1": (logits.argmax(1) == labels).mean(), "agree": (logits.argmax(1) == known.argmax(1)).mean()}
    return {name: round(float(value), 4) for name, value in {**found, "kl": divergence(known, logits)}.items()}


SUBJECTS = {"mobilenet-imagenet": mobilenet, "resnet20-cifar10": resnet}


@dataclass
class Found:
    """Counts evaluations, and keeps the smallest model within the budget in a file; `smaller`: (evaluation, bytes)."""

    subject: Subject
    output: Path
    evaluations: int = 0
    smaller: list[tuple[int, int]] = field(default_factory=list)

    def tried(self, config: QuantizationConfig) -> float:
        """One evaluation: what the model of a configuration has lost."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            ModelQuantizer(Config(config)).quantize_model(self.subject.model, path, self.subject.taught)
            lost = self.subject.lost(path)
            if self.counted(path.stat().st_size, lost <= self.subject.allowed):
                shutil.copy(path, self.output)
        return lost

    def counted(self, size: int, within: bool) -> bool:
        """One evaluation more; whether it is the smallest model within the budget."""
        self.evaluations += 1
        if not within or (self.smaller and size >= self.smaller[-1][1]):
            return False
        self.smaller.append((self.evaluations, size))
        return True


def ours(found: Found) -> None:
    """One call."""
    subject = found.subject
    done = optimize(subject.model, subject.feeds, subject.budget, output=found.output, evaluate=subject.evaluate)
    for point in done.points:
        found.counted(point.size, point.good)


def grid(found: Found) -> None:
    """The first of the list that is within the budget."""
    next(config for config in presets() if found.tried(config) <= found.subject.allowed)


def presets() -> Iterator[QuantizationConfig]:
    """The grid, smallest files first."""
    finer: list[tuple[str, dict[str, Any]]] = [("", {}), ("", {"BiasCorrection": True}), ("_ADAROUND", {})]
    for bits, channels, (suffix, options) in product(("int4", "int8"), (False, True), finer):
        config = get_default_config(f"S8S8_AAWS{suffix}")
        options = {**config.extra_options, **options}
        yield replace(config, weight_type=bits, per_channel=channels, extra_options=options)


def layer_by_layer(found: Found, first: str, then: str) -> None:
    """Weights go from one type to the other until the budget is met, or no longer is."""
    start = get_default_config("S8S8_AAWS")
    plain = {**start.extra_options, "BiasCorrection": True, "Protect": False}

    def with_changed(layers: list[str]) -> QuantizationConfig:
        changed = {"LayerTypes": {name: {"weight_type": then} for name in layers}} if layers else {}
        return replace(start, weight_type=first, per_channel=True, extra_options={**plain, **changed})

    begun = found.tried(with_changed([]))
    met = begun <= found.subject.allowed
    if met and first == "int4":
        return  # nothing is smaller
    sizes = weights_of(found.subject.model)
    alone = {name: (found.tried(with_changed([name])) - begun) / size for name, size in sizes.items()}
    order = sorted(alone, key=lambda name: alone[name])
    for count in range(1, len(order) + 1):
        if (found.tried(with_changed(order[:count])) <= found.subject.allowed) != met:
            break


def weights_of(path: Path) -> dict[str, int]:
    """Layer → elements of its weight."""
    graph = onnx.load(path).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return {node.name: sizes[node.input[1]] for node in layers if node.input[1] in sizes}


WAYS: dict[str, Callable[[Found], None]] = {
    "optimize": ours,
    "grid": grid,
    "revert": partial(layer_by_layer, first="int4", then="int8"),
    "lower": partial(layer_by_layer, first="int8", then="int4"),
}


def main(name: str, way: str) -> None:
    """Search and print the measurements."""
    subject = SUBJECTS[name]()
    with tempfile.TemporaryDirectory() as folder:
        found = Found(subject, Path(folder) / "model.onnx")
        with metered() as cost:
            WAYS[way](found)
        size, lost = found.output.stat().st_size, subject.lost(found.output)
        told = {"subject": name, "way": way, "evaluations": found.evaluations, **cost, "bytes": size}
        told |= {"of_float": round(size / subject.model.stat().st_size, 3), "smaller": found.smaller}
        told |= {"lost": round(lost, 4), "allowed": round(subject.allowed, 4), "unseen": subject.unseen(found.output)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
