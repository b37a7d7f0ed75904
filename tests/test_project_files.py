"""What the files beside the package say of it is so."""

from __future__ import annotations

import re
from pathlib import Path

from quark_onnx.core.version import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def test_one_version() -> None:
    assert re.findall(r'^version = "(.+)"$', PROJECT, re.M) == [VERSION]
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M) == [VERSION]


def test_pythons_go_up_from_the_oldest() -> None:
    (oldest,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', PROJECT, re.M)
    minors = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', PROJECT)]
    assert minors == list(range(int(oldest), minors[-1] + 1))
    assert f'target-version = "py3{oldest}"' in PROJECT


def test_the_license_is_the_one_that_is_named() -> None:
    (name,) = re.findall(r'^license = "(.+)"$', PROJECT, re.M)
    assert (ROOT / "LICENSE").read_text("utf-8").startswith(f"{name} License\n\nCopyright (c) ")
    assert f"license: {name}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_files_of_the_source_distribution_are_there() -> None:
    for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines():
        kind, *names = line.split()
        if kind != "global-exclude":
            assert [name for name in names if not (ROOT / name).exists()] == []
