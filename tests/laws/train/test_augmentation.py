"""Flips and crops: pictures become others of the same things, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.errors import ConfigError
from quark_onnx.engine.data_sources import InputSpec
from quark_onnx.engine.labels import LABELS
from quark_onnx.stages.train.augmentation import flips_and_crops

F32 = np.dtype(np.float32)
NCHW = InputSpec("x", F32, (None, 3, 8, 6))


def seeded(seed):
    return np.random.default_rng(seed)


def augmented(feed, seed, flip=False, crop=0.0, spec=NCHW):
    return flips_and_crops([spec], None, flip=flip, crop=crop)(feed, seeded(seed))


def picture(dtype=np.float32):
    return seeded(0).integers(0, 255, (1, 3, 8, 6)).astype(dtype)


def test_a_flip_is_a_mirror_image_or_the_same():
    x = picture()
    found = [augmented({"x": x}, seed, flip=True)["x"] for seed in range(20)]
    mirrored = [np.array_equal(each, x[..., ::-1]) for each in found]
    assert all(a or np.array_equal(each, x) for a, each in zip(mirrored, found, strict=True))
    assert 4 < sum(mirrored) < 16


@given(st.integers(0, 1000), st.integers(1, 3))
def test_pixels_of_padding_shift_the_picture(seed, around):
    x = picture()
    found = augmented({"x": x}, seed, crop=around)["x"]
    padded = np.pad(x, ((0, 0), (0, 0), (around,) * 2, (around,) * 2), mode="edge")
    parts = [padded[..., i : i + 8, j : j + 6] for i in range(2 * around + 1) for j in range(2 * around + 1)]
    assert any(np.array_equal(found, part) for part in parts)


def test_every_shift_comes_up():
    x = picture()
    found = {augmented({"x": x}, seed, crop=1)["x"].tobytes() for seed in range(200)}
    assert len(found) == 9


@given(st.integers(0, 1000), st.floats(0.3, 0.99))
def test_a_part_of_a_slope_is_a_slope(seed, share):
    """Bilinear is exact on what is linear, but for the half pixel at the border, which goes on as it is."""
    slope = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (1, 3, 8, 6))
    found = augmented({"x": slope}, seed, crop=share)["x"]
    steps = np.diff(found[0, 0, 1:-1, 0])
    assert np.ptp(steps) < 1e-5 and share - 1e-5 <= steps[0] <= 1  # values to 8 have roundings of 5e-7
    assert found.min() >= 0 and found.max() <= 7 and np.ptp(found, axis=3).max() == 0


def test_integers_stay_integers_and_constants_stay_constant():
    flat = np.full((1, 3, 8, 6), 200, np.uint8)
    spec = InputSpec("x", np.dtype(np.uint8), (None, 3, 8, 6))
    found = augmented({"x": flat}, 3, flip=True, crop=0.5, spec=spec)["x"]
    assert found.dtype == np.uint8 and (found == 200).all()


def test_channels_may_stand_last_and_other_arrays_stay():
    x, ids = picture().transpose(0, 2, 3, 1), np.arange(4)
    feed = {"x": x, "ids": ids, LABELS: np.array([3])}
    found = augmented(feed, 5, crop=2, spec=InputSpec("x", F32, (1, 8, 6, 3)))
    same = augmented({"x": x.transpose(0, 3, 1, 2)}, 5, crop=2)
    assert np.array_equal(found["x"].transpose(0, 3, 1, 2), same["x"])
    assert found["ids"] is ids and found[LABELS] is feed[LABELS]


def test_pictures_of_one_sample_move_alike():
    specs = [InputSpec(name, F32, (None, 1, 8, 6)) for name in "ab"]
    x = picture()[:, :1]
    found = flips_and_crops(specs, None, flip=True, crop=0.5)({"a": x, "b": x}, seeded(2))
    assert np.array_equal(found["a"], found["b"]) and not np.array_equal(found["a"], x)


def test_nothing_asked_is_nothing():
    assert flips_and_crops([NCHW], None, flip=False, crop=0) is None


@pytest.mark.parametrize("shape", [(None, 16), (None, 3, 8), (None, 64, 8, 6), None])
def test_what_is_no_picture_is_not_flipped(shape):
    with pytest.raises(ConfigError, match=r"flip is for pictures.* `augment`"):
        flips_and_crops([InputSpec("x", F32, shape)], None, flip=True, crop=0)


@pytest.mark.parametrize("labels", [np.zeros((5, 8, 6), np.int64), np.full((5, 4), 3.0, np.float32)])
def test_labels_of_places_would_have_to_move_along(labels):
    with pytest.raises(ConfigError, match="crop moves what is in a picture"):
        flips_and_crops([NCHW], labels, flip=False, crop=2)


@pytest.mark.parametrize("labels", [np.arange(5), np.full((5, 4), 0.25, np.float32)])
def test_labels_of_whole_pictures_stay(labels):
    assert flips_and_crops([NCHW], labels, flip=False, crop=2) is not None


def test_there_are_no_parts_of_pixels() -> None:
    with pytest.raises(ConfigError, match=r"crop is 2\.5; give whole pixels, or a part of the side below 1"):
        flips_and_crops([NCHW], None, flip=True, crop=2.5)
