"""Values that know where they were written: in YAML the line, in Python a path such as `models[2]`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quark_onnx.core.errors import ConfigError, reading, reason
from quark_onnx.zoo.problems import Problems

_MERGE = "tag:yaml.org,2002:merge"

LARGEST = 16 << 20
"""Bytes of a manifest."""

DEEPEST = 40
"""Values inside of each other."""

MOST = 100_000
"""Values inside of one, each counted as often as an anchor repeats it: a few lines can stand for billions."""


@dataclass(frozen=True)
class Marked:
    """A value and its place, for messages: `zoo.yaml:12`, or `models[2].preset`.

    value  a scalar, a list of `Marked`, or a dictionary of them
    size   how many values that are, each counted as often as an anchor repeats it
    """

    value: Any
    place: str
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        inner = self.value.values() if isinstance(self.value, dict) else self.value
        size = 1 + sum(entry.size for entry in inner) if isinstance(self.value, (dict, list)) else 1
        object.__setattr__(self, "size", size)

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
        if file.stat().st_size > LARGEST:
            raise ConfigError(f"the manifest {file} has more than {LARGEST >> 20} MB; it must be another file")
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
    except Exception as error:  # yaml's own, and what it does not foresee
        problems.add(f"{file}:1", f"this is not YAML: {reason(error)}; mend it")
    return None


class _Loader(yaml.SafeLoader):
    depth = 0

    def close(self) -> None:
        """As `contextlib.closing` calls it."""
        self.dispose()

    def fetch_flow_collection_start(self, token: Any) -> None:
        """A bracket; the scanner looks a thousand characters ahead, in time that grows with their square."""
        self._refuse_deeper(self.flow_level)
        super().fetch_flow_collection_start(token)

    def _refuse_deeper(self, level: int) -> None:
        if level >= DEEPEST:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"values are nested more than {DEEPEST} deep", mark)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it lies so deep that this would end in the recursion limit."""
        self._refuse_deeper(self.depth)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


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
            self.done[id(node)] = self._bounded(Marked(self._value(node, place), place))
            self.open.remove(id(node))
        return self.done[id(node)]

    def _bounded(self, read: Marked) -> Marked:
        """The value, or none where it stands for too many."""
        if read.size <= MOST:
            return read
        self.problems.add(read.place, f"this value stands for more than {MOST} others; use fewer anchors")
        return Marked(None, read.place)

    def _value(self, node: yaml.Node, place: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(entry) for entry in node.value]
        try:
            return self.loader.construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception:  # of a tag or a date such as 2024-99-99
            self.problems.add(
                place, f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}; write another value"
            )
            return None

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Marked]:
        """Keys with the line of the key, which is where one looks for it; what is merged counts less."""
        found: dict[str, Marked] = {}
        merged: dict[str, Marked] = {}
        twice: set[str] = set()
        for key, value in node.value:
            place = f"{self.file}:{key.start_mark.line + 1}"
            read = self.read(value)
            if key.tag == _MERGE:
                merged |= self._merged(read, place)
            elif not isinstance(key, yaml.ScalarNode):
                self.problems.add(place, "a key must be a name, not a list or a mapping")
            else:
                twice |= {key.value} & found.keys()
                found[key.value] = Marked(read.value, place)
        for name in sorted(twice):
            self.problems.add(f"{self.file}:{node.start_mark.line + 1}", f"key {name!r} is given twice; remove one")
        return merged | found

    def _merged(self, read: Marked, place: str) -> dict[str, Marked]:
        """The keys of a mapping, or of a list of them, of which the first counts most."""
        parts = read.value if isinstance(read.value, list) else [read]
        if not all(isinstance(part.value, dict) for part in parts):
            self.problems.add(place, "<< must be a mapping, or a list of mappings")
            return {}
        found: dict[str, Marked] = {}
        for part in parts:
            found = part.value | found
        return found
