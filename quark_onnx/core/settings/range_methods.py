"""How ranges are chosen: the methods by name, and their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

METHODS: dict[str, str] = {
    "MinMax": "from the smallest to the largest value seen",
    "Percentile": "a percentage of the values seen; the rest is clipped",
    "Entropy": "the threshold whose quantized distribution tells least from the one seen (Kullback-Leibler)",
    "MinMSE": "the range with the least mean squared rounding and clipping error",
    "Distribution": "so many standard deviations around the mean, the best for a bell-shaped distribution",
    "LayerwisePercentile": "of several percentages, for every tensor the one with the least error",
    "NonOverflow": "the smallest power-of-two scale that clips nothing",
    "tf": "AIMET's min-max: from the smallest to the largest value seen",
    "tf_enhanced": "AIMET's SQNR search: least rounding error plus three times the clipping error",
    "tf_percentile": "AIMET's percentile: cut at the edge of a bin of 1/512 of the range seen",
}
"""The methods and, in words, the range each takes."""

WEIGHT_ONLY: dict[str, str] = {
    "SeqMSE": "the scale with the least output error of the layer, found from moments of its input, layer by layer",
    "HQQ": "scale and zero point fitted to the weight by half-quadratic steps, for few bits and blocks; needs no data",
}
"""Methods for weights alone: by what the layer computes, or many grids at once."""

ALIASES = {
    "MSE": "MinMSE",
    "min_max": "tf",
    "post_training_tf": "tf",
    "post_training_tf_enhanced": "tf_enhanced",
    "sqnr": "tf_enhanced",
    "post_training_percentile": "tf_percentile",
    "KL": "Entropy",
}
"""Other names of the methods: AIMET's quantization schemes, and what people say."""

CUTS_BOTH_ENDS = ("Percentile", "LayerwisePercentile")
"""Methods that take one threshold on |x| unless told otherwise, as in Quark and onnxruntime."""


@dataclass(frozen=True)
class Ranging:
    """A range method with its settings.

    percentile   of Percentile and tf_percentile, in percent
    symmetric    of the Percentile methods: one threshold on |x|, and no end beyond what was seen; False: each end has
                 its own. Of all others: the range reaches as far to both sides of 0
    candidates   of LayerwisePercentile, in percent
    metric       of LayerwisePercentile: "mae" or "mse"
    bins, levels of Entropy: bins of the histogram, and quantized bins that a candidate is told from
    """

    method: str = "MinMax"
    percentile: float = 99.999
    symmetric: bool = False
    candidates: tuple[float, ...] = (99.99, 99.999, 99.99999)
    metric: str = "mae"
    bins: int = 2048
    levels: int = 128


def ranging_of(method: str, option: Callable[[str], Any], *, observed: bool) -> Ranging:
    """A range method with the settings of a configuration.

    Args:
        option: the value of an extra option by its name.
        observed: of an activation. Weights and other constants are known exactly: no range of theirs is widened.
    """
    both = option("CalibTensorRangeSymmetric")
    cuts = method in CUTS_BOTH_ENDS
    return Ranging(
        method,
        float(option("Percentile")),
        cuts if both is None else both and (cuts or observed),
        tuple(option("PercentileCandidates")),
        option("LWPMetric"),
        option("NumBins"),
        option("NumQuantizedBins"),
    )
