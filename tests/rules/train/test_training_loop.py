"""The loop: it learns, keeps the best, ends when it is to, and goes on from a checkpoint to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_cases import made, names_of

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Plan
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.engine.labels import LABELS
from quark_onnx.stages.train.batches import Batches
from quark_onnx.stages.train.checkpoint import Checkpoint, digest
from quark_onnx.stages.train.parameters import Parameters
from quark_onnx.stages.train.plan_parameters import parameters
from quark_onnx.stages.train.schedules import Schedule
from quark_onnx.stages.train.step import Evaluated, Gradients
from quark_onnx.stages.train.training_loop import Trained, Trainer

SETTINGS = QAT(epochs=5, batch_size=8, shard=4, learning_rate=0.02, holdout=0.2, check_every=3)


@dataclass
class Pull:
    """An execution whose loss is how far the classifier's weight is from a target, a little more on each sample.

    judged  what held-out samples say instead
    fails   the step at which the user presses Ctrl-C
    """

    target: np.ndarray
    judged: float | None = None
    fails: int | None = None
    steps: int = field(default=0)

    def gradients(self, values: Mapping[str, np.ndarray], shards: Sequence[Feed]) -> Iterator[Gradients]:
        self.steps += 1
        if self.steps == self.fails:
            raise KeyboardInterrupt
        for shard in shards:
            weight = float(shard["x"].mean()) + 1.0
            off, samples = values["w3"] - self.target, len(shard["x"])
            yield Gradients(
                {"kl": samples * weight * float((off**2).sum())}, samples, {"w3": samples * weight * 2 * off}
            )

    def evaluate(self, values: Mapping[str, np.ndarray], shards: Sequence[Feed]) -> Iterator[Evaluated]:
        for shard in shards:
            samples = len(shard["x"])
            loss = float(((values["w3"] - self.target) ** 2).sum()) if self.judged is None else self.judged
            yield Evaluated({"kl": samples * loss}, samples, {"y": np.zeros((samples, 5), np.float32)})


def batches(settings: QAT = SETTINGS) -> Batches:
    """Forty samples; mini-batches of an epoch do not divide the looks at held-out ones."""
    rng = np.random.default_rng(4)
    feeds = keep({"x": rng.uniform(0, 1, (1, 4, 6, 6)).astype(np.float32)} for _ in range(40))
    return Batches(feeds, batch_size=settings.batch_size, shard=settings.shard, seed=1, holdout=settings.holdout)


def trainer(execution: Pull | None = None, settings: QAT = SETTINGS, file: Path | None = None) -> Trainer:
    """Of the small net, towards a weight that is half of the one it has."""
    model, plan, _ = made(per_channel=True)
    found = parameters(model, plan, names_of(model, plan), settings)
    runs = execution or Pull(target(found))
    data = batches(settings)
    keeps = Checkpoint(file, digest(settings.to_dict(), plan.model, data.digest(), found.start()))
    schedule = Schedule.of(settings, len(data))
    return Trainer(found, data, runs, {"kl": 1.0}, settings, schedule, keeps, lambda text, done, total: None)


def target(found: Parameters) -> np.ndarray:
    weight: np.ndarray = found.values(found.start())["w3"] * np.float32(0.5)
    return weight


def same(one: Plan, other: Plan) -> bool:
    codes = all(coded.same(other.codes[tensor]) for tensor, coded in one.codes.items())
    return codes and all(q.same(other.qparams[group]) for group, q in one.qparams.items())


def test_it_learns_and_the_plan_is_that_of_the_best_point() -> None:
    start = trainer()
    done = start.train()
    record = done.record
    assert (record.steps, record.planned, record.samples, record.judges, record.ended) == (20, 20, 32, 8, "")
    assert [point.step for point in record.curve] == [0, 3, 6, 9, 12, 15, 18, 20]
    assert record.best.held == min(point.held for point in record.curve) < 0.5 * record.curve[0].held
    assert record.curve[0].loss is None
    again = parameters(*_model_and(done.plan), start.parameters.inputs, SETTINGS)
    off = again.values(again.start())["w3"] - target(start.parameters)
    assert float((off**2).sum()) == pytest.approx(record.best.held, rel=1e-6)


def _model_and(plan: Plan) -> tuple[Any, Plan]:
    return made(per_channel=True)[0], plan


def test_what_is_no_better_leaves_the_very_plan() -> None:
    start = trainer()
    found = replace(start, execution=Pull(target(start.parameters), judged=2.0)).train()
    assert found.plan is start.parameters.plan
    assert not found.record.accepted


def test_a_loss_that_is_no_number_ends_it() -> None:
    start = trainer()
    found = replace(start, execution=Pull(np.full_like(target(start.parameters), np.inf))).train()
    assert found.plan is start.parameters.plan
    assert found.record.steps == 0
    assert "learning_rate" in found.record.ended


@pytest.mark.parametrize(
    ("changes", "why"), [({"patience": 2}, "2 looks"), ({"time_limit": 1e-9}, "its time limit of 1e-09 s")]
)
def test_it_ends_early(changes: dict[str, Any], why: str) -> None:
    settings = replace(SETTINGS, **changes)
    start = trainer(settings=settings)
    found = replace(start, execution=Pull(target(start.parameters), judged=2.0)).train()
    assert found.record.steps < found.record.planned
    assert why in found.record.ended


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stop", [2, 7, 20])
def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path: Path, stop: int, optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    whole = trainer(settings=settings).train()
    file = tmp_path / "training.npz"
    first = trainer(settings=settings, file=file)
    halted = replace(first, execution=Pull(target(first.parameters), fails=stop)).train()
    assert (halted.record.steps, halted.record.ended) == (stop - 1, "Ctrl-C ended it")
    rest = trainer(settings=settings, file=file).train()
    assert rest.record == whole.record
    assert same(rest.plan, whole.plan)
    assert _finished_at_once(settings, file, whole)


def _finished_at_once(settings: QAT, file: Path, whole: Trained) -> bool:
    """Whether one that is done makes no step more."""
    last = trainer(settings=settings, file=file)
    none = Pull(target(last.parameters), fails=1)
    return replace(last, execution=none).train().record == whole.record


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.npz"
    trainer(file=file).train()
    with pytest.raises(ConfigError, match="of another training: model, data, labels or settings differ; remove it"):
        trainer(settings=replace(SETTINGS, learning_rate=0.01), file=file).train()
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is none that quark_onnx wrote"):
        trainer(file=file).train()


def test_the_digest_of_samples_tells_labels_values_and_order_apart() -> None:
    def of(values: Sequence[float], labels: Sequence[int]) -> str:
        pairs = [
            {"x": np.full((1, 3), v, np.float32), LABELS: np.array([c])} for v, c in zip(values, labels, strict=True)
        ]
        return Batches(keep(pairs), batch_size=2, shard=2, seed=1).digest()

    assert of([1, 2, 3], [0, 1, 2]) == of([1, 2, 3], [0, 1, 2])
    others = [of([1, 2, 3], [0, 1, 1]), of([1, 2, 4], [0, 1, 2]), of([2, 1, 3], [1, 0, 2]), of([1, 2], [0, 1])]
    assert len({of([1, 2, 3], [0, 1, 2]), *others}) == 5


def test_it_tells_loss_figures_and_time() -> None:
    told: list[tuple[str, int, int]] = []
    replace(trainer(), tell=lambda text, done, total: told.append((text, done, total))).train()
    assert [done for _, done, _ in told] == [*range(1, 21)]
    assert all(total == 20 and text.startswith("loss ") and "held out " in text for text, _, total in told)
