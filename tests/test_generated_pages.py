"""Pages of the site that are made of the code have all of it: nothing is listed by hand, nothing is left out."""

from __future__ import annotations

import dataclasses
import re

import pytest
from aligned_fields import as_markdown, fields_of, one_by_one
from command_page import command_page
from fetched_parts import fetched
from markdown_parts import anchored, in_words, prose, table
from runtime_pages import operator_page, target_page
from settings_pages import configuration_page, finetune_page, method_page, option_page, preset_page, training_page
from site_links import on_site, rewritten
from source_pages import MODULES, ROOT, api_page, example_page
from typer.main import get_command

import quark_onnx
from quark_onnx.cli.commands import app
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.extra_options import OPTIONS, UNSUPPORTED
from quark_onnx.core.settings.fast_finetune import METHODS, quark_key
from quark_onnx.core.settings.presets import PRESETS
from quark_onnx.core.settings.range_methods import ALIASES, WEIGHT_ONLY
from quark_onnx.core.settings.range_methods import METHODS as RANGES
from quark_onnx.core.settings.targets import PAIRS, TARGETS
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.core.settings.training.qat import QAT

HOME, SITE = "https://host/name", "https://site/name"


def rows(page: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = (line for line in page.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_option_has_a_row_that_says_what_it_means() -> None:
    meanings = {cells[0]: cells[1] for cells in rows(option_page())}
    for key, option in OPTIONS.items():
        (cell,) = [cell for cell in meanings if cell.startswith(anchored(key))]
        assert option.meaning.strip()
        assert meanings[cell] == prose(option.meaning).replace("|", r"\|")
        assert (f"= `{option.default!r}`" in cell) == (option.default is not None)
    assert all(f"`{key}`" in meanings for key in UNSUPPORTED)
    assert len(meanings) == len(OPTIONS) + len(UNSUPPORTED) + 3  # the heads of two tables, and the line below


def test_every_field_of_a_configuration() -> None:
    cells = [cells[0] for cells in rows(configuration_page())]
    for field in dataclasses.fields(QuantizationConfig):
        assert any(cell.startswith(anchored(field.name)) for cell in cells)


@pytest.mark.parametrize("method", METHODS.values())
def test_every_setting_of_a_method(method: type) -> None:
    page = finetune_page()
    for field in dataclasses.fields(method):
        assert f'id="{field.name}"' in page
        assert f"`{quark_key(field.name)}`" in page


@pytest.mark.parametrize("kind", [QAT, Losses])
def test_every_setting_of_training(kind: type) -> None:
    page = training_page()
    assert all(f'id="{field.name}"' in page for field in dataclasses.fields(kind))


def test_every_range_method() -> None:
    page = method_page()
    assert all(f'id="{name}"' in page for name in (*RANGES, *WEIGHT_ONLY))
    assert all(f"`{name}`" in page for name in ALIASES)


def test_every_preset() -> None:
    page = preset_page()
    headings = re.findall(r"^## (.+)$", page, re.M)
    for name in PRESETS:
        assert name in headings or f"| <code>{in_words(name)}</code> |" in page


def test_every_target_and_its_operators() -> None:
    page, sections = target_page(), operator_page().split("\n## ")
    assert all(f"| `{name}` |" in page for name in (*TARGETS, *PAIRS))
    for name, target in TARGETS.items():
        (section,) = [part for part in sections if name in part.partition("\n")[0].split(", ")]
        assert {cells[0].strip("`") for cells in rows(section)[2:]} == target.ops.keys()


def test_every_command_and_its_flags() -> None:
    page = command_page()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        section = page[page.index(f"\n## {name}\n") :].split("\n## ")[1]
        for parameter in command.params:
            flags = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
            assert all(f"`{flag}" in section for flag in flags)
    assert "\nquark-onnx quantize MODEL -o FILE [OPTIONS]\n" in page


def test_every_public_name_and_every_example() -> None:
    assert all(f"::: quark_onnx.{name}\n" in api_page("quark_onnx") for name in quark_onnx.__all__)
    assert "::: quark_onnx.ort.quantize.quantize\n" in api_page("quark_onnx.ort"), "the function, not its module"
    assert all(api_page(module).startswith(f"# {module}\n") for module in MODULES)
    assert all(f"\n## {file.name}\n" in example_page() for file in (ROOT / "examples").glob("*.py"))


def test_two_columns_are_fields() -> None:
    text = "What.\n\none, two  of both,\n          and more\nthree     alone\n\n    more  code\nThe end, it has  two."
    assert fields_of(text) == {"one": "of both, and more", "two": "of both, and more", "three": "alone", "more": "code"}
    assert as_markdown(text) == (
        "What.\n\n- `one`, `two`: of both, and more\n- `three`: alone\n\n    more  code\nThe end, it has  two."
    )


def test_arguments_that_share_a_line() -> None:
    text = "What.\n\nArgs:\n    one, two: of both,\n        and more\n    three: alone"
    assert one_by_one(text) == (
        "What.\n\nArgs:\n    one: of both,\n        and more\n    two: of both,\n        and more\n    three: alone"
    )


def test_text_in_cells() -> None:
    assert prose("a {x: {y}} <b> `{z}` 2*3") == r"a `{x: {y}}` &lt;b> `{z}` 2\*3"
    assert table(("a", "b"), [("|x|", "`y|z`")]).splitlines()[2] == r"| \|x\| | `y\|z` |"


def test_code_is_left_as_it_is() -> None:
    text = "[`a`](../SECURITY.md) `[a](../SECURITY.md)`\n\n```md\n[a](../SECURITY.md)\n```\n"
    assert rewritten(text, "zoo.md", HOME, SITE) == text.replace("../SECURITY.md", "security.md", 1)


@pytest.mark.parametrize(
    ("link", "page", "there"),
    [
        ("zoo.md#limits", "reports.md", "zoo.md#limits"),
        ("../processors.md", "decisions/019.md", "../processors.md"),
        ("../CONTRIBUTING.md", "start.md", "contributing.md"),
        ("../examples/read_the_plan.py", "start.md", "examples.md#read_the_planpy"),
        ("../benchmarks/zoo.py", "zoo.md", f"{HOME}/blob/main/benchmarks/zoo.py"),
        ("docs/zoo.md", "contributing.md", "zoo.md"),
        ("results/", "benchmarks.md", f"{HOME}/tree/main/benchmarks/results"),
        (f"{HOME}/raw/main/docs/images/a.png", "index.md", "images/a.png"),
        (f"{HOME}/blob/main/SECURITY.md#models", "index.md", "security.md#models"),
        (f"{HOME}/issues", "index.md", f"{HOME}/issues"),
        (f"{SITE}/reference/options/#NumBins", "decisions/019.md", "../reference/options.md#NumBins"),
        (f"{SITE}/", "start.md", "index.md"),
        ("#here", "start.md", "#here"),
        ("https://elsewhere.org/x.md", "start.md", "https://elsewhere.org/x.md"),
    ],
)
def test_links_of_the_files_are_those_of_the_site(link: str, page: str, there: str) -> None:
    assert on_site(link, page, HOME, SITE) == there


def test_what_a_page_fetches_is_seen() -> None:
    home = (
        '<link rel="canonical" href="https://site/"><link rel="stylesheet" href="../a.css"><a href="https://b/">b</a>'
    )
    assert fetched(home + '<img src="images/a.png"><pre class="highlight">src="https://b/"</pre>') == []
    loaded = '<script async src="//a/b.js"></script><img alt="c" src="https://c/c.png"><link href="http://d/">'
    assert fetched(loaded) == ["//a/b.js", "https://c/c.png", "http://d/"]
    assert len(fetched('<pre class="mermaid"></pre><a data-md-component="source">')) == 2
