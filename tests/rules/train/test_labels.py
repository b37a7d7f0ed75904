"""Labels: read from what the user has, one for each sample, and refused with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_encoders import encoder, sentences
from text_models import text_model

from quark_onnx.core.errors import DataError
from quark_onnx.core.settings.presets import get_default_config
from quark_onnx.engine.held_out_probes import Samples, read
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import samples_in
from quark_onnx.engine.labels import LABELS, opened_labels
from quark_onnx.opened_job import open_job

TEXT = "g (float[N,2] x) => (float[N,2] y) { [r] y = Relu (x) }"


def split(data: object, labels: object, limit: int | None = None, text: str = TEXT) -> Samples:
    job = open_job(text_model(text), get_default_config("XINT8"))
    return read(samples_of(job.model, data, limit=limit), job.plain, None, opened_labels(labels))


def numbered(count: int, rows: int = 1) -> list[dict[str, np.ndarray]]:
    x = np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, 1)
    return [{"x": x[i : i + rows]} for i in range(0, count, rows)]


def belongs(samples: Samples) -> int:
    """How many samples have the label that is theirs; all, or the test fails."""
    feeds = [feed for part in (samples.taught, samples.probes if samples.held_out else ()) for feed in part]
    assert all((feed[LABELS] == 3 * feed["x"][:, 0]).all() for feed in feeds)
    return sum(len(feed[LABELS]) for feed in feeds)


@pytest.mark.parametrize("rows", [1, 7])
def test_labels_stay_with_their_samples(rows: int) -> None:
    samples = split(numbered(50, rows), 3 * np.arange(50))
    assert samples.held_out and belongs(samples) == 50


def test_a_fixed_batch_takes_as_many_labels() -> None:
    text = TEXT.replace("N", "5")
    samples = split(np.repeat(np.arange(50, dtype=np.float32)[:, None], 2, 1), 3 * np.arange(50), text=text)
    assert belongs(samples) == 50 and {samples_in(feed) for feed in samples.taught} == {5}


def test_behind_a_limit_there_may_be_more_labels() -> None:
    assert belongs(split(numbered(60), 3 * np.arange(60), limit=30)) == 30 + 16
    with pytest.raises(DataError, match="there are 20 labels, and the first 46 samples need one each"):
        split(numbered(60), np.arange(20), limit=30)


@pytest.mark.parametrize("count", [49, 51, 5])
def test_each_sample_needs_one(count: int) -> None:
    with pytest.raises(
        DataError, match=rf"there are {count} labels, and the 50 samples in 5 feeds need one each; pass"
    ):
        split(numbered(50, 10), np.arange(count))


def test_labels_of_what_is_padding_go_with_it() -> None:
    """Samples of several lengths become several feeds: class ids of sentences stay, those of words are cut."""
    model, feeds = encoder(), sentences(24, 2)
    job = open_job(model, get_default_config("XINT8"))
    lengths = np.concatenate([feed["mask"].sum(1) for feed in feeds])
    words = np.concatenate([np.where(feed["mask"] > 0, feed["ids"], -1) for feed in feeds])
    for labels in (lengths, words):
        samples = read(samples_of(job.model, feeds), job.plain, job.mask, opened_labels(labels))
        assert samples.counted is not None and len({feed["ids"].shape for feed in samples.taught}) > 1
        for feed in samples.taught:
            wanted = feed["mask"].sum(1) if labels.ndim == 1 else feed["ids"]
            assert np.array_equal(feed[LABELS], wanted)


def test_what_labels_may_be(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.arange(4, dtype=np.uint8))
    for source in (tmp_path / "labels.npy", str(tmp_path / "labels.npy"), [0, 1, 2, 3], (0, 1, 2, 3), np.arange(4)):
        found = opened_labels(source)
        assert found.dtype == np.int64 and found.tolist() == [0, 1, 2, 3]
    assert opened_labels(np.array([[0.5], [1.5]])).dtype == np.float32
    assert opened_labels([True, False]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (["cat", "dog"], r"are <U3, not numbers; class names become ids by np.unique\(names, return_inverse=True\)"),
        ([[1, 2], [3]], "the labels are not one array"),
        ([1j], "complex128, not numbers$"),
        (5, r"the shape \(\), which holds no sample"),
        ([], r"the shape \(0,\), which holds no sample"),
        ([[1.0], [np.nan]], r"hold nan at \[1, 0\]; leave such samples out, and their labels"),
    ],
)
def test_what_they_may_not_be(source: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        opened_labels(source)


def test_files_that_hold_none(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("1\n")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY nothing")
    np.save(tmp_path / "names.npy", np.array(["a", None], object))
    for name, told in {
        "labels.csv": "not a .npy file; save them with numpy.save",
        "absent.npy": "No such file",
        "broken.npy": "save one plain array with numpy.save",
        "names.npy": "save one plain array with numpy.save",
    }.items():
        with pytest.raises(DataError, match=told) as caught:
            opened_labels(tmp_path / name)
        assert name in str(caught.value)
