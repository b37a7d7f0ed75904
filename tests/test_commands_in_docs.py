"""Every `quark-onnx …` of README and the docs is read by the command line: the command, its arguments and flags."""

from __future__ import annotations

import re
import shlex

import pytest
from markdown_pages import PAGES
from typer.main import get_command

from quark_onnx.cli.commands import app

COMMAND = re.compile(r"(?:^|`|&& )(quark-onnx (?:[^`\n\\]|\\\n)*)", re.M)
FOUND = {page: [line.replace("\\\n", "") for line in COMMAND.findall(text)] for page, text in PAGES.items()}


def unread(line: str) -> str | None:
    """What the command line says of `line`, whose command is not run; None if it is read.

    A command may be named alone, and `…` stands for what it needs.
    """
    commands = get_command(app).commands  # type: ignore[attr-defined]
    _, name, *words = shlex.split(line, comments=True)
    if name not in commands:
        return None if name == "--version" else f"no command {name}"
    partly = "…" in words or all(word.startswith("-") for word in words)
    try:
        commands[name].make_context(name, words)
    except Exception as error:
        said = str(error)
        return None if partly and said.startswith("Missing parameter") else said
    return None


@pytest.mark.parametrize("page", [page for page, lines in FOUND.items() if lines])
def test_commands_are_read(page: str) -> None:
    for line in FOUND[page]:
        assert unread(line) is None, f"{page}: {line}"


def test_what_is_no_command_is_seen() -> None:
    assert unread("quark-onnx quantize a.onnx b.onnx --data c/") is not None
    assert unread("quark-onnx quantise a.onnx -o b.onnx") is not None
    assert unread("quark-onnx quantize a.onnx -o b.onnx --no-such-flag") is not None
    assert unread("quark-onnx quantize … --no-such-flag") is not None
    assert unread("quark-onnx quantize --no-cle") is None
    assert len(FOUND["README.md"]) > 5
