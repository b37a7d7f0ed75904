"""Protection of a simulation: the quantizers that make an output worthless are switched off."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.plan import Plan
from quark_onnx.core.records import ProtectedRegion
from quark_onnx.core.settings.checked_fields import names
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep as kept
from quark_onnx.engine.protection_wording import region_text
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulated_grids import raised
from quark_onnx.quantsim.simulation import simulated
from quark_onnx.quantsim.wide_grids import apart
from quark_onnx.stages.protect import Hands
from quark_onnx.stages.protect import protect as protected

logger = logging.getLogger("quark_onnx")


def protect(sim: QuantizationSimModel, inputs: object, keep: Collection[str] = ()) -> tuple[ProtectedRegion, ...]:
    """Switch off the quantizers without which no output is lost, and those that nodes do not need any more for it.

    Nothing happens where all outputs, and all of their slices, keep 10 dB. Otherwise as few quantizers go as bring the
    worst one to 20 dB, those first that do most harm for the integer work that they buy: a node computes on integers
    here if all quantizers around it are on. Call it before weights are tuned for what goes.

    Args:
        sim: with encodings; changed in place, or not at all.
        inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples.
        keep: nodes and tensors whose quantizers stay on in any case.

    Returns:
        A record per region that became float.

    Raises:
        ConfigError: a quantizer has no encoding, or `keep` names what the model does not have.
        DataError: the samples do not fit the model.
    """
    forbidden = _kept(sim, keep)
    feeds = kept(told(samples_of(sim.float_model, inputs)))
    split = apart(sim.float_model, sim.plan)
    model, plan = raised(split.model, split.plan)
    done = protected(model, plan, feeds, Hands(partial(_whole_groups, plan), keep=forbidden))
    for quantizer in {sim.quantizer(tensor): None for tensor in plan.sites if tensor not in done.plan.sites}:
        quantizer.enabled = False
    for region in done.regions:
        logger.info("protection: %s", region_text(region))
    return done.regions


def _kept(sim: QuantizationSimModel, keep: Collection[str]) -> tuple[str, ...]:
    """The names, all of nodes or of tensors with a quantizer.

    Raises:
        ConfigError: one is not.
    """
    known = {node.name or "" for node in simulated(sim).float_model.graph} | sim.qc_quantize_op_dict.keys()
    wanted = names("keep", sorted(keep) if isinstance(keep, (set, frozenset)) else keep)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"keep: the model has no node or quantizer {name!r}{nearest(name, known)}")
    return wanted


def _whole_groups(start: Plan, plan: Plan) -> Plan:
    """The plan with all of each group that is left: tensors that share a quantizer have it on or off together."""
    groups = {site.group for site in plan.sites.values()}
    sites = {tensor: site for tensor, site in start.sites.items() if site.group in groups}
    return replace(plan, sites=sites, codes={t: codes for t, codes in start.codes.items() if t in sites})
