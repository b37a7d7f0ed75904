"""The environment of a Python process that runs a module of this package in another folder than we are in.

`python -m` looks for modules in its working folder first: that must be one which is ours, not one that others fill.
"""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parents[1]
"""The folder that holds this package."""


def child_environment(**more: str) -> dict[str, str]:
    """Our environment, this package where it is, the paths of modules absolute, and `more` variables."""
    paths = [str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths if path), **more}
