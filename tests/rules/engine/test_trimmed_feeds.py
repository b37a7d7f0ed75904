"""Feeds without their padding: cut where that changes nothing, and left alone where it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from padded_encoders import FIRST, LAST, MEAN, bare, encoder, sentences

from quark_onnx.core.plan import Skip
from quark_onnx.core.settings.presets import get_default_config
from quark_onnx.engine.runner import input_specs
from quark_onnx.engine.trimmed_feeds import Trimming, trimming
from quark_onnx.graph.mask_inputs import MaskInput
from quark_onnx.opened_job import open_job

Feeds = list[dict[str, np.ndarray]]


def cut(model: onnx.ModelProto, feeds: Feeds, mask: MaskInput | None = None) -> Trimming | Skip:
    """With the mask that the graph shows, or another one."""
    job = open_job(model, get_default_config("XINT8"))
    found = mask or job.mask
    assert found is not None
    return trimming(job.plain, input_specs(job.plain), feeds, found)


def same(found: Any, wanted: Feeds) -> bool:
    return len(found) == len(wanted) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(found, wanted, strict=True)
    )


TURNED: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "int64": ("zero", lambda mask: mask),
    "bool": ("nonzero", lambda mask: mask == 0),
    "float": ("low", lambda mask: np.where(mask == 0, np.float32(-np.inf), np.float32(0))),
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", TURNED)
def test_padding_is_cut_off(kind: str, left: bool) -> None:
    padding, turned = TURNED[kind]
    feeds = [feed | {"mask": turned(feed["mask"])} for feed in sentences(left=left)]
    found = cut(encoder(padding=padding, kind=kind, pool=LAST if left else FIRST), feeds)
    assert isinstance(found, Trimming)
    assert found.outputs == {"y": (1,)}
    assert same(found(feeds), [feed | {"mask": turned(feed["mask"])} for feed in bare(sentences(left=left))])


def test_samples_of_a_batch_go_apart_by_their_length() -> None:
    feeds = sentences(4, batch=3)
    found = cut(encoder(), feeds)
    assert isinstance(found, Trimming)
    made = found(feeds)
    assert all((feed["mask"] == 1).all() for feed in made)
    rows = sorted(tuple(row) for feed in made for row in feed["ids"])
    assert rows == sorted(tuple(feed["ids"][0]) for feed in bare(feeds))


def test_a_fixed_batch_is_cut_to_its_longest() -> None:
    feeds = sentences(4, batch=3)
    found = cut(encoder(batch=3), feeds)
    assert isinstance(found, Trimming)
    longest = [int(feed["mask"].sum(1).max()) for feed in feeds]
    assert [feed["ids"].shape for feed in found(feeds)] == [(3, size) for size in longest]


def test_samples_without_a_position_are_left_out() -> None:
    feeds = sentences(3, batch=3)
    feeds[0]["mask"][1] = 0
    found = cut(encoder(), feeds)
    assert isinstance(found, Trimming)
    assert sum(len(feed["ids"]) for feed in found(feeds)) == 8
    lost = [feed | {"mask": 0 * feed["mask"]} for feed in sentences(1)]
    assert same(found(lost), lost)  # a mask that leaves nothing is none


def test_what_lies_beside_the_tokens_is_cut_with_them() -> None:
    head, extra = (
        "int64[{B},{T}] kinds, float[{T},12] places_, float limit, ",
        "t = Gather (table, kinds) u = Add (x, t) w = Add (u, places_) x0 = Mul (w, limit)",
    )
    more = {
        "kinds": np.ones((1, 16), np.int64),
        "places_": np.ones((16, 12), np.float32),
        "limit": np.array(1, np.float32),
    }
    feeds = [feed | more for feed in sentences()]
    found = cut(encoder(head=head, extra=extra), feeds)
    assert isinstance(found, Trimming)
    for feed, size in zip(found(feeds), (int(feed["mask"].sum()) for feed in feeds), strict=True):
        assert {name: array.shape for name, array in feed.items()} == {
            "ids": (1, size), "mask": (1, size), "kinds": (1, size), "places_": (size, 12), "limit": ()
        }  # fmt: skip


def test_flattened_rows_are_cut_too() -> None:
    extra = "dims = Shape (x) flat = Reshape (x, wide) g = Gemm (flat, wq, bias) x0 = Reshape (g, dims)"
    feeds = sentences()
    found = cut(encoder(extra=extra), feeds)
    assert isinstance(found, Trimming)
    assert same(found(feeds), bare(feeds))


PLACES = """dims = Shape (ids) t = Gather (dims, one) s0 = Constant <value_ints = [0]> ()
    here = Slice (places, s0, t) x0 = Add (x, here)"""
LEFT_ALONE = {
    "a mean over padding": (encoder(pool=MEAN), sentences(), "'pooled' is another one"),
    "the first of left padding": (encoder(), sentences(left=True), "is another one"),
    "places from the left": (encoder(extra=PLACES, pool=LAST), sentences(left=True), "is another one"),
    "fixed length": (encoder(length=16), sentences(), "no dimension open"),
    "fixed length and batch": (encoder(batch=1, length=16), sentences(), "no dimension open"),
}


@pytest.mark.parametrize("way", LEFT_ALONE)
def test_feeds_stay_where_the_model_is_another_one_without(way: str) -> None:
    model, feeds, why = LEFT_ALONE[way]
    found = cut(model, feeds)
    assert isinstance(found, Skip)
    assert why in found.reason


def test_places_from_the_left_are_the_same_with_padding_on_the_right() -> None:
    assert isinstance(cut(encoder(extra=PLACES), sentences()), Trimming)


def test_a_mask_the_wrong_way_round_is_found_out() -> None:
    wrong = cut(encoder(), sentences(), MaskInput("mask", "nonzero"))
    assert isinstance(wrong, Skip)
    assert "is another one" in wrong.reason


def test_what_does_not_run_without_padding_stays() -> None:
    extra = "four = Reshape (x, quads) x0 = Reshape (four, back)"
    model = encoder(extra=extra)
    for name, dims in (("quads", [-1, 4, 4, 12]), ("back", [-1, 16, 12])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(dims), name))
    found = cut(model, sentences())
    assert isinstance(found, Skip)
    assert "does not run without padding" in found.reason
