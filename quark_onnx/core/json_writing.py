"""Plain values, ready for strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from quark_onnx.core.visible_text import json_visible


def plain(value: Any) -> Any:
    """Dataclasses and mappings become dictionaries, tuples lists.

    JSON has no infinity: it becomes the string "inf" or "-inf", which Python's float() reads; a NaN becomes "nan".
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_text(document: Any) -> str:
    """The document as strict JSON, the same text wherever it goes; what cannot be seen is escaped."""
    return json_visible(json.dumps(plain(document), indent=1, ensure_ascii=False))
