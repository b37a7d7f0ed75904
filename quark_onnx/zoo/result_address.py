"""The address of a result: a hash of all that it depends on. What has the same address need not be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from stat import S_ISREG

from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.version import VERSION
from quark_onnx.engine.runtimes.known import runtime_of
from quark_onnx.engine.runtimes.runtime import Missing
from quark_onnx.evaluators import files_of
from quark_onnx.graph.model_files import external_files
from quark_onnx.zoo.entry import Entry

LAYOUT = 4
"""Raised when the outputs of a model get other names or contents."""

CHUNK = 1 << 20


def address(entry: Entry) -> str:
    """The address of an entry's result.

    It depends on the bytes of the model, with its external data, of the data and of the evaluator, on the
    configurations or what is searched for, the budget and the name, and on the versions of this package and of the
    runtimes that the evidence is from, or that they are missing; not on the time limit of an attempt, and not on where
    the files are.
    """
    model, home = Path(entry.input), Path(entry.home)
    document = {
        "layout": LAYOUT,
        "versions": [VERSION, version("onnxruntime"), *_versions(entry)],
        "name": entry.name,
        "input": entry.shown_input,
        "model": _digests(model.parent, [model, *external_files(model)]),
        "tries": [asdict(one) for one in entry.tries],
        "goal": None if entry.goal is None else asdict(replace(entry.goal, trials="")),
        "data": None if entry.data is None else _data(Path(entry.data)),
        "evaluator": [entry.evaluator, _digests(home, files_of(entry.evaluator, home) if entry.evaluator else [])],
        "budget": asdict(entry.budget),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _versions(entry: Entry) -> list[str]:
    """Of the runtimes, but onnxruntime, that its targets mean."""
    targets = {one.configuration.target for one in entry.tries} | ({entry.goal.target} if entry.goal else set())
    rows = (TARGETS[target] for target in sorted(targets) if TARGETS[target].runtime and not TARGETS[target].on_cpu)
    found = (runtime_of(row) for row in rows)
    return [f"{one.title} {'' if isinstance(one, Missing) else one.version}" for one in found]


def _data(path: Path) -> list[tuple[str, str]]:
    """The folder's files, or the one file. Hidden files are never samples."""
    if not path.is_dir():
        return _digests(path.parent, [path])
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return _digests(path, [file for file in files if not file.relative_to(path).as_posix().startswith(".")])


def _digests(folder: Path, files: Iterable[Path]) -> list[tuple[str, str]]:
    """Name, relative to the folder where it is below, and content of each file; a missing one has no content."""
    return [
        (file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file), file_hash(file))
        for file in files
    ]


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hexadecimal, empty if there is none. A file that did not change is not read again.

    Devices and pipes, of which a model may say that its weights are there, are none: some never end.
    """
    try:
        seen = file.stat()
    except OSError:
        return ""
    if not S_ISREG(seen.st_mode):
        return ""
    return _file_hash(str(file), seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _file_hash(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
