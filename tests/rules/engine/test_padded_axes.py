"""Where positions lie in a tensor: told by what changes with the padding, whatever the model does to its axes."""

from __future__ import annotations

import numpy as np
from padded_encoders import MEAN, encoder, sentences

from quark_onnx.core.plan import Skip
from quark_onnx.core.settings.presets import get_default_config
from quark_onnx.engine.channel_moments import channel_moments
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.observe import observe
from quark_onnx.engine.padded_axes import padded_axes
from quark_onnx.graph import Model
from quark_onnx.graph.mask_inputs import MaskInput
from quark_onnx.opened_job import open_job

MASK = MaskInput("mask", "zero")
SHAPES = """x0 = Identity (x) turned = Transpose <perm = [0,2,1]> (x0) flat = Reshape (x0, wide)
    front = Transpose <perm = [1,0,2]> (x0) whole = ReduceMean <axes = [0,1,2], keepdims = 0> (x0)
    square = MatMul (x0, across) r = Unsqueeze (square, one)"""
TENSORS = ["x0", "turned", "flat", "front", "whole", "square", "s", "p", "c", "y", "pooled", "rows", "ids", "mask"]


def opened(**how: object) -> Model:
    how = {"batch": 1, "length": 16, "extra": SHAPES, "head": "float[12,16] across, ", **how}
    model = encoder(**how)  # type: ignore[arg-type]
    return open_job(model, get_default_config("XINT8")).plain


def axes(feed: dict[str, np.ndarray], **how: object) -> dict[str, tuple[int, ...]]:
    across = np.random.default_rng(3).standard_normal((12, 16)).astype(np.float32)
    return padded_axes(opened(**how), TENSORS, feed | {"across": across}, MASK)[0]


SHARED = {"x0": (1,), "turned": (2,), "square": (1,), "s": (1, 2), "p": (1,), "c": (1,), "y": (1,), "ids": (1,)}


def test_axes_of_a_sample() -> None:
    assert axes(sentences(1)[0]) == SHARED | {"flat": (0,), "front": (0,)}
    assert axes(sentences(1, left=True)[0]).items() >= SHARED.items()


def test_axes_of_a_batch() -> None:
    assert axes(sentences(1, batch=3)[0], batch=3, extra=SHAPES[: SHAPES.index("r = ")]) == SHARED


def test_what_padding_changes_everywhere_counts_everywhere() -> None:
    assert "pooled" not in axes(sentences(1)[0], pool=MEAN)
    open_to_all = axes(sentences(1)[0], padding="none")
    assert open_to_all["x0"] == (1,)
    assert open_to_all.keys().isdisjoint({"p", "c", "y"})


def test_padding_is_left_out_of_statistics() -> None:
    """As if the feeds had been cut: the same counts, as far as kernels add up in one order."""
    fixed, bare = (open_job(encoder(1, length), get_default_config("XINT8")).prepared for length in (16, "T"))
    feeds, names = sentences(), ["x", "kt", "c", "y", "pooled"]
    counted = Counted(MASK, 0.3, Skip("fixed")).within(fixed, names, feeds, asked=False)
    found = observe(fixed, feeds, names, lambda done: None, counted=counted)
    cut = [{name: array[:, feed["mask"][0] > 0] for name, array in feed.items()} for feed in feeds]
    wanted = observe(bare, cut, names, lambda done: None)
    for name in names:
        assert found[name].bins.counts.sum() == wanted[name].bins.counts.sum()
        assert np.allclose((found[name].lo, found[name].hi), (wanted[name].lo, wanted[name].hi), rtol=1e-5)
    seen, means = [("c", 2), ("kt", 1), ("ids", 1)], [("c", 2), ("kt", 1)]
    one = channel_moments(fixed, feeds, seen, lambda done: None, counted)
    two = channel_moments(bare, cut, means, lambda done: None)
    assert one.keys() == two.keys() == set(means)
    assert all(np.allclose(one[key], two[key], rtol=1e-4, atol=1e-5) for key in means)
    every = observe(fixed, feeds, names, lambda done: None)
    assert every["y"].bins.counts.sum() == 12 * 16 * 12 > found["y"].bins.counts.sum()
