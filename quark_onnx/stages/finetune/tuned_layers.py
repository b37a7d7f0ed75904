"""The layers of a run of fine-tuning, and what is asked of each: its number, its importance, who shares its weight."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.layers import Unit
from quark_onnx.graph import Model, Node

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class TunedLayers:
    """Layers with weights, by name.

    model    the float model
    numbers  of the layers, for their random choices
    gains    how much the network cares for each channel of a tensor
    rows     learns blocks of rows of large weights; None: threads here do
    """

    model: Model
    units: Mapping[str, Unit]
    numbers: Mapping[str, int]
    options: FastFinetune
    gains: Mapping[str, Array]
    rows: Executor | None = None

    def of(self, node: Node) -> tuple[Unit, int]:
        """The layer that a node is, and its number."""
        return self.units[node.name or ""], self.numbers[node.name or ""]

    def gain(self, unit: Unit, shape: tuple[int, ...]) -> Array | None:
        """(G, R) how much the network cares for each row of a weight (G, R, K); None: the same for all."""
        found = self.gains.get(unit.node.outputs[0].name or "")
        return None if found is None or found.size != shape[0] * shape[1] else found.reshape(shape[:2])

    def sharing(self) -> dict[str, list[str]]:
        """By layer the others that read its weight."""
        uses: dict[str, list[str]] = {}
        for name, unit in self.units.items():
            uses.setdefault(unit.weight, []).append(name)
        return {name: [other for other in names if other != name] for names in uses.values() for name in names}
