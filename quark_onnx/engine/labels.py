"""The user's labels: one row for each calibration sample, which travels in the feeds as what a mask of the user's does.

labels (N, …) ─ as many rows as there are samples ─▶ feed[LABELS], rows in the order of the feed's samples
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quark_onnx.core.errors import DataError, reading
from quark_onnx.core.resource_faults import let_out
from quark_onnx.engine.array_likes import Array, array_of
from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.kept_feeds import Kept

LABELS = "<labels>"
"""Where labels are in a feed; no input of a model is called that."""

WHAT_TO_PASS = (
    "pass an array of one row for each calibration sample, in their order, or a .npy file of it: class ids as "
    "integers, or numbers that an output is to become"
)


def opened_labels(source: object) -> Array:
    """The labels in an array of any library, a list, or a .npy file: integers, or finite float32.

    Raises:
        DataError: they cannot be read, or are not one array of numbers with a row for each sample.
    """
    if isinstance(source, (str, os.PathLike)):
        labels, who = _of_file(Path(source).expanduser())
    else:
        labels, who = _of_value(source), "the labels"
    if labels.dtype.kind not in "iubf":
        ids = "; class names become ids by np.unique(names, return_inverse=True)[1]"
        raise DataError(f"{who} are {labels.dtype}, not numbers{ids if labels.dtype.kind in 'OUST' else ''}")
    if not labels.ndim or not labels.size:
        raise DataError(f"{who} have the shape {labels.shape}, which holds no sample; {WHAT_TO_PASS}")
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    if not (fine := np.isfinite(labels)).all():
        first = np.argwhere(~fine)[0].tolist()
        raise DataError(f"{who} hold {labels[tuple(first)]} at {first}; leave such samples out, and their labels")
    return labels.astype(np.float32)


def _of_file(file: Path) -> tuple[Array, str]:
    if file.suffix.lower() != ".npy":
        raise DataError(f"the labels {file} are not a .npy file; save them with numpy.save, or {WHAT_TO_PASS}")
    with reading(f"the labels {file}", DataError, "save one plain array with numpy.save"):
        return np.load(file, allow_pickle=False), f"the labels {file}"


def _of_value(source: object) -> Array:
    try:
        return array_of(source)
    except Exception as error:  # another library's may be anything
        let_out(error)
        raise DataError(f"the labels are not one array ({error}); {WHAT_TO_PASS}") from error


def labels_spec(labels: Array) -> InputSpec:
    """The labels as what samples hold besides the inputs. Class ids along positions may be cut with these."""
    others = labels.shape[1:] if labels.dtype.kind == "f" else (None,) * (labels.ndim - 1)
    return InputSpec(LABELS, labels.dtype, (None, *others))


def labelled(feeds: Kept, rows: Sequence[int], labels: Array, *, limited: bool) -> Kept:
    """The feeds with the labels of their samples.

    Args:
        rows: samples in each feed.
        limited: not all samples are read, so that labels of others may follow.

    Raises:
        DataError: there are not as many labels as samples.
    """
    count = sum(rows)
    if len(labels) < count or (len(labels) > count and not limited):
        first = "first " if limited else ""
        feeds_told = f" in {len(feeds)} feeds" if len(feeds) != count else ""
        raise DataError(
            f"there are {len(labels)} labels, and the {first}{count} samples{feeds_told} need one each; {WHAT_TO_PASS}"
        )
    ends = np.cumsum(rows)
    return feeds.beside(LABELS, [labels[end - row : end] for end, row in zip(ends, rows, strict=True)])
