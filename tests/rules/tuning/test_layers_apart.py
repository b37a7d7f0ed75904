"""Layers that learn apart from each other: tuned by several processes they are what one process makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from shared_work import PicklingCrew
from text_models import normal
from tuning_cases import Case, case, draw, same, tuned

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound, FastFinetune, Nearest
from quark_onnx.stages.finetune.layer_finders import Finders
from quark_onnx.stages.finetune.layers_apart import groups

CHAIN = """g (float[N, 4, 9] x) => (float[N, 4, 1] y) {
    [a] h = Conv (x, w1, b1) [r] r = Relu (h) [b] g = Conv (r, w1, b2) [s] s = Relu (g) [c] i = Conv (s, w2, b3)
    [d] y = Conv (i, w3, b3)
}"""
NORMED = """g (float[N, 6] x) => (float[N, 5] y) {
    [a] h = Gemm (x, w1, b1) [n] n = LayerNormalization (h, gamma, beta) [b] y = Gemm (n, w2, b2)
}"""
ARRAYS = {"w1": normal(4, 4, 3), "w2": normal(4, 4, 3, seed=1), "w3": normal(4, 4, 3, seed=2)} | {
    f"b{i}": normal(4, seed=i) for i in (1, 2, 3)
}
APART = AdaRound(num_iterations=20, parallel=True)
FEW: dict[str, Any] = {"weight_type": "int4", "activation_type": "uint8"}


def chain() -> Case:
    return case(CHAIN, draw((1, 4, 9), 24), ARRAYS, **FEW)


def normed() -> Case:
    arrays = {"w1": normal(6, 7), "b1": normal(7), "gamma": normal(7, seed=3), "beta": normal(7, seed=4)}
    return case(NORMED, draw((4, 6), 24), {**arrays, "w2": normal(7, 5), "b2": normal(5)}, **FEW)


def assert_same(alone: Tuning, shared: Tuning) -> None:
    assert same(alone.plan, shared.plan)
    assert alone.reasons == shared.reasons
    assert [replace(r, seconds=0.0) for r in alone.records] == [replace(r, seconds=0.0) for r in shared.records]


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize(
    ("made", "options"),
    [
        (chain, APART),
        (chain, replace(APART, objective="sampled", drop_ratio=0.5)),
        (chain, AdaQuant(num_iterations=20, parallel=True)),
        (chain, Nearest(scale_search=False, parallel=True)),
        (normed, AdaQuant(num_iterations=20, parallel=True)),
    ],
    ids=["shared weight", "sampled", "adaquant", "biases", "normalization"],
)
def test_any_number_of_processes_finds_the_same(made: Any, options: FastFinetune, slots: int) -> None:
    given, crew = made(), PicklingCrew()
    crew.slots = slots
    alone = tuned(given, options)
    assert alone.records
    assert_same(alone, tuned(given, options, crew=crew))
    assert crew.jobs <= slots
    assert (crew.jobs > 1) == (slots > 1)


def test_a_plan_to_go_on_from_and_a_judge() -> None:
    given = chain()
    first = tuned(given, replace(APART, target_op_type=("Gemm",))).plan
    assert first is given.plan
    whole = tuned(given, APART).plan
    half = replace(given.plan, codes={"w2": whole.codes["w2"]}, values={})
    assert_same(tuned(given, APART, half), tuned(given, APART, half, crew=PicklingCrew()))

    def judge(plan: Plan) -> float:
        return -len(plan.codes)  # no layer may change

    alone, shared = (tuned(given, APART, judge=judge, crew=crew) for crew in (None, PicklingCrew()))
    assert_same(alone, shared)
    assert not shared.plan.codes


def test_layers_that_follow_each_other_and_limited_time_stay_here() -> None:
    given, crew = chain(), PicklingCrew()
    for options in (replace(APART, parallel=False), replace(APART, time_limit=600.0)):
        assert_same(tuned(given, options), tuned(given, options, crew=crew))
    assert crew.jobs == 0


def test_groups_take_about_the_same_time() -> None:
    names = [f"n{i}" for i in range(12)]

    def finders(passing: float, **sharing: list[str]) -> Finders:
        unused: dict[str, Any] = dict.fromkeys(names)
        return Finders(unused, {}, dict.fromkeys(names, 1.0), dict.fromkeys(names, passing), sharing)

    assert groups(finders(0.0), 3) == [names[:4], names[4:8], names[8:]]
    assert groups(finders(0.4), 1) == [names]
    early, late = groups(finders(0.4), 2)
    assert early + late == names
    assert len(early) > len(late) + 1  # who tunes the last layers walks through all of them
    assert len(groups(finders(0.0), 50)) == 12
    joined = groups(finders(0.0, n0=["n11"], n11=["n0"]), 3)
    assert joined == [names[1:4], names[4:8], ["n0", *names[8:]]]
