"""Training of a simulation: all of its weights at once, through the whole model, as AIMET's guide recommends it.

The guide (quantization-aware fine-tuning): begin with what is best without training, ranges included; 15 to 20 epochs;
divide the learning rate by 10 every 5 to 10. Ranges are learned with the schemes that are named after it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.records import Training
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep, samples_in
from quark_onnx.engine.labels import labelled, opened_labels
from quark_onnx.engine.result_wording import training_warnings
from quark_onnx.numerics.quantizer import ends
from quark_onnx.progress import followed
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.simulated_grids import raised
from quark_onnx.quantsim.simulation import Simulation
from quark_onnx.quantsim.wide_grids import apart, together
from quark_onnx.stages.train import Augment, train_model

logger = logging.getLogger("quark_onnx")

GUIDE: Mapping[str, Any] = {"epochs": 20, "schedule": "step", "step_epochs": 10, "step_factor": 0.1}
"""What AIMET recommends, as far as it does not depend on the scheme."""


def settings_for(scheme: QuantScheme, given: Mapping[str, Any]) -> QAT:
    """The settings of training: what is given, else what the guide recommends for a scheme.

    Raises:
        ConfigError: an unknown setting, or a bad value.
    """
    learned = {"weight_scales": scheme.learns, "activation_ranges": scheme.learns}
    return QAT.from_dict({**GUIDE, **learned, **given})


def train(sim: Simulation, inputs: object, labels: object, augment: Augment | None, settings: QAT) -> Training:
    """Train a simulation, which has the new numbers then; see `QuantizationSimModel.train`."""
    plan = _begun(sim)
    split = apart(sim.float_model, plan)
    model, begun = raised(split.model, split.plan)
    found = None if labels is None else opened_labels(labels)
    feeds = keep(told(samples_of(sim.float_model, inputs)))
    if found is not None:
        feeds = labelled(feeds, [samples_in(feed) for feed in feeds], found, limited=False)
    with followed(None) as show:
        done = train_model(model, begun, feeds, found, settings, lambda *step: show(*_told(*step)), augment=augment)
    for warning in (*training_warnings(done.record), *done.doubts):
        logger.warning(warning)
    if done.record.accepted:
        sim.adopt(together(done.plan, plan))
    return done.record


def _told(text: str, done: int, total: int) -> tuple[str, int, int]:
    logger.info("training, %d of %d steps: %s", done, total, text)
    return f"train {text}", done, total


def _begun(sim: Simulation) -> Plan:
    """The plan of a simulation, whose parameters are not rounded yet, and whose frozen grids are to stay."""
    plan = sim.plan
    frozen = {site.tensor: _kept(site, plan) for site in plan.sites.values() if _is_frozen(sim, site)}
    return replace(plan, sites={**plan.sites, **frozen}, codes={})


def _is_frozen(sim: Simulation, site: Site) -> bool:
    return sim.quantizer(site.tensor).is_encoding_frozen()


def _kept(site: Site, plan: Plan) -> Site:
    """With a range that is known, which nothing learns."""
    low, high = ends(plan.qparams_of(site.tensor), site.format)
    return replace(site, range=(float(low.min()), float(high.max())))
