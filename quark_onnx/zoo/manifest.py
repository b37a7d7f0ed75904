"""Manifests: a YAML file, or a folder of models, becomes a list of entries, or a list of everything that is wrong.

    defaults: {preset: S8S8_AAWS, data: samples/, budget: {min_sqnr: 25}}
    models:
      - input: vision/*.onnx
      - input: encoder.onnx
        preset: [INT8_TRANSFORMER_DEFAULT, U16S8_AAWS]
        evaluator: "judge:accuracy"
      - input: detector.onnx
        objective: size

Paths are relative to the manifest. A model that is missing is no problem of the manifest but a row of the result: it
costs that model only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from quark_onnx.core.errors import ConfigError
from quark_onnx.durations import seconds
from quark_onnx.zoo.entry import RANDOM, Entry
from quark_onnx.zoo.found_models import LONGEST, Found, find, fit, fits
from quark_onnx.zoo.goals import goal_of
from quark_onnx.zoo.located_values import Marked, of_python, of_yaml
from quark_onnx.zoo.manifest_keys import KEYS, Key, Spec, checked, merged
from quark_onnx.zoo.problems import Problems
from quark_onnx.zoo.settings import budget_of, data_of, evaluator_of, filled, tries_of

TOP = {
    "defaults": Key(lambda value: isinstance(value, dict), "a mapping", "what entries do not say themselves"),
    "models": Key(lambda value: isinstance(value, list) and bool(value), "a list of entries", "the models"),
}


class _Named(NamedTuple):
    """A model that an entry names, and where it does."""

    found: Found
    spec: Spec
    place: str


def read_zoo(
    source: str | Path | Mapping[str, object],
    output: Path,
    defaults: Mapping[str, object] | None = None,
    *,
    strict: bool = False,
) -> list[Entry]:
    """The entries of a manifest, of a folder, or of a dictionary with the keys of a manifest.

    Args:
        output: where outputs go; models below it are no inputs.
        defaults: what neither the defaults of the manifest nor an entry say.
        strict: a missing model is a problem, too.

    Raises:
        ConfigError: there is no such file.
        ManifestError: everything that is wrong.
    """
    problems = Problems()
    given = _said(of_python(defaults or {}, "defaults"), _DEFAULTS, "defaults", problems)
    top, home = _top(source, problems)
    if top is None:
        problems.done()
        return []
    parts = checked(top, TOP, "the manifest", problems)
    own = _said(parts["defaults"], _DEFAULTS, "defaults", problems) if "defaults" in parts else {}
    nodes = parts["models"].value or () if "models" in parts else ()
    if not nodes and not problems.found:
        problems.add(top.place, "there are no models; write models: and below it - input: model.onnx")
    specs = [merged(merged(given, own), _own(node, problems)) for node in nodes]
    named = _unique_files([model for spec in specs for model in _models(spec, home, output, problems)])
    entries = [_built(model, home, problems) for model in named]
    _check_names(entries, output, problems)
    for entry in entries if strict else ():
        if not Path(entry.input).is_file():
            problems.add(entry.place, f"model {entry.input} does not exist; mend the path, or copy it there")
    problems.done()
    return entries


_DEFAULTS = {name: key for name, key in KEYS.items() if name != "input"}


def _top(source: str | Path | Mapping[str, object], problems: Problems) -> tuple[Marked | None, Path]:
    """The manifest, None if it cannot be read, and the folder that its paths start from."""
    if isinstance(source, Mapping):
        return of_python(source, "manifest"), Path.cwd()
    path = Path(source).expanduser()
    if path.is_dir():
        folder = Marked(str(path.absolute()), str(path))
        entry = Marked({"input": folder}, str(path))
        return Marked({"models": Marked([entry], str(path))}, str(path)), path.absolute()
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a manifest (.yaml) or a folder of .onnx files")
    if path.suffix.lower() == ".onnx":
        raise ConfigError(f"{path} is a model; give a manifest (.yaml) or a folder, or use quark-onnx quantize")
    return of_yaml(path, problems), path.absolute().parent


def _own(node: Marked, problems: Problems) -> dict[str, Marked]:
    """What an entry says itself. A bare path stands for one that says nothing else."""
    entry = Marked({"input": node}, node.place) if isinstance(node.value, str) else node
    if isinstance(entry.value, dict) and ("input" not in entry.value or entry.value["input"].value is None):
        problems.add(node.place, "the entry has no input; give the path of a model, a folder or a pattern")
    return _said(entry, KEYS, "a model", problems)


def _said(marked: Marked, keys: Mapping[str, Key], what: str, problems: Problems) -> dict[str, Marked]:
    """The usable part of a mapping. That data are missing is no problem where they are just unusable."""
    found = checked(marked, keys, what, problems)
    if isinstance(marked.value, dict) and "data" in marked.value:
        found.setdefault("data", Marked(RANDOM, marked.value["data"].place))
    return found


def _models(spec: Spec, home: Path, output: Path, problems: Problems) -> Iterator[_Named]:
    """The models behind the input of an entry; none behind one that is a problem already."""
    if "input" not in spec:
        return
    where, text = spec["input"].place, spec["input"].value
    models, others = find(text, home, output)
    if not models:
        outside = f" outside of the output folder {output}" if others else ""
        problems.add(where, f"{text} holds no model{outside}; mend the path, or remove the entry")
    yield from (_Named(model, spec, where) for model in models)


def _unique_files(models: list[_Named]) -> list[_Named]:
    """Patterns leave out what an entry names by its own path: that is how one of many gets settings of its own."""
    literal = {model.found.path for model in models if model.found.literal}
    return [model for model in models if model.found.literal or model.found.path not in literal]


def _built(model: _Named, home: Path, problems: Problems) -> Entry:
    spec, path, name = model.spec, model.found.path, model.found.name
    words = {"stem": path.stem, "parent": path.parent.name}
    if "name" in spec:
        asked = str(spec["name"].value)
        if not fits(filled(asked, dict.fromkeys(words, "x"))):  # whatever the file is called
            shown = asked if len(asked) < LONGEST else f"{asked[:40]}…"
            problems.add(spec["name"].place, f"{shown!r} cannot name a folder of outputs; give another name: NAME")
        name = fit(filled(asked, words))
    goal = goal_of(spec, model.place, problems)
    return Entry(
        name=name,
        input=str(path),
        place=model.place,
        home=str(home),
        tries=tries_of(spec, model.place, problems) if goal is None else (),
        data=data_of(spec, home, words, problems),
        evaluator=evaluator_of(spec, home, problems),
        budget=budget_of(spec, problems),
        timeout=seconds(spec["timeout"].value) if "timeout" in spec else None,
        goal=goal,
    )


def _check_names(entries: Iterable[Entry], output: Path, problems: Problems) -> None:
    """Every entry needs a folder of its own, and one that is ours to replace."""
    first: dict[str, Entry] = {}
    for entry in entries:
        folder = output / entry.name
        if (other := first.setdefault(entry.name.lower(), entry)) is not entry:
            problems.add(
                entry.place,
                f"the outputs of {entry.shown_input} would be named {entry.name!r}, as those of {other.shown_input} "
                f"({other.place}); give each a name, such as name: '{{parent}}-{{stem}}'",
            )
        elif folder.exists() and not (folder / "result.json").is_file():
            problems.add(entry.place, f"{folder} exists and holds no result.json; choose another output folder or name")


def with_timeout(entries: Iterable[Entry], timeout: float | None) -> list[Entry]:
    """The entries, those without a limit of their own with this one."""
    return [replace(entry, timeout=entry.timeout or timeout) for entry in entries]
