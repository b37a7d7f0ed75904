"""The models that an input of a manifest stands for, a path, a folder or a pattern, and names for their outputs.

A file may be called whatever its file system takes: it costs itself only. So a name that cannot be that of a folder
everywhere is made fit, and told from others by a hash of what it was.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST = 150
"""Bytes of a name: file systems take 255, and temporary names are longer."""

_NAME = re.compile(r"\w(?:[\w .+=@(),-]*[\w+=@(),-])?")
_RESERVED = ("results.jsonl", "index.html", "index.json")
_DEEP = f"{os.sep}**{os.sep}"


@dataclass(frozen=True)
class Found:
    """A model, and what its outputs are called by default. `literal`: the input is its own path, and no pattern."""

    path: Path
    name: str
    literal: bool = False


def find(text: str, home: Path, output: Path) -> tuple[list[Found], bool]:
    """The models behind an input, sorted; and whether there are others, which are left out as outputs.

    A model that is named by its own path need not be there.
    """
    text = os.path.expanduser(text)
    path = Path(os.path.normpath(home / text))
    if glob.has_magic(text) and not path.exists():
        fixed = Path(os.path.normpath(home / Path(*_before_magic(Path(text).parts))))
        files = _matching(os.path.normpath(os.path.join(glob.escape(str(home)), text)))
    elif path.is_dir():
        fixed, files = path, set(path.rglob("*.onnx"))
    else:
        return [Found(path, fit(path.stem), literal=True)], False
    models = sorted(file for file in files if not file.is_dir())
    kept = [file for file in models if not file.is_relative_to(output.absolute())]
    return list(_named(kept, fixed)), len(kept) < len(models)


def _matching(pattern: str) -> set[Path]:
    """Paths that match. `**` stands for folders, and for no link to one, which may lead in a circle."""
    head, deep, rest = f"{pattern}{os.sep}*".partition(_DEEP) if pattern.endswith("**") else pattern.partition(_DEEP)
    if not deep:
        return {Path(name) for name in glob.glob(pattern)}
    found: set[Path] = set()
    for top in glob.glob(head):
        for folder, folders, _ in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found |= _matching(os.path.join(glob.escape(folder), rest))
    return found


def _before_magic(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _named(files: list[Path], top: Path) -> Iterator[Found]:
    """Paths below the folder, with `-` for `/`; where that makes two the same, or but for case, with a hash."""
    taken: set[str] = set()
    for file in files:
        below = file.relative_to(top).with_suffix("").as_posix()
        name = fit(below.replace("/", "-"))
        if name.lower() in taken:
            name = _hashed(below)
        taken.add(name.lower())
        yield Found(file, name)


def fits(name: str) -> bool:
    """Whether a folder of outputs can have this name, on any file system."""
    return bool(_NAME.fullmatch(name)) and name.lower() not in _RESERVED and len(name.encode()) <= LONGEST


def fit(name: str) -> str:
    """The name, or one like it that a folder can have."""
    return name if fits(name) else _hashed(name)


def _hashed(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    letters = re.sub(r"[^\w .+=@(),-]+", "_", name).lstrip(" .+=@(),-").encode()
    return f"{letters[: LONGEST - 9].decode(errors='ignore').strip() or 'model'}-{digest}"
