"""From what a manifest says of a model to what is searched for in place of a configuration."""

from __future__ import annotations

from functools import partial

from quark_onnx.durations import seconds
from quark_onnx.optimize.rungs import DECIDED, bottom
from quark_onnx.zoo.entry import Goal
from quark_onnx.zoo.manifest_keys import Spec
from quark_onnx.zoo.problems import Problems
from quark_onnx.zoo.settings import blamed, fine, options_of


def goal_of(spec: Spec, place: str, problems: Problems) -> Goal | None:
    """What to search for; None where the entry names its configurations."""
    if "objective" not in spec:
        if "time" in spec:
            text = "time is the limit of a search; give an objective, or a timeout in its place"
            problems.add(spec["time"].place, text)
        return None
    objective, target = spec["objective"].value, spec["target"].value if "target" in spec else "cpu"
    if "data" not in spec:
        text = f"objective: {objective} needs samples that judge; give data: PATH, or data: random for a trial"
        problems.add(place, text)
    _add_decided(spec, f"objective: {objective} searches for", problems)
    options = options_of(spec, problems)
    own = {name: value for name, value in options.items() if name not in DECIDED}
    known = "target" not in spec or fine(spec["target"].place, problems, partial(bottom, target, {}))
    if known:
        fine(blamed(spec, place), problems, partial(bottom, target, own))
    return Goal(objective, target, options, _time(spec, problems))


def _add_decided(spec: Spec, why: str, problems: Problems) -> None:
    """What the entry says of the configuration though it is searched for."""
    if "preset" in spec:
        problems.add(spec["preset"].place, f"{why} what a preset says; remove one of both")
    given = {key: spec[key].value if key in spec else {} for key in ("config", "options")}
    decided = {**given["config"], **{name: entry for name, entry in given["options"].items() if name in DECIDED}}
    for name, entry in decided.items():
        problems.add(entry.place, f"{why} the configuration, {name} included; remove it, or name a preset instead")


def _time(spec: Spec, problems: Problems) -> float | None:
    """Seconds that the search may take."""
    time, timeout = (seconds(spec[key].value) if key in spec else None for key in ("time", "timeout"))
    if time is not None and timeout is not None and time >= timeout:
        text = f"the timeout of {timeout:g} s ends the search before its time of {time:g} s; let it be longer"
        problems.add(spec["time"].place, text)
    return time
