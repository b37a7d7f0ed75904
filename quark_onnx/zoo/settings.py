"""From what a manifest says of a model to its configurations, data, evaluator and budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.budget import Budget
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options_check import checked_options
from quark_onnx.core.settings.presets import beginning
from quark_onnx.engine.calibration_data import ImageOptions
from quark_onnx.evaluators import refusal
from quark_onnx.zoo.entry import RANDOM, Try
from quark_onnx.zoo.located_values import Marked
from quark_onnx.zoo.manifest_keys import BUDGET, Spec, checked, limit
from quark_onnx.zoo.problems import Problems

_OWN = {"target": "target", "extra_options": "options"}
_FIELDS = [field.name for field in fields(QuantizationConfig)]


def tries_of(spec: Spec, place: str, problems: Problems) -> tuple[Try, ...]:
    """The configurations to try; fewer than asked for where there are problems."""
    named = spec.get("preset", Marked(None, place))
    presets = named.value if isinstance(named.value, list) else [named]
    options, changes = options_of(spec, problems), _changes(spec, problems)
    found = []
    for preset in presets:
        try:
            name, start = beginning(preset.value, changes)
        except ConfigError as error:
            problems.add(preset.place, str(error))
            continue
        try:
            config = replace(start, **changes, extra_options={**start.extra_options, **options})
        except (ConfigError, TypeError) as error:
            problems.add(blamed(spec, preset.place), f"preset {name}: {error}")
            continue
        if config.needs_data and "data" not in spec:
            problems.add(place, f"preset {name} needs calibration data; give data: PATH, or data: random for a trial")
        found.append(Try(name, config.to_json()))
    return tuple(found)


def blamed(spec: Spec, place: str) -> str:
    """Where to look when single values are fine and their combination is not: at what differs from the preset."""
    return next((spec[name].place for name in ("options", "config", "target") if name in spec), place)


def options_of(spec: Spec, problems: Problems) -> dict[str, Any]:
    """The extra options that are fine, each alone."""
    found: dict[str, Any] = {}
    for name, entry in (spec["options"].value if "options" in spec else {}).items():
        if fine(entry.place, problems, partial(checked_options, {name: entry.plain})):
            found[name] = entry.plain
    if "images" in spec and fine(spec["images"].place, problems, partial(ImageOptions.from_dict, spec["images"].plain)):
        found["CalibImages"] = spec["images"].plain
    if "samples" in spec:
        found["CalibDataSize"] = spec["samples"].value
    if "data" in spec and spec["data"].value == RANDOM:
        found["UseRandomData"] = True
    return found


def _changes(spec: Spec, problems: Problems) -> dict[str, Any]:
    """The fields of the configuration that differ from the preset."""
    found: dict[str, Any] = {}
    for name, entry in (spec["config"].value if "config" in spec else {}).items():
        if name in _OWN:
            problems.add(entry.place, f"{name} is a key of its own, {_OWN[name]!r}; move it out of config")
        elif name not in _FIELDS:
            problems.add(entry.place, f"unknown field {name!r} in config{nearest(name, _FIELDS)}")
        else:
            found[name] = entry.plain
    return found | ({"target": spec["target"].value} if "target" in spec else {})


def fine(place: str, problems: Problems, check: Callable[[], object]) -> bool:
    """Whether a check raises nothing; what it raises is a problem."""
    try:
        check()
    except ConfigError as error:
        problems.add(place, str(error))
        return False
    return True


def data_of(spec: Spec, home: Path, words: Mapping[str, str], problems: Problems) -> str | None:
    """The path of the calibration data; None where they are random, or none are given."""
    if "data" not in spec or spec["data"].value == RANDOM:
        return None
    place, path = spec["data"].place, home / Path(filled(spec["data"].value, words)).expanduser()
    if not path.exists():
        problems.add(place, f"the calibration data {path} do not exist; mend the path, or copy them there")
    elif not path.is_dir() and path.suffix.lower() not in (".npy", ".npz"):
        problems.add(place, f"the calibration data {path} are no folder, .npy or .npz file; save them as one")
    return str(path.absolute())


def evaluator_of(spec: Spec, home: Path, problems: Problems) -> str:
    """The evaluator, found fit to be called; empty where there is none."""
    if "evaluator" not in spec:
        return ""
    text = str(spec["evaluator"].value)
    if reason := refusal(text, home):
        problems.add(spec["evaluator"].place, reason)
    return text


def budget_of(spec: Spec, problems: Problems) -> Budget:
    """The budget; without a key all is allowed."""
    if "budget" not in spec:
        return Budget()
    given = checked(spec["budget"], BUDGET, "budget", problems)
    budget = Budget(**{name: limit(entry.value) for name, entry in given.items()})
    if budget.max_drop is not None and "evaluator" not in spec:
        problems.add(given["max_drop"].place, "max_drop needs an evaluator to tell it; give one, or use min_sqnr")
    return budget


def filled(text: str, words: Mapping[str, str]) -> str:
    """The text with {stem} and {parent} filled in, whatever they hold."""
    return re.sub(r"\{(stem|parent)\}", lambda found: words[found[1]], text)
