"""Damaged files of every kind that we read: an error of ours, or success, and the process lives on.

`python tests/helpers/mutated_files.py FOLDER FIRST COUNT [NAME …]` goes on from any seed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mutated_files
import numpy as np
import pytest
from byte_mutations import KINDS, mutated

from quark_onnx import QuarkError

MODELS = ("conv", "branches", "digits", "model with external data", "external data")
PLANS = ("plan.json", "plan arrays", "cache")
TEXTS = ("encodings 0.6.1", "encodings 1.0.0", "encodings 2.0.0", "runtime configuration", "configuration", "manifest")
SAMPLES = ("npy", "npz", "png")

ROUNDS = {MODELS: 8, PLANS: 16, TEXTS: 16, SAMPLES: 8}
"""Of each file: all kinds of damage, once or twice."""


@pytest.mark.parametrize("names", ROUNDS, ids=lambda names: names[0])
def test_damage_is_told_as_such(names: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", mutated_files.__file__, str(tmp_path / "files"), "0", str(ROUNDS[names])]
    done = subprocess.run([*command, *names], capture_output=True, text=True, timeout=120)
    outcomes = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("start\t")]
    known = {"ok", *(kind.__name__ for kind in (QuarkError, *QuarkError.__subclasses__())), "ManifestError"}
    assert [outcome for outcome in outcomes if outcome[2] not in known] == []
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    assert len(outcomes) == ROUNDS[names] * len(names)
    assert len({outcome[2] for outcome in outcomes}) > 1, "some damage is refused, and some is of no consequence"


def test_every_file_is_among_them(tmp_path: Path) -> None:
    assert {*MODELS, *PLANS, *TEXTS, *SAMPLES} == mutated_files.subjects(tmp_path).keys()


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = np.random.default_rng(0).bytes(500)
    found = [mutated(data, seed) for seed in range(3 * len(KINDS))]
    assert found == [mutated(data, seed) for seed in range(3 * len(KINDS))]
    assert len(set(found)) == len(found)
    assert data not in found


def test_an_error_of_another_library_is_foreign(tmp_path: Path) -> None:
    """What the tests above look for can be seen."""

    def fails(path: Path) -> None:
        if path.read_bytes() != b"sound":
            raise RecursionError("too deep")

    subject = mutated_files.Subject(tmp_path / "f", mutated_files.written("f", b"sound"), fails)
    assert subject.outcome(0).startswith("foreign: RecursionError: 'too deep' at ")
