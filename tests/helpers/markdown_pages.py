"""README, the docs and what else is written in Markdown, by path in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
}
