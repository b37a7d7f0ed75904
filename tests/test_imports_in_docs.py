"""What README and the docs import is there to be imported."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from markdown_pages import PAGES

IMPORT = re.compile(r"^from (quark_onnx[\w.]*) import (\([^)]*\)|[^#\n]*)", re.M)
FOUND = {page: IMPORT.findall(text) for page, text in PAGES.items()}


@pytest.mark.parametrize("page", [page for page, imports in FOUND.items() if imports])
def test_what_is_imported_is_there(page: str) -> None:
    for module, names in FOUND[page]:
        for name in (part.split()[0] for part in names.strip("()").split(",") if part.strip()):
            assert hasattr(import_module(module), name), f"{page}: from {module} import {name}"


def test_imports_are_seen() -> None:
    assert ("quark_onnx", "Config, ModelQuantizer") in FOUND["README.md"]
