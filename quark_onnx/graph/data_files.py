"""The weights of a model that is written, in a file beside it: `NAME.HASH.data`, by what is in it.

    data in place ─▶ model in place ─▶ earlier data gone

A model and its data are two files, and the model says which data it means. So it is the model that counts: until it is
replaced the old one stands with its own data, from then on the new one with those that are there already.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from quark_onnx.graph.model_files import tensors

WRITTEN = "weights"
"""The file that data are written to at first, beside the model."""

DIGITS = 12
_HASH = re.compile(rf"[0-9a-f]{{{DIGITS}}}")
_CHUNK = 1 << 20


def put_beside(model: Path, target: Path) -> set[Path]:
    """Move the data of a model that is still in a temporary folder to where it belongs, and have the model say so.

    Returns:
        The file of the data, if there is any: small weights are in the model itself.
    """
    written = model.with_name(WRITTEN)
    if not written.exists():
        return set()
    data = target.with_name(f"{target.name}.{_hash(written)}.data")
    proto = onnx.load(model, load_external_data=False)
    for tensor in tensors(proto.graph):
        for entry in tensor.external_data if uses_external_data(tensor) else ():
            if (entry.key, entry.value) == ("location", WRITTEN):
                entry.value = data.name
    onnx.save(proto, model)
    os.replace(written, data)
    return {data.resolve()}


def clear(model: Path, spared: Collection[Path]) -> None:
    """Remove data of what was at `model` before, or of a process that was killed; not those that are `spared`."""
    for name in glob.glob(f"{glob.escape(str(model))}.*.data"):
        digest = name[len(str(model)) + 1 : -len(".data")]
        if _HASH.fullmatch(digest) and Path(name).resolve() not in spared:
            with contextlib.suppress(OSError):  # it may be open elsewhere
                os.remove(name)


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while part := data.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()[:DIGITS]
