"""SeqMSE: weight scales by the error that they make at the output of their layer, one layer after the other.

Every layer reads what the layers before it, with the scales that they have by now, make of the samples; activations are
not quantized meanwhile. The candidates are k / num_candidates of the grid from the smallest to the largest weight.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import whole
from quark_onnx.core.settings.fast_finetune import Nearest
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.graph import Model
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.fine_tuning import tuned
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.simulated_grids import plan_of, rounded
from quark_onnx.quantsim.simulated_model import ranging
from quark_onnx.quantsim.simulation import simulated
from quark_onnx.quantsim.simulation_arguments import layer_names, layers_of
from quark_onnx.stages.ranges import choose_ranges

logger = logging.getLogger("quark_onnx")


@told_as_such()
def apply_seq_mse(
    sim: QuantizationSimModel, inputs: object, num_candidates: int = 20, nodes_to_exclude: Collection[str] | None = None
) -> None:
    """Choose the scales of the weights of layers by output error, and freeze them in the simulation.

    Layers are Conv, ConvTranspose, Gemm and MatMul with a constant weight that is quantized, with one scale or one per
    channel. The scheme of the simulation does not matter for them. Frozen weights stay as they are, and so does one
    that has a fixed range. A scale that held-out samples do not confirm stays that of the smallest and largest weight.
    Afterwards call `compute_encodings` for everything else.

    Args:
        sim: changed in place, or not at all.
        inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples.
        num_candidates: scales that are tried for each weight; more than AIMET's 20 help, above all at few bits.
        nodes_to_exclude: names of layers whose weights keep what the simulation has.

    Raises:
        ConfigError: there is no such layer, or `num_candidates` is no positive whole number.
        DataError: the samples do not fit the model.
        KeyboardInterrupt: it was interrupted; nothing has changed then.
    """
    count = whole(1)("num_candidates", num_candidates)
    excluded = layer_names("nodes_to_exclude", nodes_to_exclude or (), layers_of(simulated(sim).float_model))
    weights = _weights(sim)
    kept = {t: q for node in excluded for t, q in sim.get_op_quantizers(node)[2].items() if t in weights}
    kept |= {t: q for t, q in weights.items() if q.is_encoding_frozen() or len(q.tensors) > 1}
    feeds = keep(told(samples_of(sim.float_model, inputs)))
    options = Nearest(update_bias=False, target_op_type=LAYERS, num_candidates=count)
    # no gains: all channels count the same, as in AIMET
    done = tuned(sim.float_model, _start(sim.float_model, weights, kept), feeds, options, gains={})
    for record in done.records:
        scale = "another scale" if record.accepted else "its widest scale"
        logger.info("SeqMSE: %s has %s, error %.4g → %.4g", record.node, scale, record.held_before, record.held_after)
        for tensor, quantizer in sim.get_op_quantizers(record.node)[2].items():
            if tensor in weights and not quantizer.is_encoding_frozen():
                quantizer.take(quantizer.format, done.plan.qparams_of(tensor), freeze=True)
    for node, reason in done.reasons.items():
        if node not in excluded and sim.get_op_quantizers(node)[2].keys() & weights.keys():
            logger.warning("SeqMSE leaves %r as it is: %s", node, reason)


def _weights(sim: QuantizationSimModel) -> dict[str, Quantizer]:
    """Quantizers that are on, of weights and other parameters but biases."""
    found = sim.qc_quantize_op_dict.items()
    return {t: q for t, q in found if q.enabled and q.sites[0].role == "weight"}


def _start(model: Model, weights: Mapping[str, Quantizer], kept: Mapping[str, Quantizer]) -> Plan:
    """A plan of weights alone: from the smallest to the largest value, but for those that are kept.

    What is kept and has no encoding yet is quantized so, too.
    """
    plan = plan_of(model, dict.fromkeys(weights.values()))
    given = {t: q.qparams for t, q in kept.items() if q.qparams is not None}
    sites = {t: site if t in kept else replace(site, method=None) for t, site in plan.sites.items()}
    widest = choose_ranges(model, replace(plan, sites=sites, qparams={}), {}, ranging(QuantScheme.min_max))
    qparams = {**widest.qparams, **{widest.sites[t].group: q for t, q in given.items() if t in widest.sites}}
    start = replace(widest, qparams=qparams)
    return replace(start, codes={t: codes for t, codes in rounded(model, start).codes.items() if t in kept})
