"""Names that would steer the terminal, and consoles that have few letters: every command says what it has to say."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done
from rich.console import Console
from text_models import normal, text_model
from typer.testing import CliRunner

from quark_onnx.cli import app, console
from quark_onnx.core.visible_text import UNSEEN, visible
from quark_onnx.progress.terminal_line import Line, display

TEXT = """g (float[N, 3, 8, 8] x) => (float[N, 4] y) {
    a = Conv (x, w)
    b = Erf (a)
    c = GlobalAveragePool (b)
    d = Flatten (c)
    y = Gemm (d, v)
}"""

NAMES = {
    "escape": "\x1b]0;OWNED\x07\x1b[2J\x1b[31mconv",
    "C1": "\x9b2Jconv\x84",
    "bidi": "conv\u202egnp.\u2066",
    "lines": "conv\nerror: forged\r\x0b\x0c\u2028next",
    "backspace": "conv\x08\x08\x08\x08evil\x7f",
    "invisible": "co\u200bnv\ufeff\U000e0041",
}
PLAIN_NAMES = {
    "markup": "[red]conv[/red] [link=x]",
    "emoji": ":bug:conv:a:",
    "letters": "größe/日本語→:0",
    "space": " ",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("samples.npy", normal(8, 3, 8, 8))
    return tmp_path


def named(*names: str) -> None:
    """`m.onnx`, in which all that can have a name has one of these, with its own behind it."""
    model, turn = text_model(TEXT, w=normal(5, 3, 3, 3), v=normal(5, 4)), itertools.cycle(names)
    again = {value: f"{next(turn)}{value}" for value in "xwvabcdy"}
    for node in model.graph.node:
        node.name = f"{next(turn)}{node.op_type}"
        node.input[:] = [again[value] for value in node.input]
        node.output[:] = [again[value] for value in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = again[value.name]
    onnx.save(model, "m.onnx")


def harmless(text: str) -> None:
    """Nothing acts on a terminal, and no line begins as a name would have it."""
    assert UNSEEN.findall(text.replace("\n", "")) == []
    assert not any(line.lstrip().startswith("error: forged") for line in text.splitlines())


def test_no_name_reaches_the_terminal() -> None:
    """Tables, facts, warnings and JSON; in each the names can be read."""
    named(*NAMES.values())
    names = [node.name for node in onnx.load("m.onnx").graph.node]
    for arguments in (
        ("inspect", "m.onnx", "--nodes"),
        ("inspect", "m.onnx"),
        ("quantize", "m.onnx", "-o", "q.onnx", "-d", "samples.npy", "--layers"),
        ("compare", "m.onnx", "q.onnx", "-d", "samples.npy", "--layers"),
    ):
        result = command(*arguments)
        assert result.exit_code == 0, result.output
        harmless(result.stdout)
        harmless(result.stderr)
        if "--nodes" in arguments:
            assert all(visible(name) in result.stdout for name in names)
    listed = done("inspect", "m.onnx", "--json")
    harmless(listed)
    assert set(names) <= {row["node"] for row in json.loads(listed)["nodes"]}


@pytest.mark.parametrize("kind", NAMES)
def test_what_was_typed_is_harmless(kind: str) -> None:
    name = NAMES[kind]
    named("n")
    for arguments in (
        ("quantize", "m.onnx", "-o", "q.onnx", "-d", "samples.npy", "-x", name),
        ("quantize", "m.onnx", "-o", "q.onnx", "--option", f"{name}=1"),
        ("quantize", name, "-o", "q.onnx", "-d", "samples.npy"),
        ("quantize", "m.onnx", f"--{name}"),
        ("quantize", "m.onnx", "-o", "q.onnx", "--samples", name),
        (name,),
        (f"--{name}",),
    ):
        result = command(*arguments)
        assert result.exit_code in (2, 3)
        harmless(result.stderr)


@pytest.mark.parametrize("kind", PLAIN_NAMES)
def test_ordinary_names_are_shown_as_they_are(kind: str) -> None:
    """Brackets are no markup, colons no picture, letters of all scripts are letters."""
    named(PLAIN_NAMES[kind])
    assert f"{PLAIN_NAMES[kind]}Conv" in done("inspect", "m.onnx", "--nodes")
    result = command("quantize", "m.onnx", "-o", "q.onnx", "-d", "samples.npy", "-x", PLAIN_NAMES[kind] + "none")
    assert PLAIN_NAMES[kind] in result.stderr


def test_columns_are_as_wide_as_what_is_shown() -> None:
    named("\x1b\x1b\x1b")
    head, _, *rows = done("inspect", "m.onnx", "--nodes").strip().splitlines()[:7]
    operators = [row[head.index("Operator") :].split()[0] for row in rows]
    assert operators == ["Conv", "Erf", "GlobalAveragePool", "Flatten", "Gemm"]


def test_progress_shows_names_on_one_line() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=150, legacy_windows=False)
    with display(screen) as shown:
        line = Line(shown)
        line.tell("tune co\x1b[2Jnv\nerror: forged", 1, 3)
        assert "co\\x1b[2Jnv\\nerror: forged" in shown.tasks[0].description
        line.tell("tune [red]conv", 2, 3)
        assert "[red]conv" in shown.tasks[0].description


def test_messages_keep_their_own_lines_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", console.SafeConsole(file=screen, markup=False, highlight=False))
    console.message("error", "two problems:\n  one\n  two\nerror: \x1bforged", "bold")
    assert screen.getvalue() == "error: two problems:\n  one\n  two\\nerror: \\x1bforged\n"


def test_logs_are_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Also of whoever uses the package without the command line."""
    console.logger.warning("layer %s of %d: %s", "\x1b[2J", 3, "a\nb")
    assert [record.getMessage() for record in caplog.records] == ["layer \\x1b[2J of 3: a\\nb"]


# consoles


def told(charset: str, *arguments: str) -> Any:
    result = CliRunner(charset=charset).invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("charset", ["ascii", "cp1252", "latin-1", "cp437", "shift_jis", "utf-8"])
def test_every_encoding_will_do(charset: str) -> None:
    """Exit code 0 and words; JSON is JSON, and says the same."""
    named("größe/日本語→")
    job = ("quantize", "m.onnx", "-o", "q.onnx", "-d", "samples.npy")
    summary = told(charset, *job).stdout
    assert ("->" if charset in ("ascii", "cp1252", "latin-1", "cp437") else "→") in summary
    for more in (("inspect", "m.onnx", "--nodes"), ("presets",), ("presets", "A8W8_ADAROUND"), ("quantize", "--help")):
        assert told(charset, *more).stdout.strip()
    found = json.loads(told(charset, "inspect", "m.onnx", "--json").stdout)
    assert found["nodes"] == json.loads(done("inspect", "m.onnx", "--json"))["nodes"]


def test_characters_that_an_encoding_has_not() -> None:
    assert "größe → 日本… \x1b".encode("ascii", console.ENCODABLE) == rb"gr\xf6\xdfe -> \u65e5\u672c... " + b"\x1b"
    assert "größe → 日本".encode("cp1252", console.ENCODABLE).decode("cp1252") == r"größe -> \u65e5\u672c"
    assert "größe → 日本\udcff".encode("utf-8", console.ENCODABLE).decode() == "größe → 日本\\udcff"
