"""What a recipe is: how one operator gets into a random graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model_builder import Builder


@dataclass(frozen=True)
class Recipe:
    """Adds nodes to a builder, of operator sets from `since` on; `weight`: how often, compared with others."""

    make: Callable[[Builder], Any]
    since: int = 1
    weight: float = 1.0
