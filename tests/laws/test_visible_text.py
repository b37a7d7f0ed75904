"""What is shown of any text: nothing that steers a terminal or turns letters round, and all the rest as it is."""

from __future__ import annotations

import ast
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.json_writing import json_text
from quark_onnx.core.visible_text import visible

ANY = st.text(st.characters(exclude_categories=()))
STEERS = {"Cc", "Cs", "Zl", "Zp"}
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(ANY)
def test_shown_once_is_shown(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert "\n" not in visible(text)
    visible(text).encode("utf-8")


@given(ANY.filter(lambda text: not set(text) & set("\\'\"")))
def test_the_escapes_say_what_was_there(text: str) -> None:
    assert ast.literal_eval(f"'{visible(text)}'") == text


def test_every_character_that_acts_is_escaped_and_letters_are_not() -> None:
    for code in range(sys.maxunicode + 1):
        one = chr(code)
        category = unicodedata.category(one)
        if category in STEERS or unicodedata.bidirectional(one) in TURNS:
            assert visible(one).isascii(), hex(code)
        elif category[0] in "LNPS" or category == "Zs":
            assert visible(one) == one, hex(code)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj\u202e.exe", r"gpj\u202e.exe"),
        ("byte \udcff", r"byte \udcff"),
        ("no\u200bbreak", r"no\u200bbreak"),
        ("ascii [red]:bug:", "ascii [red]:bug:"),
        ("größe 日本　語 \xa0 ×→", "größe 日本　語 \xa0 ×→"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_is_kept() -> None:
    assert visible("a\n\tb\x07", keep="\n\t") == "a\n\tb\\x07"


@given(ANY, ANY)
def test_json_means_the_same_and_can_be_printed(key: str, value: str) -> None:
    text = json_text({key: [value]})
    assert json.loads(text) == {key: [value]}
    assert visible(text, keep="\n") == text
    text.encode("utf-8")
