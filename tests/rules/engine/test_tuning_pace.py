"""What is told of the time that tuning takes, and when there is none left. The clock is the test's."""

from __future__ import annotations

import pytest

from quark_onnx.engine import tuning_pace
from quark_onnx.engine.tuning_pace import OutOfTime, Pace, about


class Clock:
    """Seconds since some time, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tuning_pace, "perf_counter", made)
    return made


def test_a_machine_that_is_as_fast_as_expected(clock: Clock) -> None:
    pace = Pace({"a": 4.0, "b": 30.0, "c": 1.5})
    assert pace.begin("a") == "a, about 36 s left"
    clock.seconds += 4
    assert pace.begin("b") == "b (about 30 s), about 32 s left"
    clock.seconds += 30
    assert pace.begin("c") == "c"


@pytest.mark.parametrize(("speed", "left"), [(0.5, "about 52 s"), (1.0, "about 100 s"), (3.0, "about 5 min")])
def test_what_was_measured_sets_the_rest_right(speed: float, left: str, clock: Clock) -> None:
    """A second that was expected counts as much as one that passed: after 20 of them little is left of the guess."""
    pace = Pace({"a": 20.0, "b": 100.0})
    pace.begin("a")
    clock.seconds += 20 * speed
    assert pace.begin("b").endswith(f", {left} left")


def test_one_slow_small_layer_says_little(clock: Clock) -> None:
    pace = Pace({"a": 0.1, "b": 10.0})
    pace.begin("a")
    clock.seconds += 0.5
    assert pace.begin("b") == "b (about 14 s), about 14 s left"


@pytest.mark.parametrize(("limit", "fits"), [(3.9, 0), (4.0, 1), (9.9, 1), (10.0, 2), (11.9, 2), (12.0, 3)])
def test_a_layer_begins_if_it_will_end_in_time(limit: float, fits: int, clock: Clock) -> None:
    pace, begun = Pace({"a": 4.0, "b": 6.0, "c": 2.0}, limit), 0
    try:
        for seconds in pace.expected.values():
            pace.begin("abc"[begun])
            begun += 1
            clock.seconds += seconds
    except OutOfTime as error:
        next_one = "abc"[fits]
        assert str(error) == f"{next_one!r} would take {about(pace.expected[next_one])}"
    assert begun == fits


def test_a_slow_machine_does_fewer_layers_in_the_same_time(clock: Clock) -> None:
    pace = Pace({"a": 9.0, "b": 9.0}, limit=30.0)
    pace.begin("a")
    clock.seconds += 19  # so b will take 18 or so
    with pytest.raises(OutOfTime, match="'b' would take about 18 s"):
        pace.begin("b")


def test_layers_of_which_nothing_is_expected_count_by_the_clock_alone(clock: Clock) -> None:
    pace = Pace({}, limit=5.0)
    assert pace.begin("a") == "a"
    clock.seconds += 5
    assert pace.begin("b") == "b"
    clock.seconds += 1
    with pytest.raises(OutOfTime):
        pace.begin("c")


def test_what_is_said_beforehand_names_long_layers() -> None:
    assert str(Pace({"a": 1.0, "b": 2.0})) == "2 layers, about 3 s"
    assert str(Pace({"a": 1.0, "b": 20.0, "c": 300.0})) == "3 layers, about 5 min; 'b' about 20 s; 'c' about 5 min"


def test_seconds_in_words() -> None:
    assert [about(seconds) for seconds in (0.4, 8.0, 119.6, 120.0, 3600.0)] == [
        "about 0 s",
        "about 8 s",
        "about 120 s",
        "about 2 min",
        "about 60 min",
    ]
