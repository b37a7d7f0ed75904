"""The calibration cache: statistics in one file, used only for the model, the data and the kind they were made of.

onnxruntime's own cache has no such key: it serves the ranges of one model and data set to any other that has tensors of
the same names. Statistics do not depend on the range method: with another one the same file is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from quark_onnx.core.atomic_files import behind_links, new_file
from quark_onnx.core.errors import ConfigError, reason
from quark_onnx.core.json_reading import json_of
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.labels import LABELS
from quark_onnx.graph import Model, io
from quark_onnx.numerics.ranges.calibration_statistics import Bins, Statistics
from quark_onnx.numerics.ranges.octave_counts import BINS

logger = logging.getLogger("quark_onnx")

Observed = dict[str, Statistics]


@dataclass(frozen=True)
class Key:
    """What statistics belong to.

    model  fingerprint of the float model that was observed
    data   hash of all feeds, in their order
    kind   what was kept of the data, see `kind_of`
    """

    model: str
    data: str
    kind: str

    @classmethod
    def of(cls, model: Model, feeds: Iterable[Feed], moving: float | None, counted: Counted | None = None) -> Key:
        """The key of what `observe` would return for these arguments."""
        return cls(io.fingerprint(model), data_hash(feeds), kind_of(moving, counted))


def data_hash(feeds: Iterable[Feed]) -> str:
    """A hash of the names, shapes, types and bytes of all feeds but for labels; one array at a time is looked at."""
    digest = hashlib.sha256()
    for index, feed in enumerate(feeds):
        for name in sorted(feed.keys() - {LABELS}):
            array = feed[name]
            digest.update(f"\n{index} {name!r} {array.dtype} {array.shape} ".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return digest.hexdigest()[:16]


def kind_of(moving: float | None, counted: Counted | None = None) -> str:
    """The statistic in words; the range method is no part of it, since all methods look at the same statistics."""
    average = "" if moving is None else f", moving average with constant {moving!r}"
    return f"histogram of {BINS} bins{average}" + ("" if counted is None else f", of what {counted.mask.name!r} counts")


def usable(path: str | Path | None) -> Path | None:
    """The path of a cache, found fit before any work is done: it will be overwritten where it cannot be used.

    Raises:
        ConfigError: it does not end with .npz, cannot be written, or is an archive of something else, such as samples.
    """
    if path is None:
        return None
    file = Path(path)
    below = next(parent for parent in behind_links(file).absolute().parents if parent.exists())
    if not below.is_dir() or not os.access(below, os.W_OK):
        raise ConfigError(f"the calibration cache {file} cannot be written: {below} is not a folder you may write to")
    if file.suffix != ".npz" or file.is_dir():
        raise ConfigError(f"the calibration cache {file} must be a file that ends with .npz; choose such a name")
    try:
        with zipfile.ZipFile(file) as archive:
            foreign = f"{_HEADER}.npy" not in archive.namelist()
    except Exception:  # not there yet, or damaged
        return file
    if foreign:
        raise ConfigError(f"{file} holds arrays, but no calibration cache; choose another name for the cache")
    return file


def remembered(path: Path, key: Key, tensors: Sequence[str], look: Callable[[], Observed]) -> Observed:
    """The statistics of `tensors` in the cache; where it does not fit, those that `look` finds, which it then holds.

    A file that cannot be used is overwritten, and a warning logged that says why.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        found = _chosen(path, key, tensors)
        logger.info("statistics of %d tensors come from the calibration cache %s", len(found), path)
        return found
    except FileNotFoundError:
        pass
    except _Unfit as error:
        logger.warning("the calibration cache %s is not used and will be overwritten: %s", path, error)
    found = look()
    _write(path, key, found)
    return found


_HEADER = "calibration_cache"


class _Unfit(Exception):
    """Why a cache is not used."""


def _chosen(path: Path, key: Key, tensors: Sequence[str]) -> Observed:
    try:
        held, statistics = _read(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _Unfit(f"it is damaged ({reason(error)})") from error
    names = {"model": "another model", "data": "other data", "kind": "another kind of statistics"}
    if differing := [names[f.name] for f in fields(key) if getattr(held, f.name) != getattr(key, f.name)]:
        raise _Unfit(f"it was made with {' and '.join(differing)}")
    if missing := [name for name in tensors if name not in statistics]:
        raise _Unfit(f"it lacks {len(missing)} of {len(tensors)} tensors, the first is {missing[0]!r}")
    return {name: statistics[name] for name in tensors}


def _write(path: Path, key: Key, statistics: Mapping[str, Statistics]) -> None:
    """The bins of all tensors in a row."""
    bins = [s.bins for s in statistics.values()]
    arrays: dict[str, Any] = {
        _HEADER: np.array(json.dumps({"key": asdict(key), "tensors": list(statistics)})),
        "ends": np.array([(s.lo, s.hi) for s in statistics.values()], np.float64),
        "sizes": np.array([part.filled.size for part in bins], np.int64),
        "bins": np.concatenate([part.filled for part in bins]).astype(np.uint32),
        "counts": np.concatenate([part.counts for part in bins]).astype(np.int64),
    }
    with new_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read(path: Path) -> tuple[Key, Observed]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    header = json_of(str(arrays[_HEADER]))
    if (wrong := _wrong(arrays, len(header["tensors"]))) is not None:
        raise ValueError(wrong)
    cuts = np.cumsum(arrays["sizes"])[:-1]
    parts = zip(np.split(arrays["bins"], cuts), np.split(arrays["counts"], cuts), strict=True)
    rows = zip(header["tensors"], arrays["ends"].tolist(), parts, strict=True)
    return Key(**header["key"]), {name: Statistics(lo, hi, _bins(*part)) for name, (lo, hi), part in rows}


def _wrong(arrays: Mapping[str, Any], tensors: int) -> str | None:
    """What statistics cannot be, as an array was changed or damaged; None: all can be."""
    ends, sizes, bins, counts = (arrays[name] for name in ("ends", "sizes", "bins", "counts"))
    if ends.shape != (tensors, 2) or not np.isfinite(ends).all() or (ends[:, 0] > ends[:, 1]).any():
        return "ends of ranges that are not finite, or not in order"
    if any(array.dtype.kind not in "iu" or array.ndim != 1 for array in (sizes, bins, counts)):
        return "sizes, bins or counts that are no rows of whole numbers"
    if (sizes < 0).any() or not sizes.sum() == bins.size == counts.size or sizes.size != tensors:
        return "sizes that do not add up"
    if (counts < 1).any() or (bins < 0).any() or (bins >= BINS).any():
        return "counts below 1, or of bins that there are not"
    inside = np.setdiff1d(np.arange(1, bins.size), np.cumsum(sizes))
    return "bins that are not in order" if (bins[inside] <= bins[inside - 1]).any() else None


def _bins(filled: Any, counts: Any) -> Bins:
    dense = np.zeros(BINS, np.int64)
    dense[filled] = counts
    return Bins.of(dense)
