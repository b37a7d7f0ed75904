"""A training that was interrupted goes on from a file, to the same bytes as one that was not.

The file (.npz) holds the state, what the optimizer remembers, the best state, the curve, and a digest of all that the
training was made of: whoever changes any of that does not go on, but is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError, reading
from quark_onnx.core.records import TrainedPoint
from quark_onnx.stages.train.optimizers import Momenta

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Reached:
    """Where a training is.

    state, past   the parameters, and what the optimizer remembers
    best, best_at the state that the held-out samples like most, and its point
    curve         all points
    losses        (sum, samples) of the mini-batches since the last point
    """

    state: Arrays
    past: Momenta
    best: Arrays
    best_at: TrainedPoint
    curve: tuple[TrainedPoint, ...]
    losses: tuple[float, int] = (0.0, 0)

    @property
    def step(self) -> int:
        """Steps that were made."""
        return self.past.steps


@dataclass(frozen=True)
class Checkpoint:
    """file: None: nothing is kept; of: digest of what is trained."""

    file: Path | None
    of: str = field(default="")

    def keep(self, reached: Reached) -> None:
        """Write it, whole or not at all.

        Raises:
            ConfigError, ResourceError: the file cannot be written.
        """
        if self.file is None:
            return
        parts = {
            "state": reached.state,
            "best": reached.best,
            "first": reached.past.first,
            "second": reached.past.second,
        }
        arrays: dict[str, Any] = {f"{part}:{key}": a for part, held in parts.items() for key, a in held.items()}
        told = {
            "of": self.of,
            "steps": reached.step,
            "best_at": asdict(reached.best_at),
            "curve": [asdict(point) for point in reached.curve],
            "losses": reached.losses,
        }
        with new_file(self.file) as temporary, temporary.open("wb") as file:
            np.savez(file, told=np.array(json.dumps(told)), **arrays)

    def reached(self) -> Reached | None:
        """Where an earlier run was; None: there was none.

        Raises:
            ConfigError: the file is of another training, or none at all.
        """
        if self.file is None or not self.file.exists():
            return None
        way_out = "remove it, or name another file in QAT checkpoint"
        with reading(f"the checkpoint {self.file}", ConfigError, way_out, "is none that quark_onnx wrote"):
            with np.load(self.file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            told = json.loads(arrays.pop("told").item())
            parts: dict[str, dict[str, Array]] = {part: {} for part in ("state", "best", "first", "second")}
            for name, array in arrays.items():
                part, _, key = name.partition(":")
                parts[part][key] = array
            points = [TrainedPoint(**point) for point in (*told["curve"], told["best_at"])]
            past = Momenta(told["steps"], parts["first"], parts["second"])
            losses = (float(told["losses"][0]), int(told["losses"][1]))
            found = Reached(parts["state"], past, parts["best"], points[-1], tuple(points[:-1]), losses)
        if told["of"] != self.of:
            raise ConfigError(
                f"the checkpoint {self.file} is of another training: model, data, labels or settings differ; {way_out}"
            )
        return found


def digest(settings: Mapping[str, Any], model: str, samples: str, start: Arrays) -> str:
    """Of all that a training is made of. samples: their digest, with labels; start: the state it begins with."""
    found = hashlib.sha256(json.dumps([settings, model, samples], sort_keys=True, default=str).encode())
    for key, array in start.items():
        found.update(key.encode() + str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
