"""Halving finds what makes much noise, and asks no more than it needs."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.engine.output_judge import Worth
from quark_onnx.stages.protect.noise_by_group import HALVINGS, noisy_parts

POWERS = st.lists(st.sampled_from([0.0, 1e-6, 1e-4, 0.02, 0.3]), min_size=1, max_size=40)


def measured(powers: list[float], on: set[str]) -> Worth:
    """Noises that add up."""
    total = sum(powers[int(name)] for name in on)
    return (-10 * math.log10(total) if total else math.inf), "y"


@given(POWERS)
def test_parts_are_those_above_the_limit(powers: list[float]) -> None:
    asked: list[set[str]] = []

    def alone(on: set[str]) -> Worth:
        asked.append(on)
        return measured(powers, on)

    groups = {str(i): [str(i)] for i in range(len(powers))}
    found = noisy_parts(alone, groups, 25.0, lambda part: False)
    loud = {str(i) for i, power in enumerate(powers) if power > 10**-2.5}
    assert loud <= {name for part in found for name in part}
    assert all(measured(powers, set(part))[0] < 25 for part in found)
    assert len(asked) <= 1 + 2 * HALVINGS
    if loud and len(loud) * math.ceil(math.log2(len(powers) + 1)) < HALVINGS:  # each is reached in so many halvings
        assert {(name,) for name in loud} <= set(found)


@given(POWERS)
def test_small_parts_are_not_told_apart(powers: list[float]) -> None:
    groups = {str(i): [str(i)] for i in range(len(powers))}
    found = noisy_parts(lambda on: measured(powers, on), groups, 25.0, lambda part: len(part) <= 4)
    whole = measured(powers, set(groups))
    if len(powers) <= 4:
        assert found == ({tuple(groups): whole} if whole[0] < 25 else {})


def test_nothing_is_measured_without_groups() -> None:
    assert noisy_parts(lambda on: (0.0, "y"), {}, 25.0, lambda part: False) == {}
