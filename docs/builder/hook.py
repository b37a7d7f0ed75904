"""What mkdocs asks while it builds the site: pages that are made of the code, and links. See mkdocs.yml."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUILDER = Path(__file__).parent
ROOT = BUILDER.parents[1]
sys.path.insert(0, str(ROOT))  # the code of this clone, whatever is installed; mkdocs puts this folder there

from command_page import command_page  # noqa: E402
from fetched_parts import fetched  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from runtime_pages import operator_page, target_page  # noqa: E402
from settings_pages import (  # noqa: E402
    configuration_page,
    finetune_page,
    method_page,
    option_page,
    preset_page,
    training_page,
)
from site_links import BESIDE_DOCS, rewritten  # noqa: E402
from source_pages import MODULES, api_page, api_uri, example_page  # noqa: E402

logger = logging.getLogger("mkdocs.hooks.quark_onnx")  # below mkdocs, so that --strict counts its warnings

PAGES: dict[str, Callable[[], str]] = {
    "examples.md": example_page,
    "reference/command_line.md": command_page,
    "reference/configuration.md": configuration_page,
    "reference/options.md": option_page,
    "reference/finetune.md": finetune_page,
    "reference/training.md": training_page,
    "reference/methods.md": method_page,
    "reference/presets.md": preset_page,
    "reference/targets.md": target_page,
    "reference/operators.md": operator_page,
}


def on_startup(**_: Any) -> None:
    """Extensions of mkdocstrings import what lies here, when mkdocs has taken back the path that a hook loads with."""
    sys.path[:0] = [str(ROOT), str(BUILDER)]


def on_config(config: Any, **_: Any) -> Any:
    """Fill in what is a list of files: modules, ports, and decisions."""
    lists = {
        "API": [{module: api_uri(module)} for module in MODULES],
        "Coming from another tool": [{"Overview": "porting.md"}, *_pages("porting_*.md"), *_pages("pipelines.md")],
        "Decisions": ["decisions/README.md", *_pages("decisions/[0-9]*.md")],
    }
    config.nav = [_filled(entry, lists) for entry in config.nav]
    return config


def _pages(pattern: str) -> list[str]:
    docs = ROOT / "docs"
    return sorted(path.relative_to(docs).as_posix() for path in docs.glob(pattern))


def _filled(entry: Any, lists: dict[str, list[Any]]) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {
        title: lists.get(title) or ([_filled(one, lists) for one in inner] if isinstance(inner, list) else inner)
        for title, inner in entry.items()
    }


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that no file in docs/ holds."""
    for uri, make in PAGES.items():
        files.append(File.generated(config, uri, content=make()))
    for module in MODULES:
        files.append(File.generated(config, api_uri(module), content=api_page(module)))
    for path, uri in BESIDE_DOCS.items():
        file = File.generated(config, uri, content=(ROOT / path).read_text("utf-8"))
        file.edit_uri = f"../{path}"
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links as the site needs them."""
    return rewritten(markdown, page.file.src_uri, config.repo_url.rstrip("/"), config.site_url.rstrip("/"))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page as it is; what it would fetch from elsewhere is a warning."""
    for what in fetched(output):
        logger.warning("%s: %s", page.file.src_uri, what)
    return output
