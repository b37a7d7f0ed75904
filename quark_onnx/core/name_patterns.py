"""Names that a user gives: exact ones, globs (`layer3/*`) and regular expressions (`^conv`)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence

from quark_onnx.core.errors import ConfigError, nearest


def matching(patterns: Sequence[str], names: Collection[str], field: str, kind: str = "node") -> set[str]:
    """The names that one of the patterns takes: exactly, as regular expression (`^…`) or as glob.

    Args:
        field: what the user gave the patterns as, and `kind`: what they name; for messages.

    Raises:
        ConfigError: a pattern takes none, or is no regular expression.
    """
    found: set[str] = set()
    for pattern in patterns:
        if pattern in names:
            matches = {pattern}
        elif pattern.startswith("^"):
            expression = _regex(pattern, field)
            matches = {name for name in names if expression.search(name)}
        else:
            matches = set(fnmatch.filter(names, pattern))
        if not matches:
            raise ConfigError(f"{field}: {pattern!r} matches no {kind} of the model{nearest(pattern, names)}")
        found |= matches
    return found


def _regex(pattern: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{field}: {pattern!r} is not a regular expression: {error}") from error
