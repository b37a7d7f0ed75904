"""Batches: every sample once in an epoch, in an order that depends on nothing but the seed and the epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.errors import DataError
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.labels import LABELS
from quark_onnx.stages.train.batches import Batches


def samples(count, rows=1, limit=1 << 20):
    """Feeds that hold 0, 1, 2, … with labels that are ten times as large."""
    feeds = []
    for start in range(0, count, rows):
        x = np.arange(start, min(start + rows, count), dtype=np.float32)[:, None]
        feeds.append({"x": x, LABELS: 10 * x[:, 0].astype(np.int64)})
    return keep(feeds, limit)


def numbers(shards):
    return [int(value) for shard in shards for value in shard["x"][:, 0]]


def all_of(epoch):
    return [[{name: array.tolist() for name, array in shard.items()} for shard in batch] for batch in epoch]


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.sampled_from([0, 0.1, 0.5]))
def test_an_epoch_has_every_sample_once_with_its_label(count, batch, shard, rows, holdout):
    made = Batches(samples(count, rows), batch_size=batch, shard=shard, seed=3, holdout=holdout)
    epoch = list(made.epoch(0))
    held = numbers(made.held_out) if holdout else []
    assert sorted(held + [n for shards in epoch for n in numbers(shards)]) == list(range(count))
    assert [len(numbers(shards)) for shards in epoch[:-1]] == [batch] * (len(epoch) - 1)
    assert len(epoch) == len(made) and made.samples == count - len(held)
    for part in [part for shards in [*epoch, made.held_out] for part in shards]:
        assert (part[LABELS] == 10 * part["x"][:, 0]).all() and len(part["x"]) <= shard


@given(st.integers(2, 40), st.integers(0, 5))
def test_whoever_begins_in_the_middle_meets_the_same_batches(count, first):
    def augment(feed, chance):
        return {**feed, "x": feed["x"] + chance.random(feed["x"].shape, np.float32)}

    made, again = (Batches(samples(count), batch_size=5, shard=2, seed=1, augment=augment) for _ in range(2))
    assert all_of(made.epoch(4))[first:] == all_of(again.epoch(4, first))


def test_neither_rows_of_feeds_nor_files_change_the_batches():
    want = all_of(Batches(samples(30), batch_size=8, shard=4, seed=0).epoch(1))
    for feeds in (samples(30, 7), samples(30, 30), samples(30, limit=0), samples(30, 7, limit=0)):
        assert all_of(Batches(feeds, batch_size=8, shard=4, seed=0).epoch(1)) == want


def test_epochs_seeds_and_augmentations_differ():
    def noisy(feed, chance):
        return {**feed, "x": chance.random(feed["x"].shape, np.float32)}

    def order(seed, epoch):
        made = Batches(samples(40), batch_size=40, shard=40, seed=seed, holdout=0)
        return numbers(next(made.epoch(epoch)))

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    noise = Batches(samples(40), batch_size=40, shard=40, seed=0, augment=noisy)
    values = [shard["x"].tobytes() for epoch in (0, 1) for [shard] in noise.epoch(epoch)]
    assert values[0] != values[1] and len(np.unique(np.frombuffer(values[0], np.float32))) == noise.samples


def test_without_held_out_samples_those_that_are_trained_on_judge() -> None:
    made = Batches(samples(20), batch_size=4, shard=3, seed=0, holdout=0, augment=lambda feed, _: feed)
    assert sorted(numbers(made.held_out)) == list(range(20)) and made.judges == made.samples == 20


def test_held_out_samples_are_never_augmented():
    made = Batches(samples(20), batch_size=4, shard=2, seed=0, augment=lambda feed, _: {**feed, "x": feed["x"] - 99})
    assert min(numbers(made.held_out)) >= 0 and len(numbers(made.held_out)) == 2
    assert max(numbers(shards)[0] for shards in made.epoch(0)) < 0


def test_samples_of_other_shapes_do_not_run_together():
    feeds = keep([{"x": np.zeros((1, 2 + i % 3), np.float32)} for i in range(20)])
    shapes = [shard["x"].shape for shards in Batches(feeds, batch_size=9, shard=4, seed=0).epoch(0) for shard in shards]
    assert sum(rows for rows, _ in shapes) == 18 and max(rows for rows, _ in shapes) > 1
    assert {columns for _, columns in shapes} == {2, 3, 4}


@pytest.mark.parametrize(
    ("sizes", "known"),
    [
        ([(1, 3, 8, 6), (1, 3, 8, 6)], (None, 3, 8, 6)),
        ([(1, 3, 8, 6), (1, 3, 4, 6), (1, 3, 8, 6)], (None, 3, None, 6)),
        ([(2, 3), (1, 3)], (None, 3)),
        ([(1, 3), (1, 3, 1)], None),
        ([(), ()], None),
    ],
)
def test_sizes_that_all_samples_have_are_known(sizes, known):
    feeds = keep(({"x": np.zeros(size, np.float32)} for size in sizes), 1 << 20)
    assert Batches(feeds, batch_size=2, shard=1, seed=0).shapes.get("x") == known


def test_feeds_stay_whole_where_they_cannot_run_together():
    made = Batches(samples(12, 3), batch_size=2, shard=8, seed=0, holdout=0, batched=False)
    batches = list(made.epoch(0))
    assert [len(shards) for shards in batches] == [2, 2]
    assert all(len(shard["x"]) == 3 for shards in batches for shard in shards)


def test_an_input_without_rows_of_its_own_keeps_a_feed_whole():
    feeds = keep([{"x": np.zeros((4, 2), np.float32), "threshold": np.float32([0.5])}] * 3)
    assert [len(shards) for shards in Batches(feeds, batch_size=3, shard=1, seed=0, holdout=0).epoch(0)] == [3]


@pytest.mark.parametrize(
    ("augment", "told"),
    [
        (lambda feed, _: {**feed, "x": feed["x"] * np.float32(np.nan)}, "nan or inf of 'x'"),
        (lambda feed, _: {**feed, "x": feed["x"] + np.float32(np.inf)}, "nan or inf of 'x'"),
        (lambda feed, _: feed["x"], "made ndarray of a sample"),
        (lambda feed, _: {"x": feed["x"]}, "return a dictionary of the same"),
        (lambda feed, _: {**feed, "x": feed["x"][:, :0]}, r"made float32 \(1, 0\) of 'x'"),
        (lambda feed, _: {**feed, "x": feed["x"].astype(float)}, "made float64"),
    ],
)
def test_what_an_augmentation_makes_must_be_a_sample(augment, told):
    with pytest.raises(DataError, match=told):
        next(Batches(samples(4), batch_size=2, shard=2, seed=0, augment=augment).epoch(0))


def test_no_sample_cannot_be_trained_on():
    with pytest.raises(DataError, match="no sample to train on"):
        Batches(keep([]), batch_size=2, shard=2, seed=0)
