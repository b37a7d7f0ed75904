"""The keys that a model of a manifest may have: what each means, and the check of its value alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.budget import Budget
from quark_onnx.durations import seconds
from quark_onnx.optimize.records import Objective
from quark_onnx.zoo.located_values import Marked
from quark_onnx.zoo.problems import Problems

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """One key: a test of its value, what the value has to be, in words with an example, and what it means."""

    check: Check
    wanted: str
    meaning: str


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: Any) -> bool:
    return _text(value) or (isinstance(value, list) and bool(value) and all(map(_text, value)))


def number(value: Any) -> float | None:
    """A number that is not negative. YAML takes 1e-3 for a string, which is meant as a number all the same."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if 0 <= found < float("inf") else None


KEYS = {
    "input": Key(_text, "a path, a folder or a pattern such as models/*.onnx", "the float models"),
    "name": Key(_text, "a text, with {stem} or {parent} if several models share it", "folder of the outputs"),
    "preset": Key(_texts, "the name of a preset, or a list of them", "configurations to try, in this order"),
    "objective": Key(lambda v: v in get_args(Objective), "size, latency or balanced", "what a search makes small"),
    "time": Key(lambda v: seconds(v) is not None, "seconds, or a text such as 10m", "limit of a search"),
    "data": Key(_text, 'a folder, an .npz or .npy file, or "random"', "calibration data"),
    "samples": Key(lambda v: type(v) is int and v > 0, "a positive integer", "use so many samples at most"),
    "images": Key(lambda v: isinstance(v, dict), "a mapping such as {mean: 0.5}", "how images become inputs"),
    "target": Key(_text, "the name of a target, such as cpu", "what runs the model"),
    "config": Key(lambda v: isinstance(v, dict), "a mapping of fields such as {per_channel: true}", "what differs"),
    "options": Key(lambda v: isinstance(v, dict), "a mapping such as {Percentile: 99.9}", "extra options"),
    "evaluator": Key(_text, "module:function, or a command with {model}", "scores a model; higher is better"),
    "budget": Key(lambda v: isinstance(v, dict), "a mapping such as {max_drop: 0.01}", "what it may cost"),
    "timeout": Key(lambda v: seconds(v) is not None, "seconds, or a text such as 30m or 2h", "limit of one attempt"),
}
"""What an entry of `models` may say; `defaults` the same but `input`."""

INSTEAD = {"preset": ("objective", "time"), "objective": ("preset",)}
"""A key that an entry gives itself → the defaults that it takes the place of."""


def limit(value: Any) -> Any:
    """A value of a budget: numbers may be text."""
    found = number(value)
    return value if found is None else found


def _fits(name: str) -> Check:
    def check(value: Any) -> bool:
        try:
            return bool(Budget(**{name: limit(value)}))
        except ConfigError:
            return False

    return check


BUDGET = {
    "max_drop": Key(_fits("max_drop"), "a number such as 0.01, or a share such as 1%", "the score may fall so much"),
    "min_sqnr": Key(_fits("min_sqnr"), "decibels such as 25", "signal to noise that every output keeps"),
    "min_agreement": Key(_fits("min_agreement"), "a share such as 0.98", "rows that keep their largest value"),
    "max_kl": Key(_fits("max_kl"), "nats such as 0.05", "divergence of classes from those of the float model"),
}

SHOWN = 4
"""Keys that a message names."""

Spec = Mapping[str, Marked]


def checked(marked: Marked, keys: Mapping[str, Key], what: str, problems: Problems) -> dict[str, Marked]:
    """The keys of a mapping that are known and have a usable value; everything else is a problem.

    A value of null is kept: it takes back a default.
    """
    if not isinstance(marked.value, dict):
        more = ", …" if len(keys) > SHOWN else ""
        problems.add(marked.place, f"{what} must be a mapping of {', '.join(list(keys)[:SHOWN])}{more}")
        return {}
    found = {}
    for name, entry in marked.value.items():
        if name not in keys:
            problems.add(entry.place, f"unknown key {name!r} in {what}{nearest(name, keys)}")
        elif entry.value is not None and not keys[name].check(entry.plain):
            problems.add(entry.place, f"{name} must be {keys[name].wanted}, not {entry.plain!r}")
        else:
            found[name] = entry
    return found


def merged(defaults: Spec, own: Spec) -> dict[str, Marked]:
    """The entry with what it does not say itself from the defaults; mappings are joined key by key.

    A preset takes the place of an objective, and the other way round.
    """
    gone = {other for name in own if own[name].value is not None for other in INSTEAD.get(name, ())}
    found = {name: entry for name, entry in defaults.items() if name not in gone}
    for name, entry in own.items():
        before = found.get(name)
        if before is not None and isinstance(entry.value, dict) and isinstance(before.value, dict):
            entry = Marked({**before.value, **entry.value}, entry.place)
        found[name] = entry
    return {name: entry for name, entry in found.items() if entry.value is not None}
