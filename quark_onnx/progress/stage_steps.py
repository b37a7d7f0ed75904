"""What a run tells, in words: its stage, the layer at work, how far it is, and how long the rest will take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quark_onnx.core.visible_text import visible

STAGES = {
    "prepare": "preparing the float model",
    "read": "reading the data",
    "equalize": "equalizing channels",
    "verify": "checking that preparing changed nothing",
    "calibrate": "calibrating",
    "moments": "measuring what layers read",
    "ranges": "choosing ranges",
    "smooth": "smoothing activations",
    "protect": "looking for what 8 bits would ruin",
    "mix": "choosing types",
    "tune": "fine-tuning",
    "train": "training",
    "apply": "writing quantizers into the graph",
    "prove": "proving the result in onnxruntime",
    "write": "writing the model",
    "layers": "measuring every layer",
    "compare": "running both models",
    "evaluate": "evaluating",
    "judge": "judging",
    "latency": "measuring latency",
    "report": "measuring for the report",
}
"""Stages in words; one that is not listed is called by its name."""

TRIAL = "trial"
"""The stage of a search that begins a trial; its other stages follow."""

LEFT = re.compile(r"(.*), (about \d+ (?:s|min) left)", re.DOTALL)
"""What fine-tuning tells at the begin of a layer: its name, and how long all that is left will take."""

DONE = re.compile(r"(.*): (\S+ → \S+ dB) \(\w+\)", re.DOTALL)
"""What fine-tuning tells of a layer that is done: its name, and its SQNR before and after."""


@dataclass(frozen=True)
class Step:
    """Where a run is.

    stage  its name, a key of `STAGES`
    layer  at work
    note   what the last layer gained
    left   how long the rest of the stage will take, where the stage tells it
    ended  whether the layer is done
    trial  of a search, its number and what is special about it
    """

    stage: str = ""
    layer: str = ""
    note: str = ""
    left: str = ""
    done: int = 0
    total: int | None = None
    ended: bool = False
    trial: str = ""

    def after(self, told: str, done: int, total: int | None) -> Step:
        """The next one. `told` is the name of a stage, or `tune ` and what is told of a layer as it begins and ends, or
        `trial ` and what a search tries now.
        """
        stage, _, layer = visible(told).partition(" ")
        if stage == TRIAL:
            return Step(trial=layer)
        note, left = (self.note, self.left) if stage == self.stage else ("", "")
        if finished := DONE.fullmatch(layer):
            return Step(stage, finished[1], f"last {finished[2]}", left, done, total, True, self.trial)
        timed = LEFT.fullmatch(layer)
        layer, left = (timed[1], timed[2]) if timed else (layer, "")
        return Step(stage, layer, note, left, done, total, trial=self.trial)

    @property
    def title(self) -> str:
        """The trial, if there is one, and the stage in words."""
        parts = (f"{TRIAL} {self.trial}" if self.trial else "", STAGES.get(self.stage, self.stage))
        return ", ".join(part for part in parts if part)

    @property
    def count(self) -> str:
        """`3/10`, or `3` where it is not known of how many."""
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done or "")
