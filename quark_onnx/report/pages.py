"""The pages: one HTML file each, with everything in it, and the same content as JSON beside it.

The only home of jinja2, which is optional: `pip install 'quark-onnx[report]'`. All text is escaped; addresses are
relative paths below the page, quoted, so that no name can make another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quark_onnx.core.atomic_files import behind_links, new_file
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.json_writing import json_text, plain
from quark_onnx.core.shown import figures
from quark_onnx.core.version import VERSION
from quark_onnx.core.visible_text import visible
from quark_onnx.engine.result_wording import grade
from quark_onnx.report import drawing, wording
from quark_onnx.report.model_report import ModelReport
from quark_onnx.report.zoo_rows import STATUSES, ZooRow

TEMPLATES = Path(__file__).with_name("templates")


def check_installed() -> None:
    """Raises ConfigError where jinja2 is missing."""
    templates()


def installed() -> bool:
    """Whether pages can be made."""
    return find_spec("jinja2") is not None


def check_target(path: str | Path) -> Path:
    """The path of a page, found usable before any work is done.

    Raises:
        ConfigError: it does not end in .html, or it or its JSON is a folder or a device; or jinja2 is missing.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm") or target.is_dir():
        raise ConfigError(f"a report is an HTML file: give a name that ends in .html, not {str(target)!r}")
    for file in (target, target.with_suffix(".json")):
        behind_links(file)
    check_installed()
    return target


def write_report(report: ModelReport, path: str | Path, *, up: str = "") -> Path:
    """Write the page of a model, and its JSON (`.json` for `.html`), each whole or not at all.

    Args:
        up: path of the zoo's page, relative to this one; empty: there is none.

    Raises:
        ConfigError: jinja2 is missing, or the files cannot be written.
    """
    target = check_target(path)
    data = target.with_suffix(".json")
    write_text(data, json_text(report) + "\n")
    write_text(target, model_page(report, data.name, up))
    return target


def write_zoo(rows: Iterable[ZooRow], path: str | Path, *, title: str = "Model zoo") -> Path:
    """Write the page of a zoo, and its JSON; failures are listed with stage, reason and log.

    Raises:
        ConfigError: jinja2 is missing, or the files cannot be written.
    """
    target, listed = check_target(path), list(rows)
    data = target.with_suffix(".json")
    write_text(data, json_text({"title": title, "version": VERSION, "rows": listed}) + "\n")
    write_text(target, zoo_page(listed, data.name, title))
    return target


def model_page(report: ModelReport, data: str = "", up: str = "") -> str:
    """The page of a model as text; `data`, `up`: relative paths of its JSON and of the zoo's page."""
    charts = {"layers": drawing.layer_chart(report.layers.layers)}
    histograms = [(histogram, drawing.bars(histogram)) for histogram in report.histograms]
    worst = report.layers.worst(len(report.histograms) or 6)
    page = templates().get_template("model.html")
    text = page.render(r=report, charts=charts, histograms=histograms, worst=worst, data=data, up=up, words=wording)
    return str(text)


def zoo_page(rows: Sequence[ZooRow], data: str = "", title: str = "Model zoo") -> str:
    """The page of a zoo as text: failures first, then what is outside its budget, in the given order otherwise."""
    rows = sorted(rows, key=lambda row: STATUSES.index(row.status), reverse=True)
    page = templates().get_template("zoo.html")
    return str(page.render(rows=rows, data=data, title=title, words=wording, version=VERSION))


def write_text(target: Path, text: str) -> None:
    """Write a page or its JSON, whole or not at all."""
    with new_file(target) as path:
        path.write_text(text, encoding="utf-8")


def templates() -> Any:
    """The templates, with figures as filters.

    Raises:
        ConfigError: jinja2 is missing.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise ConfigError("reports need jinja2, which is not installed: pip install 'quark-onnx[report]'") from None
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("size", "milliseconds", "seconds", "percent", "times", "number", "count", "reasons"):
        environment.filters[name] = getattr(figures, name)
    for name in ("db", "whole", "worst", "worth", "classes", "alike", "became", "change"):
        environment.filters[name] = getattr(wording, name)
    environment.filters |= {"address": _address, "code": _code, "grade": grade, "plain": plain}
    return environment


def _shown(value: Any) -> Any:
    """What a template gets of a value. Names may hold anything; what is HTML already was shown before."""
    return visible(value, keep="\n") if type(value) is str else value


def _address(path: str) -> str:
    """A relative address: the leading `./` keeps a name such as `javascript:…` from being a scheme."""
    return "./" + quote(path.replace("\\", "/").lstrip("/"), safe="/", errors="surrogateescape") if path else ""


def _code(text: str) -> Any:
    """Escaped, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    text = visible(text)
    parts = [Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(re.split("`", text))]
    return Markup("").join(parts)
