"""The float model against the prepared one: each runs once on a sample, unless they differ."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx.core.errors import ModelError
from quark_onnx.engine.held_out_probes import FEWEST, PROBES, most_probes
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.stages import verify as verifying
from quark_onnx.stages.verify import DOUBT, verify

FEEDS = [{"x": normal(2, 4, seed=seed)} for seed in (1, 2)]


def model(body: str, output: str = "float[2,4] y", **numbers: np.ndarray) -> object:
    return io.load(text_model(f"g (float[2,4] x) => ({output}) {{ {body} }}", **numbers))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first operator of each model, for every run."""
    seen: list[str] = []

    class Counted(Runner):
        def __init__(self, model: object, **options: bool) -> None:
            super().__init__(model, **options)
            self.kind = model.graph[0].op_type

        def __call__(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(self.kind)
            return super().__call__(feed)

    monkeypatch.setattr(verifying, "Runner", Counted)
    return seen


def test_what_agrees_runs_once(runs: list[str]) -> None:
    assert verify(model("y = Relu (x)"), model("y = Max (x, z)", z=np.float32([0])), FEEDS) is None
    assert runs == ["Relu", "Relu", "Max", "Max"]


def test_what_differs_is_the_fault_of_preparing(runs: list[str]) -> None:
    """Also on one sample of several, and the model is asked once more."""
    with pytest.raises(ModelError, match="folding changed output 'y'"):
        verify(model("y = Relu (x)"), model("y = Abs (x)"), FEEDS)
    assert runs == ["Relu"] * 2 + ["Abs"] * 2 + ["Relu"] * 4


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("r = RandomNormalLike (x) y = Add (x, r)", "float[2,4] y"),
        ("r = RandomNormalLike (x) y = Greater (x, r)", "bool[2,4] y"),
        ("y = Relu (x) r = RandomNormalLike (x) z = Cast <to = 6> (r)", "float[2,4] y, int32[2,4] z"),
    ],
    ids=["floats", "truths", "integers beside"],
)
def test_a_model_that_gives_two_answers_is_no_fault(body: str, output: str) -> None:
    assert verify(model(body, output), model(body, output), FEEDS) == DOUBT


def test_what_wavers_without_a_word_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator of the user's own, of which nothing is known."""

    class Wavering(Runner):
        def __call__(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            self.shift = getattr(self, "shift", 0) + 1
            return [array + self.shift for array in super().__call__(feed)]

    monkeypatch.setattr(verifying, "Runner", Wavering)
    assert verify(model("y = Relu (x)"), model("y = Abs (x)"), FEEDS) == DOUBT


@pytest.mark.parametrize(("limit", "probes"), [(512, PROBES), (300, 9), (16, FEWEST)])
def test_heavy_models_have_fewer_probes(limit: int, probes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "FILES_ABOVE", limit)
    assert most_probes(model("y = MatMul (x, w)", "float[2,32] y", w=normal(4, 32))) == probes
