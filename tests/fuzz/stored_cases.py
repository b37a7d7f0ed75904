"""A case in a folder: `model.onnx`, `samples.npz`, and `case.json` with its settings and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from checks import Finding
from model_builder import Arrays
from random_models import Case
from random_settings import Settings


def store(folder: Path, case: Case, settings: Settings, found: Finding) -> None:
    """Write it. Samples are named by the place of their input: names of inputs are none for files."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model, folder / "model.onnx")
    names = [value.name for value in case.model.graph.input]
    arrays = {
        f"{use}_{sample}_{names.index(name)}": array
        for use, feeds in (("calibration", case.feeds), ("judging", case.judging))
        for sample, feed in enumerate(feeds)
        for name, array in feed.items()
    }
    np.savez(folder / "samples.npz", **arrays)  # type: ignore[arg-type]
    told = {"seed": case.seed, "kind": found.kind, "signature": found.signature, "settings": settings.plain}
    (folder / "case.json").write_text(json.dumps({**told, "text": found.text}, indent=1), "utf-8")


def stored(folder: Path) -> tuple[Case, Settings]:
    """Read it."""
    told = json.loads((folder / "case.json").read_text("utf-8"))
    model = onnx.load(folder / "model.onnx")
    with np.load(folder / "samples.npz") as arrays:
        names = [value.name for value in model.graph.input]
        feeds, judging = (_samples(dict(arrays), use, names) for use in ("calibration", "judging"))
    return Case(told["seed"], model, feeds, judging), Settings(**told["settings"])


def _samples(arrays: Arrays, use: str, names: Sequence[str]) -> list[Arrays]:
    found: dict[int, Arrays] = {}
    for key, array in arrays.items():
        kind, sample, place = key.split("_")
        if kind == use:
            found.setdefault(int(sample), {})[names[int(place)]] = array
    return [found[sample] for sample in sorted(found)]
