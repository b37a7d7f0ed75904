"""AutoQuant: which steps are taken after which accuracies, what comes of it, and what is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import batchnorm, normal, text_model
from tuning_cases import draw

from quark_onnx.core.errors import ConfigError, DataError, ModelError
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, QuantScheme, auto_quant_steps, load_encodings_to_sim
from quark_onnx.quantsim.adaround.adaround_weight import AdaroundParameters
from quark_onnx.quantsim.auto_quant_v2 import AutoQuant
from quark_onnx.quantsim.scheme_pairs import CANDIDATES, SchemePair
from quark_onnx.quantsim.utils import make_psnr_eval_fn

CHAIN = """g (float[N,4,6,6] x) => (float[N,5,6,6] y) {
    [a] s = Conv <pads = [1, 1, 1, 1]> (x, v, c) %s [n] y = Conv <pads = [1, 1, 1, 1]> (t, w, b)
}"""
WITH_NORM = CHAIN % "[m] h = BatchNormalization (s, gamma, beta, mean, var) [r] t = Relu (h)"
WITHOUT = CHAIN % "[r] t = Relu (s)"
TF, ENHANCED = QuantScheme.post_training_tf, QuantScheme.post_training_tf_enhanced
CHOOSE, W32, FOLD, EQUALIZE, ROUND = (
    "quant_scheme_selection",
    "w32_evaluation",
    "batchnorm_folding",
    "cross_layer_equalization",
    "adaround",
)


def chain(*, norm: bool = True) -> onnx.ModelProto:
    arrays = {"v": normal(4, 4, 3, 3) / 3, "c": normal(4) / 3, "w": normal(5, 4, 3, 3, seed=1), "b": normal(5)}
    return text_model(WITH_NORM if norm else WITHOUT, 17, **arrays, **(batchnorm(4) if norm else {}))


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    return draw((1, 4, 6, 6), count)


class Scores:
    """A callback that gives these accuracies one after the other, whatever the session."""

    def __init__(self, *values: float) -> None:
        self.left = list(values)

    def __call__(self, session: Any, num_samples: int | None = None) -> float:
        assert num_samples is None
        return self.left.pop(0)


def made(callback: Any, folder: Path, *, norm: bool = True, **fields: Any) -> AutoQuant:
    auto = AutoQuant(chain(norm=norm), None, samples(), callback, results_dir=folder, **fields)
    auto.set_adaround_params(AdaroundParameters(samples(), 4, 10))
    return auto


def names(auto: AutoQuant) -> list[str]:
    return [stage.name for stage in auto.stages]


# the order of the steps


@pytest.mark.parametrize(
    ("scores", "taken", "applied", "met"),
    [
        ((0.5, 0.6, 0.5, 0.9, 0.85), (W32, FOLD), (FOLD,), True),
        ((0.5, 0.6, 0.5, 0.9, 0.7, 0.8), (W32, FOLD, EQUALIZE), (EQUALIZE,), True),
        ((0.5, 0.6, 0.5, 0.9, 0.7, 0.75, 0.8), (W32, FOLD, EQUALIZE, ROUND), (EQUALIZE, ROUND), True),
        ((0.5, 0.6, 0.5, 0.9, 0.7, 0.65, 0.8), (W32, FOLD, EQUALIZE, ROUND), (FOLD, ROUND), True),
        ((0.5, 0.6, 0.5, 0.9, 0.7, 0.7, 0.7), (W32, FOLD, EQUALIZE, ROUND), (FOLD,), False),
        ((0.5, 0.6, 0.5, 0.9, 0.7, 0.75, 0.6), (W32, FOLD, EQUALIZE, ROUND), (EQUALIZE,), False),
        ((0.5, 0.6, 0.5, 0.9, 0.4, 0.3, 0.45), (W32, FOLD, EQUALIZE, ROUND), (FOLD, ROUND), False),
        ((0.5, 0.85, 0.5, 0.85), (FOLD,), (FOLD,), True),  # nothing to be learned from float weights
        ((0.5, 0.85, 0.5, 0.7, 0.81), (FOLD, EQUALIZE), (EQUALIZE,), True),
    ],
)
def test_steps_are_taken_until_the_target_is_met(
    tmp_path: Path, scores: Sequence[float], taken: Sequence[str], applied: tuple[str, ...], *, met: bool
) -> None:
    """The target is 0.8, as 0.9 − 0.1 is not quite. What is best is chosen; of equals what was there first."""
    callback = Scores(0.9, *scores)
    auto = made(callback, tmp_path)
    _, accuracy, _ = auto.optimize(0.1)
    assert callback.left == []
    assert names(auto) == ["float", *[CHOOSE] * 3, *taken]
    assert (auto.applied, auto.target_met, auto.w32_below_target) == (applied, met, False)
    assert [stage.accuracy for stage in auto.stages] == [0.9, *scores]
    assert [stage.met for stage in auto.stages] == [score >= 0.8 for score in (0.9, *scores)]
    assert accuracy == max(scores[-len([name for name in taken if name != W32]) :])
    chosen = "weights tf_enhanced, activations tf"
    assert [stage.schemes for stage in auto.stages[4:]] == [chosen] * len(taken)


def test_float_weights_that_miss_the_target_are_no_reason_to_give_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """AIMET returns nothing then. The twin below is told nothing."""
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.7, 0.3, 0.65, 0.6), tmp_path)
    with caplog.at_level(logging.WARNING, "quark_onnx"):
        model, accuracy, path = auto.optimize(0.1)
    assert (accuracy, auto.applied, auto.target_met, auto.w32_below_target) == (0.65, (EQUALIZE,), False, True)
    assert isinstance(model, onnx.ModelProto)
    assert Path(path).is_file()
    said = [record.message for record in caplog.records if record.message.startswith("AutoQuant")]
    assert [text for text in said if "float weights and 8-bit activations the accuracy is 0.7, below" in text]
    assert [text for text in said if "target 0.8 NOT met; the best is 0.65 after cross_layer_equalization" in text]


def test_a_target_that_is_met_is_no_reason_to_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.9, 0.9), tmp_path)
    with caplog.at_level(logging.WARNING, "quark_onnx"):
        auto.optimize(0.1)
    assert not [record for record in caplog.records if record.message.startswith("AutoQuant")]


@pytest.mark.parametrize("norm", [True, False])
def test_what_has_no_batch_norm_is_not_evaluated_twice(tmp_path: Path, *, norm: bool) -> None:
    callback = Scores(0.9, 0.5, 0.9, 0.5, *([0.9] if norm else []))
    auto = made(callback, tmp_path, norm=norm)
    assert auto.optimize(0.1)[1] == 0.9
    assert callback.left == []
    assert names(auto) == ["float", *[CHOOSE] * 3, FOLD]


# schemes


@pytest.mark.parametrize(
    ("widths", "tried"),
    [
        ((8, 8), ["tf, activations tf", "tf_enhanced, activations tf", "tf_enhanced, activations tf_enhanced"]),
        ((8, 16), ["tf, activations tf", "tf_enhanced, activations tf"]),
        ((16, 8), []),
        ((16, 16), []),
    ],
)
def test_wide_grids_are_not_clipped(tmp_path: Path, widths: tuple[int, int], tried: list[str]) -> None:
    """Where one pair is left, nothing is evaluated to choose it."""
    auto = made(Scores(0.9, *[0.5] * len(tried), 0.9, 0.9), tmp_path, param_bw=widths[0], output_bw=widths[1])
    auto.optimize()
    assert [stage.schemes for stage in auto.stages if stage.name == CHOOSE] == [f"weights {pair}" for pair in tried]
    assert names(auto)[-2:] == [W32, FOLD]


def test_each_kind_of_tensor_gets_its_scheme() -> None:
    """Against simulations with one scheme for all; few bits, and a value far out, tell the two schemes apart."""
    feeds = samples()
    feeds[0]["x"][0, 0, 0, 0] = 30
    widths = {"default_param_bw": 4, "default_output_bw": 4}
    sims = {scheme: QuantizationSimModel(chain(), quant_scheme=scheme, **widths) for scheme in (TF, ENHANCED)}
    for sim in sims.values():
        sim.compute_encodings(feeds)
    assert sims[TF].quantizer("w").get_encodings() != sims[ENHANCED].quantizer("w").get_encodings()
    assert sims[TF].quantizer("x").get_encodings() != sims[ENHANCED].quantizer("x").get_encodings()
    for pair in (*CANDIDATES, SchemePair(TF, ENHANCED)):
        found = auto_quant_steps.Task(chain(), feeds, lambda session: 0.0, 4, 4).simulated(pair).sim
        for tensor, scheme in (("w", pair.param_quant_scheme), ("x", pair.output_quant_scheme)):
            assert found.quantizer(tensor).get_encodings() == sims[scheme].quantizer(tensor).get_encodings()


def test_a_quantizer_may_have_a_scheme_of_its_own() -> None:
    """What was seen is enough to change it afterwards; a frozen encoding stays."""
    feeds = samples()
    feeds[0]["x"][0, 0, 0, 0] = 30
    one, other = (QuantizationSimModel(chain(), quant_scheme=name, default_output_bw=4) for name in ("tf", ENHANCED))
    for sim in (one, other):
        sim.compute_encodings(feeds)
    want, before = other.quantizer("x").get_encodings(), one.quantizer("x").get_encodings()
    assert before != want
    with pytest.raises(ConfigError, match="did you mean 'tf_enhanced'"):
        one.quantizer("x").set_quant_scheme("tf_enhance")
    one.quantizer("x").freeze_encodings()
    with pytest.raises(ConfigError, match="frozen"):
        one.quantizer("x").set_quant_scheme("tf_enhanced")
    assert one.quantizer("x").get_encodings() == before
    one.quantizer("x").unfreeze_encodings()
    one.quantizer("x").set_quant_scheme("tf_enhanced")
    assert not one.quantizer("x").is_initialized()
    _ = one.plan
    assert one.quantizer("x").get_encodings() == want


def test_candidates_may_be_others(tmp_path: Path) -> None:
    auto = made(Scores(0.9, 0.5, 0.6, 0.9, 0.9), tmp_path)
    assert auto.get_quant_scheme_candidates() == CANDIDATES
    aimet = SimpleNamespace(
        param_quant_scheme=TF, output_quant_scheme="post_training_percentile", param_percentile=None
    )
    auto.set_quant_scheme_candidates([("min_max", "tf_enhanced"), aimet])
    assert auto.get_quant_scheme_candidates() == ((TF, ENHANCED), (TF, QuantScheme.post_training_percentile))
    auto.optimize()
    assert auto.stages[-1].schemes == "weights tf, activations tf_percentile"


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "at least one pair"),
        (["tf"], "not 'tf'"),
        ([("tf",)], "a candidate is a pair of schemes"),
        ([("tf", "tf_enhance")], "did you mean 'tf_enhanced'"),
        ([(TF, QuantScheme.training_range_learning_with_tf_init)], "learns ranges by training"),
    ],
)
def test_candidates_that_are_none(tmp_path: Path, candidates: list[Any], message: str) -> None:
    auto = made(Scores(), tmp_path)
    with pytest.raises(ConfigError, match=message):
        auto.set_quant_scheme_candidates(candidates)
    assert auto.get_quant_scheme_candidates() == CANDIDATES


def test_no_candidate_for_wide_grids(tmp_path: Path) -> None:
    auto = made(Scores(), tmp_path, output_bw=16)
    auto.set_quant_scheme_candidates([(TF, ENHANCED)])
    with pytest.raises(ConfigError, match="with 16 bits only the scheme post_training_tf is tried"):
        auto.optimize()


# failures


def failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def fail(*args: Any, **fields: Any) -> Any:
        raise ModelError("no such luck")

    for name in names:
        monkeypatch.setattr(auto_quant_steps, name, fail)


def test_a_failing_step_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is written all the same."""
    failing(monkeypatch, "equalize_model")
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.9, 0.7), tmp_path)
    with pytest.raises(ModelError, match="no such luck"):
        auto.optimize()
    assert names(auto)[-1] == EQUALIZE
    assert [file.name for file in tmp_path.iterdir()] == ["auto_quant.json"]
    last = json.loads((tmp_path / "auto_quant.json").read_text())["stages"][-1]
    assert (last["accuracy"], last["met"], last["error"]) == (None, False, "ModelError: no such luck")


def test_a_failing_step_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "equalize_model")
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.9, 0.7, 0.8), tmp_path, strict_validation=False)
    assert auto.optimize()[1] == 0.8
    assert auto.applied == (FOLD, ROUND)
    assert [stage.error for stage in auto.stages if stage.error] == ["ModelError: no such luck"]


def test_where_every_step_fails_the_model_as_it_is_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "equalize_model", "fold_all_batch_norms")
    monkeypatch.setattr(auto_quant_steps.Task, "rounded", lambda self, pair, best: 1 / 0)
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.9), tmp_path, strict_validation=False)
    assert auto.optimize()[1] == 0.6
    assert auto.applied == ()


def test_where_nothing_can_be_evaluated_that_is_an_error(tmp_path: Path) -> None:
    def callback(session: Any) -> float:
        calls.append(session)
        return 0.9 if len(calls) == 1 else float("nan")

    calls: list[Any] = []
    auto = made(callback, tmp_path, strict_validation=False)
    with pytest.raises(ModelError, match="no step succeeded; the last one: DataError: eval_callback returned nan"):
        auto.optimize()


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (lambda session: None, ConfigError, "must return a number, not None"),
        (lambda session: float("nan"), DataError, "eval_callback returned nan"),
        (lambda session: float("-inf"), DataError, "eval_callback returned -inf"),
    ],
)
def test_accuracies_that_are_none(tmp_path: Path, callback: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made(callback, tmp_path).optimize()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval_callback": 0.9}, "eval_callback must be a function of a session, not float"),
        ({"param_bw": 1}, "param_bw"),
        ({"output_bw": 32}, "output_bw"),
        ({"quant_scheme": "tf_enhance"}, "did you mean 'tf_enhanced'"),
        ({"quant_scheme": "training_range_learning_with_tf_init"}, "learns ranges by training"),
        ({"strict_validation": 1}, "strict_validation must be True or False"),
    ],
)
def test_bad_arguments(fields: dict[str, Any], message: str) -> None:
    given = {"model": chain(), "dummy_input": None, "data_loader": samples(1), "eval_callback": Scores(), **fields}
    with pytest.raises(ConfigError, match=message):
        AutoQuant(**given)


def test_bad_data_are_found_at_once() -> None:
    with pytest.raises(DataError, match="input 'x'"):
        AutoQuant(chain(), None, [normal(1, 3, 6, 6)], Scores())


def test_other_arguments_that_are_refused(tmp_path: Path) -> None:
    auto = made(Scores(), tmp_path)
    with pytest.raises(ConfigError, match="adaround_params must be AdaroundParameters, not dict"):
        auto.set_adaround_params({"num_batches": 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="allowed_accuracy_drop must be a number at least 0"):
        auto.optimize(-0.1)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make the results_dir"):
        made(Scores(), tmp_path / "file").optimize()


# what comes of it


def test_callbacks_of_one_and_of_two_arguments(tmp_path: Path) -> None:
    """Each is given a session that runs."""
    feed, seen = samples(1)[0], []

    def one(session: Any) -> float:
        return float(session.run(None, feed)[0].max())

    def two(session: Any, num_samples: int | None) -> float:
        seen.append(num_samples)
        return one(session)

    found = [made(callback, tmp_path).run_inference()[1] for callback in (one, two, lambda *rest: two(*rest))]
    assert len(set(found)) == 1
    assert seen == [None, None]


def test_run_inference_folds_and_takes_its_scheme(tmp_path: Path) -> None:
    sim, accuracy = made(Scores(0.7), tmp_path, quant_scheme="tf").run_inference()
    assert accuracy == 0.7
    assert [node.op_type for node in sim.float_model.graph] == ["Conv", "Relu", "Conv"]
    assert sim.quant_scheme is TF
    assert sim.quantizer("x").is_initialized()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bits", [4, 8])
def test_the_result_is_what_was_evaluated(tmp_path: Path, bits: int) -> None:
    """A new simulation with the encodings of the file gives the outputs that the last accuracy was made of."""
    source, feeds, seen = chain(), samples(), []
    before = source.SerializeToString(deterministic=True)
    quality = make_psnr_eval_fn(source, feeds)

    def callback(session: Any) -> float:
        seen.append(session.run(None, feeds[0])[0])
        return quality(session)

    auto = AutoQuant(source, feeds[0], feeds, callback, param_bw=bits, results_dir=tmp_path)
    auto.set_adaround_params(AdaroundParameters(feeds, 4, 50))
    model, accuracy, path = auto.optimize(0.0)
    assert source.SerializeToString(deterministic=True) == before
    assert auto.target_met is False  # nothing is as good as float
    assert names(auto)[-3:] == [FOLD, EQUALIZE, ROUND]
    assert accuracy == max(stage.accuracy for stage in auto.stages[-3:] if stage.accuracy is not None)
    assert auto.applied[-1] == ROUND
    sim = QuantizationSimModel(model, default_param_bw=bits)
    load_encodings_to_sim(sim, path)
    np.testing.assert_array_equal(sim.session.run(None, feeds[0])[0], seen[-1])
    saved = onnx.load(tmp_path / "auto_quant.onnx")
    want, got = (Runner(io.load(m), threads=1)(feeds[0])[0] for m in (model, saved))
    np.testing.assert_array_equal(got, want)


def test_the_record(tmp_path: Path) -> None:
    auto = made(Scores(0.9, 0.5, 0.6, 0.5, 0.9, 0.85), tmp_path)
    _, _, path = auto.optimize(0.1)
    assert path == str(tmp_path / "auto_quant.encodings")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"auto_quant.{s}" for s in ("encodings", "json", "onnx")
    ]
    record = json.loads((tmp_path / "auto_quant.json").read_text())
    assert [stage["name"] for stage in record.pop("stages")] == names(auto)
    assert record.pop("target") == pytest.approx(0.8)
    assert record == {
        "float_accuracy": 0.9,
        "target_met": True,
        "w32_below_target": False,
        "applied": [FOLD],
        "param_bw": 8,
        "output_bw": 8,
    }


def test_it_can_be_run_again(tmp_path: Path) -> None:
    """From a path, with data that can be read once only, and without a folder."""
    onnx.save(chain(), tmp_path / "model.onnx")
    auto = AutoQuant(tmp_path / "model.onnx", None, iter(samples()), Scores(*[0.9, 0.5, 0.6, 0.5, 0.9, 0.85] * 2))
    first, second = (auto.optimize(0.1) for _ in range(2))
    assert first[0].SerializeToString(deterministic=True) == second[0].SerializeToString(deterministic=True)
    assert len(auto.stages) == 6
    folder = Path(second[2]).parent
    assert len(list(folder.iterdir())) == 3
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_adaround_learns_from_two_thousand_samples_at_most() -> None:
    rows = [{"x": np.zeros((700, 2), np.float32)}] * 5
    assert auto_quant_steps._all_of(rows).num_batches == 3
    assert auto_quant_steps._all_of(rows[:2]).num_batches == 2
    assert auto_quant_steps._all_of([{"x": np.zeros((), np.float32)}] * 5).num_batches == 5
