"""Values that know where they were written: in YAML the line, in Python a path such as `models[2]`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quark_onnx.core.errors import ConfigError, reading, reason
from quark_onnx.core.json_reading import DEEPEST
from quark_onnx.zoo.problems import Problems

_MERGE = "tag:yaml.org,2002:merge"

MOST = 100_000
"""Values of a manifest, with those that anchors repeat: some forty lines can stand for more than any memory holds."""


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
    with reading(f"the manifest {file}", ConfigError, "give a file of YAML"):
        text = file.read_text(encoding="utf-8")
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
    except Exception as error:  # a value such as the date 2024-99-99
        problems.add(f"{file}:1", f"this is not YAML: {reason(error)}; mend it")
    return None


class _Loader(yaml.SafeLoader):
    """Refuses what grows without end: levels, brackets before the scanner looks ahead, and what merge keys make."""

    depth = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        """A bracket opens."""
        self._refuse_deep(self.flow_level)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of one more level."""
        self._refuse_deep(self.depth)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Merge keys that double what others doubled."""
        super().flatten_mapping(node)
        _refuse_large(node, len(node.value))

    def _refuse_deep(self, level: int) -> None:
        if level >= DEEPEST:
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem=f"it is nested deeper than {DEEPEST} levels", problem_mark=mark)

    def close(self) -> None:
        """As `contextlib.closing` calls it."""
        self.dispose()


class _Reader:
    """Turns nodes into marked values; a node that several places refer to is read once."""

    def __init__(self, file: Path, loader: yaml.SafeLoader, problems: Problems) -> None:
        self.file, self.loader, self.problems = file, loader, problems
        self.done: dict[int, Marked] = {}
        self.sizes: dict[int, int] = {}
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
            self.sizes[id(node)] = 1 + sum(map(self._size, _parts(node)))
            _refuse_large(node, self.sizes[id(node)])
        return self.done[id(node)]

    def _size(self, node: yaml.Node) -> int:
        """Values in a node, once for every place that refers to it; 0 of a key and of one that holds itself."""
        return self.sizes.get(id(node), 0)

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


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _refuse_large(node: yaml.Node, size: int) -> None:
    if size > MOST:
        raise yaml.MarkedYAMLError(
            problem=f"anchors make more than {MOST} values of it; write it out", problem_mark=node.start_mark
        )
