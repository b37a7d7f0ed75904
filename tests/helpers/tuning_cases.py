"""Small nets for the tests of fine-tuning: prepared, with data, and a plan that is complete but for the tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from quantized_models import Feed, constants, settings
from text_models import text_model

from quark_onnx.clock import Clock, unseen
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import Tuning
from quark_onnx.core.settings.aimet_runtime_config import load_runtime_config
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.calibration_data import open_data
from quark_onnx.engine.crew import Crew
from quark_onnx.engine.observe import observe
from quark_onnx.engine.runner import input_specs
from quark_onnx.graph import Model, io
from quark_onnx.job import Job
from quark_onnx.numerics.quantizer import carrier
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import decide
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.simulated_model import ranging
from quark_onnx.stages.channel_importance import channel_importance
from quark_onnx.stages.finetune import finetune
from quark_onnx.stages.ranges import choose_ranges, observed_tensors
from quark_onnx.stages.simulated_placement import simulated_sites

MEMORY = 1 << 28


class Case(NamedTuple):
    """A float model ready to be tuned: prepared, and equalized if that was asked for."""

    job: Job
    feeds: list[Feed]
    plan: Plan

    @property
    def model(self) -> Model:
        return self.job.prepared


def draw(shape: Sequence[int], count: int, name: str = "x", seed: int = 0) -> list[Feed]:
    """Samples of normal numbers whose channels are correlated, as activations are: then rounding has room to gain."""
    rng = np.random.default_rng([seed, *shape])
    numbers = rng.standard_normal((count, *shape)) + rng.standard_normal((count, *[1] * len(shape)))
    return [{name: sample.astype(np.float32)} for sample in numbers]


def case(text: str, feeds: list[Feed], arrays: Mapping[str, Any], opset: int = 20, **fields: Any) -> Case:
    """The un-tuned plan of a model given as text; `fields` are those of the configuration, and extra options."""
    fields = {"include_cle": False, "Protect": False, "SmoothQuant": False} | fields
    config = settings(include_fast_ft=True, **fields)
    job = open_job(text_model(text, opset, **arrays), config)
    plain = replace(job, config=settings(**fields))
    decided = decide(plain, open_data(feeds, input_specs(job.model)), Clock(unseen))
    return Case(decided.job, list(decided.feeds), decided.plan)


class Simulated(NamedTuple):
    """A float model with the quantizers of a runtime configuration, and the ranges that learning begins with."""

    model: Model
    feeds: list[Feed]
    plan: Plan


def simulated_case(
    model: Model,
    feeds: list[Feed],
    weight_bits: int,
    bits: int,
    scheme: QuantScheme = QuantScheme.training_range_learning_with_tf_init,
    config: Mapping[str, Any] | None = None,
) -> Simulated:
    """Asymmetric activations and symmetric weights; config: None is the default one."""
    formats = Format(bits, signed=False), Format(weight_bits, signed=True, symmetric=True)
    plan = simulated_sites(model, load_runtime_config(config), *formats).plan
    statistics = observe(model, feeds, observed_tensors(plan), lambda done: None)
    return Simulated(model, feeds, choose_ranges(model, plan, statistics, ranging(scheme)))


def tuned(
    made: Case,
    options: FastFinetune,
    plan: Plan | None = None,
    limit: int = MEMORY,
    tell: Callable[[str, int, int], None] = unseen,
    judge: Callable[[Plan], float] | None = None,
    crew: Crew | None = None,
) -> Tuning:
    """Fine-tune a case. What must hold for every plan and option is checked here."""
    start = made.plan if plan is None else plan
    before = io.fingerprint(made.model)
    gains = channel_importance(made.model)
    done = finetune(made.model, start, made.feeds, options, gains, limit, tell, judge, crew=crew)
    assert io.fingerprint(made.model) == before
    assert_only_tuned(made, done.plan)
    for record in done.records:
        assert record.held_after <= record.held_before
        assert record.choice != "raw" or not record.accepted
    assert not {record.node for record in done.records} & done.reasons.keys()
    return done


def assert_only_tuned(made: Case, plan: Plan) -> None:
    """A plan that differs in weights and biases alone, and by values that its formats can hold."""
    for name in ("model", "sites", "nodes", "notes", "qparams", "remarks", "factors", "shifts"):
        assert getattr(plan, name) == getattr(made.plan, name)
    floats = constants(made.model)
    for tensor, coded in plan.codes.items():
        site = plan.sites[tensor]
        assert site.role == "weight"
        assert coded.codes.dtype == (np.int32 if site.format.block is None else carrier(site.format))
        assert coded.codes.shape == floats[tensor].shape
        assert site.format.lo <= coded.codes.min() <= coded.codes.max() <= site.format.hi
        assert coded.scale.dtype == np.float32
        assert coded.scale.shape == plan.qparams[site.group].scale.shape
        assert (coded.scale > 0).all()
    for tensor, value in plan.values.items():
        assert tensor in floats
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
    raw, changed = apply(made.model, made.plan), apply(made.model, plan)
    io.check(changed)
    assert [node.op_type for node in changed.graph] == [node.op_type for node in raw.graph]
    assert [[v.name for v in node.inputs if v] for node in changed.graph if node.op_type == "QuantizeLinear"] == [
        [v.name for v in node.inputs if v] for node in raw.graph if node.op_type == "QuantizeLinear"
    ]


def same(a: Plan, b: Plan) -> bool:
    """Whether two plans tune to the very same numbers."""
    return (
        a.codes.keys() == b.codes.keys()
        and a.values.keys() == b.values.keys()
        and all(a.codes[name].same(b.codes[name]) for name in a.codes)
        and all(np.array_equal(a.values[name], b.values[name]) for name in a.values)
    )
