"""What a search keeps in its folder: it comes back as it was, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quark_onnx.optimize.trial_store import TRIALS, TrialStore

VALUES = {
    "size": 7,
    "kl": 0.1 + 0.2,
    "least": 5e-324,
    "none": None,
    "nodes": ["a", "é\u2028"],
    "outputs": {"y": {"db": 3.0}},
}


def stored(folder: Path) -> tuple[TrialStore, Path]:
    store = TrialStore(folder, "model and data")
    store.put("trial", "config", VALUES)
    return store, next((folder / TRIALS).iterdir())


def test_what_was_measured_comes_back_for_the_same_alone(tmp_path: Path) -> None:
    store, _ = stored(tmp_path)
    assert store.get("trial", "config") == VALUES
    assert store.get("trial", "another") is None and store.get("table", "config") is None
    assert replace(store, base="another model").get("trial", "config") is None
    assert TrialStore(None, "model and data").get("trial", "config") is None


@pytest.mark.parametrize("text", ["", "[1, 2", "[1, 2]", "null", "{}", '{"size": 7}', '{"measured": {}, "hash": "0"}'])
def test_a_file_that_is_not_what_was_written_counts_as_none(tmp_path: Path, text: str) -> None:
    store, path = stored(tmp_path)
    path.write_text(text, "utf-8")
    assert store.get("trial", "config") is None


def test_a_value_that_was_changed_is_found(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    found = json.loads(path.read_text("utf-8"))
    found["measured"]["size"] = 8
    path.write_text(json.dumps(found), "utf-8")
    assert store.get("trial", "config") is None
