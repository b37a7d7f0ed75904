"""Settings of fast fine-tuning: every key of Quark has its effect or is refused by name (research/quark.md §4.1)."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx import ConfigError, QuantizationConfig
from quark_onnx.core.settings.fast_finetune import (
    GPTQ,
    METHODS,
    TUNABLE,
    UNSUPPORTED,
    AdaQuant,
    AdaRound,
    FastFinetune,
    from_quark,
    quark_key,
)

counts = st.integers(1, 10**6)
parts = st.floats(0, 1)
rates = st.floats(1e-9, 1e3)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "data_size": st.none() | counts,
    "batch_size": counts,
    "num_batches": counts,
    "num_iterations": counts,
    "learning_rate": rates,
    "early_stop": st.booleans(),
    "lr_adjust": st.none() | st.tuples(st.floats(0, 1e9), rates),
    "target_op_type": st.lists(st.sampled_from(TUNABLE), min_size=1, unique=True).map(tuple),
    "selective_update": st.booleans(),
    "update_bias": st.booleans(),
    "drop_ratio": parts,
    "fixed_seed": st.integers(0, 2**32 - 1),
    "parallel": st.booleans(),
    "scale_search": st.booleans(),
    "polish": st.integers(0, 50),
    "objective": st.sampled_from(["moments", "sampled"]),
    "positions": counts,
    "holdout": st.floats(0.01, 0.9),
    "memory_limit": st.none() | st.integers(2**20, 2**50),
    "ridge": parts,
    "time_limit": st.none() | rates,
}
OF_ADAROUND: dict[str, st.SearchStrategy[Any]] = {
    "reg_param": st.floats(0, 1e3),
    "beta_range": st.tuples(rates, rates).map(lambda pair: tuple(sorted(pair, reverse=True))),
    "warm_start": st.floats(0, 1, exclude_max=True),
}
OF_ADAQUANT: dict[str, st.SearchStrategy[Any]] = {"rate_unit": st.sampled_from(["step", "weight"])}
OF_GPTQ: dict[str, st.SearchStrategy[Any]] = {"act_order": st.booleans()}
ITERATED = {"num_iterations", "num_batches", "batch_size", "learning_rate", "lr_adjust", "early_stop", "objective"}


def settings_of(method: type[FastFinetune]) -> st.SearchStrategy[FastFinetune]:
    own = {AdaRound: OF_ADAROUND, AdaQuant: OF_ADAQUANT, GPTQ: OF_GPTQ}[method]
    known = {name: values for name, values in FIELDS.items() if method is not GPTQ or name not in ITERATED}
    return st.fixed_dictionaries({}, optional={**known, **own}).map(lambda values: method(**values))


anything = st.one_of([settings_of(method) for method in METHODS.values()])


@given(anything)
def test_json_and_back_is_equal(tuning: FastFinetune) -> None:
    assert from_quark(json.loads(json.dumps(tuning.to_dict()))) == tuning


@given(anything)
def test_a_configuration_gives_back_the_object(tuning: FastFinetune) -> None:
    config = QuantizationConfig(include_fast_ft=True, extra_options={"FastFinetune": tuning})
    assert config.finetune == tuning
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert config == QuantizationConfig(include_fast_ft=True, extra_options={"FastFinetune": tuning.to_dict()})


def test_the_strategies_have_every_field() -> None:
    assert {entry.name for entry in dataclasses.fields(AdaRound)} == {*FIELDS, *OF_ADAROUND}
    assert {entry.name for entry in dataclasses.fields(AdaQuant)} == {*FIELDS, *OF_ADAQUANT}
    assert {entry.name for entry in dataclasses.fields(GPTQ)} == {*FIELDS, *OF_GPTQ}


def test_the_defaults() -> None:
    assert AdaRound().to_dict() == {"OptimAlgorithm": "adaround"}
    assert AdaQuant().to_dict() == {"OptimAlgorithm": "adaquant"}
    one, two = AdaRound(), AdaQuant()
    assert (one.steps(8), one.steps(4), one.learning_rate, one.polish, one.early_stop) == (0, 300, 0.1, 5, True)
    assert (one.reg_param, one.beta_range, one.warm_start) == (0.01, (20.0, 2.0), 0.2)
    assert (two.steps(8), two.learning_rate, two.rate_unit, two.update_bias) == (500, 0.02, "step", True)
    assert one.seed == one.fixed_seed == 1705472343
    assert from_quark({}) == one
    assert GPTQ().to_dict() == {"OptimAlgorithm": "gptq"}
    assert (GPTQ().steps(4), GPTQ().ridge, GPTQ().act_order, GPTQ().scale_search) == (0, 0.1, True, True)


@pytest.mark.parametrize("name", sorted(ITERATED))
def test_gptq_has_no_iterations(name: str) -> None:
    given = {"lr_adjust": (1, 0.1), "early_stop": False, "objective": "sampled"}.get(name, 7)
    with pytest.raises(ConfigError, match=rf"{name} \({quark_key(name)}\) is for iterations, and gptq has none"):
        GPTQ(**{name: given})
    assert GPTQ(**{name: getattr(GPTQ(), name)}) == GPTQ()


# Quark's keys

EFFECT: dict[str, tuple[Any, str, Any]] = {  # value in the dictionary, field, value there
    "FixedSeed": (7, "fixed_seed", 7),
    "DataSize": (1000, "data_size", 1000),
    "BatchSize": (2, "batch_size", 2),
    "NumBatches": (5, "num_batches", 5),
    "NumIterations": (1000, "num_iterations", 1000),
    "LearningRate": (0.3, "learning_rate", 0.3),
    "EarlyStop": (False, "early_stop", False),
    "LRAdjust": ([2, 0.2], "lr_adjust", (2.0, 0.2)),
    "TargetOpType": (["Conv", "Gemm"], "target_op_type", ("Conv", "Gemm")),
    "SelectiveUpdate": (True, "selective_update", True),
    "UpdateBias": (False, "update_bias", False),
    "DropRatio": (0.5, "drop_ratio", 0.5),
    "RegParam": (0.02, "reg_param", 0.02),
    "BetaRange": ([15, 3], "beta_range", (15.0, 3.0)),
    "WarmStart": (0.1, "warm_start", 0.1),
    "Parallel": (True, "parallel", True),
}
REFUSED: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], str]] = {  # accepted, refused, the reason or the way out
    "OptimDevice": (("cpu", "CPU", None), ("cuda:0", "rocm", 0), "give 'cpu'"),
    "InferDevice": (("cpu", None), ("cuda:0,1",), "give 'cpu'"),
    "OutputQDQ": ((False, None), (True, 0), "before its output is quantized"),
    "MemOptLevel": ((1, None), (0, 2, True), "MemoryLimit"),
    "CacheDir": ((None,), ("/tmp",), "MemoryLimit"),
    "NumWorkers": ((0, 1, None), (4, True), "OMP_NUM_THREADS"),
    "PinMemory": ((False, None), (True,), "no GPU"),
    "UseGDS": ((False, None), (True,), "no GPU"),
    "SelectMaxMemLayer": ((False, None), (True,), "MemoryLimit"),
    "LogPeriod": ((None,), (100,), "one line per layer"),
    "OutputIndex": ((0, None), (1, False), "evaluator"),
    "RefModelPath": ((None,), ("float.onnx",), "the float model that is quantized"),
    "DynamicBatch": ((False, None), (True,), "stack them yourself"),
}
KEYS = """
OptimAlgorithm OptimDevice InferDevice FixedSeed DataSize BatchSize NumBatches NumIterations LearningRate EarlyStop
LRAdjust TargetOpType SelectiveUpdate UpdateBias OutputQDQ DropRatio MemOptLevel CacheDir LogPeriod NumWorkers PinMemory
UseGDS SelectMaxMemLayer RegParam BetaRange WarmStart OutputIndex RefModelPath DynamicBatch Parallel
"""
QUARK = KEYS.split()


def test_the_tables_have_every_key_of_quark() -> None:
    assert {*EFFECT, *REFUSED, "OptimAlgorithm"} == set(QUARK)
    assert REFUSED.keys() == UNSUPPORTED.keys()


@pytest.mark.parametrize("key", EFFECT)
def test_a_key_with_an_effect(key: str) -> None:
    value, field, expected = EFFECT[key]
    assert getattr(AdaRound(), field) != expected
    assert from_quark({key: value}) == dataclasses.replace(AdaRound(), **{field: expected})
    assert quark_key(field) == key


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("method", METHODS)
def test_a_key_that_is_refused(key: str, method: str) -> None:
    accepted, refused, reason = REFUSED[key]
    for value in accepted:
        assert from_quark({"OptimAlgorithm": method, key: value}) == METHODS[method]()
    for value in refused:
        with pytest.raises(ConfigError, match=f"FastFinetune {key} = .* not supported: .*{reason}"):
            from_quark({"OptimAlgorithm": method, key: value})


@pytest.mark.parametrize("key", [*EFFECT, "OptimAlgorithm"])
def test_none_stands_for_the_default(key: str) -> None:
    assert from_quark({key: None}) == AdaRound()


@pytest.mark.parametrize("key", [*QUARK, "ScaleSearch", "MemoryLimit"])
def test_a_misspelled_key_names_the_nearest(key: str) -> None:
    wrong = key[:-2] + key[-1]
    with pytest.raises(ConfigError, match=f"unknown FastFinetune key '{wrong}'; did you mean '{key}'"):
        from_quark({wrong: 1})


@pytest.mark.parametrize("key", [quark_key(name) for name in OF_ADAROUND])
def test_a_key_of_the_other_method_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} belongs to AdaRound, not to AdaQuant"):
        from_quark({"OptimAlgorithm": "adaquant", key: EFFECT[key][0]})
    with pytest.raises(ConfigError, match="RateUnit belongs to AdaQuant, not to AdaRound"):
        from_quark({"RateUnit": "step"})
    with pytest.raises(ConfigError, match="ActOrder belongs to GPTQ, not to AdaRound"):
        from_quark({"ActOrder": False})
    with pytest.raises(ConfigError, match=f"{key} belongs to AdaRound, not to GPTQ"):
        from_quark({"OptimAlgorithm": "gptq", key: EFFECT[key][0]})


def test_the_algorithm_selects_the_method() -> None:
    assert from_quark({"OptimAlgorithm": "AdaQuant"}) == AdaQuant()
    with pytest.raises(ConfigError, match="OptimAlgorithm: unknown value 'adaround2'; did you mean 'adaround'"):
        from_quark({"OptimAlgorithm": "adaround2"})
    with pytest.raises(ConfigError, match="make an AdaRound, AdaQuant or GPTQ"):
        FastFinetune()


def test_the_dictionaries_of_quarks_presets() -> None:
    values = {
        "DataSize": 1000,
        "FixedSeed": 1705472343,
        "BatchSize": 2,
        "NumIterations": 1000,
        "LearningRate": 0.1,
        "OptimAlgorithm": "adaround",
        "OptimDevice": "cpu",
        "InferDevice": "cpu",
        "EarlyStop": True,
    }
    same = {"data_size": 1000, "batch_size": 2, "num_iterations": 1000}
    assert from_quark(values) == AdaRound(**same)
    expected = AdaQuant(**same, learning_rate=1e-5, rate_unit="weight")
    assert from_quark({**values, "OptimAlgorithm": "adaquant", "LearningRate": 1e-5}) == expected
    assert expected.rate_is_absolute


def test_rates_in_a_dictionary_are_those_of_quark() -> None:
    adaquant = {"OptimAlgorithm": "adaquant"}
    assert not from_quark(adaquant).rate_is_absolute
    assert from_quark({**adaquant, "LRAdjust": (2, 1e-4)}) == AdaQuant(
        learning_rate=1e-5, lr_adjust=(2, 1e-4), rate_unit="weight"
    )
    for empty in ((), [], None):
        assert from_quark({**adaquant, "LRAdjust": empty}) == AdaQuant()
    assert from_quark({**adaquant, "LearningRate": 0.1, "RateUnit": "step"}) == AdaQuant(learning_rate=0.1)
    assert from_quark({**adaquant, "RateUnit": "weight"}) == AdaQuant(learning_rate=1e-5, rate_unit="weight")
    assert not from_quark({"LearningRate": 0.3}).rate_is_absolute


# values

BAD_VALUES = [
    *[(name, value) for name in ("data_size", "batch_size", "num_iterations") for value in (0, -1, 1.5, True, "2")],
    *[(name, 0) for name in ("num_batches", "positions", "learning_rate", "rate_unit", "memory_limit")],
    *[("learning_rate", value) for value in (-0.1, math.inf, math.nan, "0.1", None, True)],
    *[("early_stop", value) for value in (1, None, "True")],
    *[(name, None) for name in ("selective_update", "update_bias", "parallel", "scale_search", "polish", "fixed_seed")],
    *[("lr_adjust", value) for value in (1, (1,), (1, 2, 3), "12", (-1, 0.1), (1, 0), (math.nan, 1))],
    *[("target_op_type", value) for value in ((), "Conv", ("Relu",), [3], None)],
    *[(name, value) for name in ("drop_ratio", "ridge") for value in (-0.1, 1.1, math.nan)],
    *[("holdout", value) for value in (0, 0.99, math.nan)],
    *[("time_limit", value) for value in (0, -1, math.nan, math.inf, "30m", True)],
    *[("fixed_seed", value) for value in (-1, 2**32, 0.5)],
    *[("objective", value) for value in ("moment", 3, None)],
    ("polish", -1),
    *[("reg_param", value) for value in (-1, math.inf)],
    *[("beta_range", value) for value in ((2, 20), (0, 0), 20, (20,), ("a", "b"))],
    *[("warm_start", value) for value in (1, -0.1, True)],
    *[("rate_unit", value) for value in ("steps", None)],
    ("act_order", 1),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    method = AdaQuant if name in OF_ADAQUANT else GPTQ if name in OF_GPTQ else AdaRound
    with pytest.raises(ConfigError, match=rf"{name} \({quark_key(name)}\)"):
        method(**{name: value})


def test_messages_say_the_range() -> None:
    with pytest.raises(ConfigError, match=r"^FastFinetune num_iterations .* a whole number of at least 1, not 0"):
        from_quark({"NumIterations": 0})
    with pytest.raises(ConfigError, match=r"warm_start .* a number at least 0.* and below 1.*, not 2"):
        AdaRound(warm_start=2)
    with pytest.raises(ConfigError, match=r"target_op_type .* unknown value 'Covn'; did you mean 'Conv'"):
        AdaRound(target_op_type=("Covn",))
    with pytest.raises(ConfigError, match=r"the second of lr_adjust \(LRAdjust\) must be a number above 0, not 0"):
        AdaRound(lr_adjust=(1, 0))


def test_numbers_of_numpy_become_plain() -> None:
    tuning = AdaRound(data_size=np.int64(5), learning_rate=np.float32(0.5), beta_range=[10, 1])  # type: ignore[arg-type]
    assert json.dumps(tuning.to_dict()) == (
        '{"OptimAlgorithm": "adaround", "DataSize": 5, "LearningRate": 0.5, "BetaRange": [10.0, 1.0]}'
    )
    assert type(tuning.data_size) is int


def test_variants_by_replace_are_checked_again() -> None:
    assert dataclasses.replace(AdaRound(), num_iterations=10).num_iterations == 10
    with pytest.raises(ConfigError, match="num_iterations"):
        dataclasses.replace(AdaRound(), num_iterations=0)


def test_derived_numbers() -> None:
    assert AdaRound().window is None
    assert AdaRound(num_iterations=7).steps(4) == 7
    assert [AdaQuant().steps(bits) for bits in (4, 8)] == [1500, 500]
    assert AdaRound(num_batches=30).window == 30
    assert AdaRound(batch_size=2).batch_rows(rows=20_000, samples=100) == 400
    assert AdaRound(batch_size=200).batch_rows(rows=20_000, samples=100) == 20_000
    assert AdaRound(batch_size=1).batch_rows(rows=10, samples=100) == 1


@pytest.mark.parametrize("field", ["learning_rate", "num_batches", "reg_param", "warm_start", "polish"])
def test_nothing_is_learned_by_gradients_unless_something_of_them_is_asked_for(field: str) -> None:
    asked = {"learning_rate": 0.2, "num_batches": 30, "reg_param": 0.02, "warm_start": 0.1, "polish": 0}
    plain, learned = AdaRound(holdout=0.3, positions=99, ridge=0.1, polish=9), AdaRound(**{field: asked[field]})
    assert (plain.quick, plain.steps(8), plain.steps(7)) == (True, 0, 300)
    assert (learned.quick, learned.steps(8), learned.steps(7)) == (False, 500, 1500)


# AIMET


@pytest.mark.parametrize(("bits", "iterations"), [(2, 15_000), (4, 15_000), (7, 15_000), (8, 10_000), (16, 10_000)])
def test_aimet(bits: int, iterations: int) -> None:
    tuning = AdaRound.aimet(bits)
    assert (tuning.num_iterations, tuning.reg_param, tuning.beta_range) == (iterations, 0.01, (20.0, 2.0))
    assert (tuning.warm_start, tuning.batch_size, tuning.scale_search, tuning.data_size) == (0.2, 32, False, None)


def test_aimet_with_its_own_names() -> None:
    tuning = AdaRound.aimet(4, num_batches=64, batch_size=16, num_iterations=32, reg_param=0.1)
    assert (tuning.data_size, tuning.batch_size, tuning.num_iterations, tuning.reg_param) == (1024, 16, 32, 0.1)
    assert tuning.num_batches == 1
    for bits in (1, 17, 8.5):
        with pytest.raises(ConfigError, match="bits must be a whole number from 2 to 16"):
            AdaRound.aimet(bits)  # type: ignore[arg-type]


# the page in docs/

PAGE = (Path(__file__).parents[3] / "docs/fast_finetune.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


def default_text(name: str) -> str:
    found = [getattr(method(), name) for method in METHODS.values() if hasattr(method(), name)]
    texts = ["all six" if value == TUNABLE else str(value) for value in found]
    return " / ".join(dict.fromkeys(texts))


def test_the_page_has_every_field_with_its_default() -> None:
    rows = {cells[0].strip("`"): cells for cells in ROWS if len(cells) == 5}
    assert rows.keys() == {*FIELDS, *OF_ADAROUND, *OF_ADAQUANT, *OF_GPTQ}
    for name, cells in rows.items():
        key = quark_key(name)
        assert cells[1] == (f"`{key}`" if key in EFFECT else "–")
        assert cells[3] == default_text(name)


def test_the_page_has_every_refused_key() -> None:
    named = {key.strip("`"): cells[1] for cells in ROWS if len(cells) == 3 for key in cells[0].split(", ")}
    assert named == {key: ", ".join(map(str, accepted)) or "–" for key, (accepted, _) in UNSUPPORTED.items()}
