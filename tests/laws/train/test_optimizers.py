"""Optimizers and schedules against what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.stages.train.optimizers import Momenta, Optimizer
from quark_onnx.stages.train.schedules import Schedule


def run(optimizer: Optimizer, slopes: list[float], decay: float = 0.0) -> list[float]:
    """Where one number goes from 1."""
    state, past, found = {"a": np.ones(1, np.float32)}, Momenta(), []
    for slope in slopes:
        given = {"a": np.full(1, slope, np.float32)}
        state, past = optimizer.step(state, given, {"a": 0.1}, {"a": decay}, past)
        found.append(float(state["a"][0]))
    return found


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_adams_first_step_is_the_rate_whatever_the_size_of_the_gradient(size: float) -> None:
    assert run(Optimizer("adam", 0.9), [size])[0] == pytest.approx(0.9, abs=1e-3)
    assert run(Optimizer("adam", 0.9), [-size])[0] == pytest.approx(1.1, abs=1e-3)


def test_adam_is_its_formula() -> None:
    slopes, m, v, at = [0.3, -0.2, 0.5], 0.0, 0.0, 1.0
    for k, (slope, found) in enumerate(zip(slopes, run(Optimizer("adam", 0.9), slopes), strict=True), start=1):
        m, v = 0.9 * m + 0.1 * slope, 0.99 * v + 0.01 * slope**2
        at -= 0.1 * (m / (1 - 0.9**k)) / np.sqrt(v / (1 - 0.99**k))
        assert found == pytest.approx(at, rel=1e-5)


def test_sgd_remembers_directions_and_decay_is_taken_off_beside_them() -> None:
    assert run(Optimizer("sgd", 0.5), [1.0, 1.0]) == pytest.approx([0.9, 0.9 - 0.15])
    assert run(Optimizer("sgd", 0.0), [0.0], decay=0.5) == pytest.approx([0.95])
    assert run(Optimizer("adam", 0.9), [0.0], decay=0.5) == pytest.approx([0.95])


def test_arrays_without_a_gradient_stay() -> None:
    state = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    after, past = Optimizer("adam", 0.9).step(state, {"a": np.ones(2, np.float32)}, {"a": 0.1}, {}, Momenta())
    assert after["b"] is state["b"]
    assert past.first.keys() == {"a"}
    assert (state["a"] == 1).all()


def factors(**changes: object) -> list[float]:
    schedule = Schedule.of(QAT(**{"epochs": 10, "warm_up": 0.0, **changes}), 2)  # type: ignore[arg-type]
    return [schedule.factor(step) for step in range(schedule.steps)]


def test_schedules() -> None:
    assert factors(schedule="constant") == [1.0] * 20
    cosine = factors(schedule="cosine")
    assert cosine[0] == 1.0 and cosine[10] == pytest.approx(0.5) and cosine[-1] < 0.01
    assert factors(schedule="step", step_epochs=4, step_factor=0.1)[7:9] == [1.0, 0.1]
    assert factors(schedule="constant", warm_up=0.2)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert len(factors(steps=7)) == 7


def test_held_out_samples_are_looked_at_now_and_then_and_at_the_end() -> None:
    schedule = Schedule.of(QAT(steps=25, check_every=10), 2)
    assert [step for step in range(1, 26) if schedule.checked(step)] == [10, 20, 25]
    few = Schedule.of(QAT(steps=200), 2)
    assert sum(few.checked(step) for step in range(1, 201)) == 20
