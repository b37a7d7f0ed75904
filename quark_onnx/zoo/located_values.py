"""Values that know where they were written: in YAML the line, in Python a path such as `models[2]`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quark_onnx.core.errors import ConfigError
from quark_onnx.zoo.problems import Problems

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Marked:
    """A value and its place, for messages: `zoo.yaml:12`, or `models[2].preset`.

    value  a scalar, a list of `Marked`, or a dictionary of them
    """

    value: Any
    place: str

    @property
    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: entry.plain for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain for entry in self.value]
        return self.value


def of_python(value: object, place: str) -> Marked:
    """A Python value of dictionaries, lists and scalars. Paths become strings."""
    if isinstance(value, Mapping):
        return Marked({str(key): of_python(entry, f"{place}.{key}") for key, entry in value.items()}, place)
    if isinstance(value, (list, tuple)):
        return Marked([of_python(entry, f"{place}[{index}]") for index, entry in enumerate(value)], place)
    return Marked(str(value) if isinstance(value, Path) else value, place)


def of_yaml(file: Path, problems: Problems) -> Marked | None:
    """What a YAML file holds; None, and a problem, if it is no YAML.

    Anchors and merge keys (`<<`) are followed; keys given twice are problems.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the manifest {file}: {error}") from error
    try:
        with contextlib.closing(_Loader(text)) as loader:
            node = loader.get_single_node()
            return Marked(None, f"{file}:1") if node is None else _Reader(file, loader, problems).read(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "; ".join(part for part in (error.context, error.problem) if part)
        problems.add(f"{file}:{mark.line + 1 if mark else 1}", f"this is not YAML: {what}; mend it there or just above")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(f"{file}:{line}", f"this is not YAML: there is a character #x{error.character:04x}; remove it")
    except (yaml.YAMLError, ValueError) as error:  # a value such as the date 2024-99-99
        problems.add(f"{file}:1", f"this is not YAML: {error}; mend it")
    return None


class _Loader(yaml.SafeLoader):
    def close(self) -> None:
        """As `contextlib.closing` calls it."""
        self.dispose()


class _Reader:
    """Turns nodes into marked values; a node that several places refer to is read once."""

    def __init__(self, file: Path, loader: yaml.SafeLoader, problems: Problems) -> None:
        self.file, self.loader, self.problems = file, loader, problems
        self.done: dict[int, Marked] = {}
        self.open: set[int] = set()

    def read(self, node: yaml.Node) -> Marked:
        place = f"{self.file}:{node.start_mark.line + 1}"
        if id(node) in self.open:
            self.problems.add(place, "this value holds itself; remove the anchor")
            return Marked(None, place)
        if id(node) not in self.done:
            self.open.add(id(node))
            self.done[id(node)] = Marked(self._value(node), place)
            self.open.remove(id(node))
        return self.done[id(node)]

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(entry) for entry in node.value]
        return self.loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Marked]:
        """Keys with the line of the key, which is where one looks for it."""
        own = [key.value for key, _ in node.value if key.tag != _MERGE]
        for name in sorted({str(name) for name in own if own.count(name) > 1}):
            self.problems.add(f"{self.file}:{node.start_mark.line + 1}", f"key {name!r} is given twice; remove one")
        self.loader.flatten_mapping(node)
        found = {}
        for key, value in node.value:
            read = self.read(value)
            found[str(key.value)] = Marked(read.value, f"{self.file}:{key.start_mark.line + 1}")
        return found
