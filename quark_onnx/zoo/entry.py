"""One model of a zoo: everything its process needs to know, as plain values that travel between machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.optimize.records import Objective

RANDOM = "random"
"""Data that are none: random numbers."""


@dataclass(frozen=True)
class Try:
    """A configuration to try. `config` is JSON, see `QuantizationConfig.from_json`."""

    preset: str
    config: str

    @property
    def configuration(self) -> QuantizationConfig:
        """The configuration itself."""
        return QuantizationConfig.from_json(self.config)


@dataclass(frozen=True)
class Goal:
    """A search in place of configurations to try.

    objective  what is made small, see `optimize`
    options    extra options of every configuration
    time       seconds after which no trial begins; None: any
    trials     folder of what was measured, to go on from; empty: nothing is kept
    """

    objective: Objective
    target: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    time: float | None = None
    trials: str = ""


@dataclass(frozen=True)
class Entry:
    """One model.

    name       folder of its outputs
    input      absolute path of the float model, which may be missing
    place      where the manifest speaks of it, for messages
    home       folder that relative paths and the evaluator's modules start from
    tries      configurations, in this order; the first within the budget counts; empty where there is a goal
    data       calibration data, an absolute path; None: random, or none needed
    evaluator  `module:function` or a command with {model}; empty: none
    timeout    seconds; None: those of the run
    goal       what to search for; None: nothing, the configurations are given
    """

    name: str
    input: str
    place: str
    home: str
    tries: tuple[Try, ...]
    data: str | None = None
    evaluator: str = ""
    budget: Budget = field(default_factory=Budget)
    timeout: float | None = None
    goal: Goal | None = None

    @property
    def shown_input(self) -> str:
        """The input as a person would write it in the manifest: relative to it, if it lies below."""
        path, home = Path(self.input), Path(self.home)
        return path.relative_to(home).as_posix() if path.is_relative_to(home) else self.input

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal entry."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """The entry that `to_json` wrote."""
        values: Mapping[str, Any] = json.loads(text)
        tries = tuple(Try(**one) for one in values["tries"])
        goal = None if values["goal"] is None else Goal(**values["goal"])
        return cls(**{**values, "tries": tries, "budget": Budget(**values["budget"]), "goal": goal})
