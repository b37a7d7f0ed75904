"""The folder of a search: what was measured, by what it depends on, so that a search goes on where it ended.

FOLDER/trials/KEY.json   one trial; KEY: hash of model, data, evaluator, versions and configuration
FOLDER/trials/table-KEY.json   the table of layers, likewise
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import new_file, unwritable
from quark_onnx.core.json_reading import json_of
from quark_onnx.core.json_writing import json_text

TRIALS = "trials"


@dataclass(frozen=True)
class TrialStore:
    """What was measured.

    folder  None: nothing is kept
    base    what every measurement depends on, as text
    """

    folder: Path | None
    base: str

    def get(self, kind: str, of: str) -> dict[str, Any] | None:
        """What was measured of `of`; None where nothing was, or a file is not what was written."""
        path = self._path(kind, of)
        if path is None or not path.exists():
            return None
        try:
            found = json_of(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        values = found.get("measured") if isinstance(found, dict) else None
        return values if isinstance(values, dict) and found.get("hash") == _hash(json_text(values)) else None

    def put(self, kind: str, of: str, values: Mapping[str, Any]) -> None:
        """Keep what was measured.

        Raises:
            ConfigError, ResourceError: the folder cannot be written.
        """
        path = self._path(kind, of)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        with new_file(path) as made:
            whole = {"hash": _hash(json_text(values)), "measured": values}
            made.write_text(json_text(whole) + "\n", encoding="utf-8")

    def _path(self, kind: str, of: str) -> Path | None:
        if self.folder is None:
            return None
        key = _hash("\n".join([self.base, kind, of]))
        return self.folder / TRIALS / f"{kind}-{key}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
