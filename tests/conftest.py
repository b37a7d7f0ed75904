"""For all tests."""

from __future__ import annotations

import os

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it for its workers, and rich takes the first it sees for good
