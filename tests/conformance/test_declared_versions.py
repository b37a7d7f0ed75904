"""`scripts/check-lowest` tries the lowest version of everything that pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURSELVES = "quark-onnx["


def test_each_requirement_has_one_lowest_version() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads pyproject.toml")
    parsed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, extras = parsed["project"], parsed["project"]["optional-dependencies"].values()
    asked = [*parsed["build-system"]["requires"], *project["dependencies"], *(one for extra in extras for one in extra)]
    wanted = {re.sub(r"\[.*\]", "", one).replace(">=", "==") for one in asked if not one.startswith(OURSELVES)}
    listed = subprocess.run([ROOT / "scripts/check-lowest", "--list"], capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) == wanted
    names = [one.split("==")[0] for one in wanted]
    assert sorted(names) == sorted(set(names)), "two bounds of one package"
