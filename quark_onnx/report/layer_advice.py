"""Advice on layers: rules about what makes the noise at the output of the model. See `report.advice`.

The noise of the worst layers is taken apart: what rounding the weight makes, and what rounding or clipping the output
makes. A rule speaks where its remedy would take away enough of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from quark_onnx.core.records import GOOD, POOR
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.shown.figures import count
from quark_onnx.report.model_report import Histogram, LayerError, ModelReport, Weight

_Told = TypeVar("_Told")

LOSS = 6.0
"""dB that a layer loses: three quarters of the noise behind it are its own."""

SHARE = 0.25
"""Part of the noise of the output that is worth a sentence: without it, there is 1.2 dB less."""

SOME = 0.1
"""The same where the remedy costs nothing at run time."""

NARROWER, WIDER = 3.0, 1.0
"""dB that a narrower range must gain on a tensor, and a wider one. The former is easily too good to be true: the
samples of a report are few, and what they lack others may have."""

MASK = 1e6
"""The end of a range that only a mask reaches."""

NAMED = 3
"""Layers that a sentence names, at most."""


def harmful_layer(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """One layer makes so much of the noise that leaving it float would show."""
    masks = [histogram.tensor for histogram in r.histograms if _is_mask(histogram)]
    for error in r.layers.worst(NAMED) if _improvable(r) else ():
        part = error.share or 0.0
        if part >= SHARE and error.node in r.notes:
            yield from _read_by_integers(r, error, part)
        elif part >= SHARE and error.node and error.tensor not in masks:
            lost = r.layers.loss(error)
            loses = "" if lost is None or not LOSS <= lost < math.inf else f"loses {lost:.1f} dB and "
            yield (
                _level(r),
                error.node,
                f"Layer {error.node} {loses}makes {_noise(r, part)}: left float "
                f"(`nodes_to_exclude`), the output would gain up to {_gain(part)}.",
            )


def _read_by_integers(r: ModelReport, error: LayerError, part: float) -> Iterator[tuple[str, str, str]]:
    """What a float node makes is rounded for its readers: they alone could be left float."""
    readers = _quantized_for(r, error)
    if readers:
        yield (
            _level(r),
            error.node,
            f"What {error.node} makes in float is rounded for {_listed(readers)}, which makes {_noise(r, part)}: with "
            f"{'that' if len(readers) == 1 else 'those'} left float (`nodes_to_exclude`), the output would gain up to "
            f"{_gain(part)}.",
        )


def _quantized_for(r: ModelReport, error: LayerError) -> list[str]:
    """The nodes that a tensor is quantized for: its own, or those that read it where that one is float already."""
    if error.node not in r.notes:
        return [error.node] if error.node else []
    readers = (other.node for other in r.layers.layers if error.tensor in other.inputs)
    return list(dict.fromkeys(node for node in readers if node and node not in r.notes))


def uneven_weights(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """One scale for channels that reach differently far."""
    uneven = [(error, weight, part * (1 - weight.own)) for error, weight, part in _weights(r) if weight.scales == 1]
    part = sum(part for _, _, part in uneven)
    if part >= SOME and TARGETS[r.target].per_channel:
        _, weight, _ = max(uneven, key=lambda entry: entry[2])
        yield (
            _level(r),
            weight.node,
            f"{count(len(uneven), 'weight')} with one scale, though channels reach differently far (in {weight.node}, "
            f"the largest {weight.ratio or 1.0:.1f} × as far as the median one): try `per_channel`; with that alone, "
            f"the output would gain about {_gain(part)}.",
        )


def rough_weights(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Channels are even, or have scales of their own, and still rounding the weight is what costs."""
    tuned = {record.node for record in r.tuned if record.accepted and record.choice != "untuned"}
    rough = [
        (error, weight, part)
        for error, weight, part in _weights(r)
        if not (weight.node in tuned or weight.dtype.endswith("16") or _evened(r, weight) < 0.5)
    ]
    part = sum(part for _, _, part in rough)
    if part >= SHARE and not r.config.get("use_dynamic_quant"):
        tune = "" if r.fine_tuned else "fine-tuning (`include_fast_ft`), or "
        yield (
            "consider",
            rough[0][1].node,
            f"Rounding {count(len(rough), 'weight')} makes {_noise(r, part)} ({_names(rough)}): "
            f"try {tune}scales by output error (`WeightCalibrateMethod` `SeqMSE`).",
        )


def clipped(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Ranges leave out what matters."""
    cut = [entry for entry in _roundings(r) if entry[1].clipping > 0.5 and entry[1].gain >= WIDER]
    part = sum(part for _, _, part in cut)
    if part >= SOME:
        _, first, _ = cut[0]
        yield (
            "act",
            first.tensor,
            f"Clipping {count(len(cut), 'tensor')} makes {_noise(r, part)} ({_names(cut)}): "
            f"{first.outside:.2g} of the values of {first.tensor} lie outside {_span(first.range)}, up to "
            f"{_span(first.seen)}. {_ranged(first)}.",
        )


def too_wide(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Ranges take in rare values at the cost of all others."""
    wide = [entry for entry in _roundings(r) if entry[1].clipping <= 0.5 and entry[1].gain >= NARROWER]
    part = sum(part for _, _, part in wide)
    if part >= SOME:
        _, first, _ = wide[0]
        yield (
            "consider",
            first.tensor,
            f"{count(len(wide), 'tensor')} with a wide range {_make(wide)} {_noise(r, part)} "
            f"({_names(wide)}): {first.tensor} has {_span(first.range)}. {_ranged(first)}.",
        )


def coarse(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """Grids have too few steps for their tensors, whatever the range."""
    found = [
        (error, histogram, part)
        for error, histogram, part in _roundings(r)
        if not _is_mask(histogram)
        and histogram.gain < (WIDER if histogram.clipping > 0.5 else NARROWER)
        and not histogram.dtype.endswith("16")
    ]
    part = sum(part for _, _, part in found)
    if part >= SHARE and takes_16(r, "activation"):
        _, first, _ = found[0]
        yield (
            _level(r),
            first.tensor,
            f"Rounding {count(len(found), 'tensor')} makes {_noise(r, part)}, and no other "
            f"range helps: {first.dtype} is coarse for {_span(first.seen)}. With 16 bits (`TensorQuantOverrides`) for "
            f"{_names(found, len(found))}, the output would gain up to {_gain(part)}.",
        )


def masked(r: ModelReport) -> Iterator[tuple[str, str, str]]:
    """A mask, such as −3.4e38, has taken all codes: no grid holds it and what it masks."""
    found = [entry for entry in _roundings(r) if _is_mask(entry[1])]
    part = sum(part for _, _, part in found)
    if part >= SOME:
        _, first, _ = found[0]
        nodes = [node for error, _, _ in found for node in _quantized_for(r, error) or [error.tensor]]
        them = "reads" if any(error.node in r.notes for error, _, _ in found) else "makes"
        where = f"{first.tensor}: {_span(first.seen)}"
        noise = f"{_make(found)} {_noise(r, part)}"
        yield (
            _level(r),
            first.tensor,
            f"{count(len(found), 'tensor')} with a mask among the values ({where}) {noise}: leave float what {them} "
            f"them (`nodes_to_exclude`), {', '.join(dict.fromkeys(nodes))}; the output would gain up to {_gain(part)}.",
        )


def _is_mask(histogram: Histogram) -> bool:
    return max(-histogram.range[0], histogram.range[1]) >= MASK


def takes_16(r: ModelReport, what: str) -> bool:
    """Whether the target runs 16-bit types; `what`: activation or weight."""
    types = getattr(TARGETS[r.target], f"{what}_types")
    return not types or any(name.endswith("16") for name in types)


def _level(r: ModelReport) -> str:
    return "act" if (r.noise_sqnr or 0.0) < POOR else "consider"


def _improvable(r: ModelReport) -> bool:
    """Whether the outputs could be better, and it is known what harms them."""
    return r.noise_sqnr is not None and r.noise_sqnr < GOOD and any(e.share for e in r.layers.layers)


def _weights(r: ModelReport) -> list[tuple[LayerError, Weight, float]]:
    """Weights of the worst layers, and the part of the noise that rounding each makes, most first."""
    errors = {error.node: error for error in r.layers.layers if _improvable(r)}
    found = [(errors[w.node], w) for w in r.weights if w.node in errors]
    return _sorted([(error, weight, (error.share or 0.0) * error.by_weight) for error, weight in found])


def _roundings(r: ModelReport) -> list[tuple[LayerError, Histogram, float]]:
    """Tensors of the worst layers, and the part of the noise that rounding each makes, most first."""
    errors = {error.tensor: error for error in r.layers.layers if _improvable(r)}
    found = [(errors[h.tensor], h) for h in r.histograms if h.tensor in errors]
    return _sorted([(error, histogram, (error.share or 0.0) * (1 - error.by_weight)) for error, histogram in found])


def _sorted(entries: list[tuple[LayerError, _Told, float]]) -> list[tuple[LayerError, _Told, float]]:
    return sorted((entry for entry in entries if entry[2] > 0), key=lambda entry: -entry[2])


def _evened(r: ModelReport, weight: Weight) -> float:
    """Part of the error of a weight that a scale per channel leaves."""
    return weight.own if TARGETS[r.target].per_channel else 1.0


def _make(entries: Sequence[object]) -> str:
    return "makes" if len(entries) == 1 else "make"


def _names(entries: Sequence[tuple[LayerError, object, float]], most: int = NAMED) -> str:
    """Those with the largest parts."""
    return _listed([error.tensor if isinstance(told, Histogram) else error.name for error, told, _ in entries], most)


def _listed(names: Sequence[str], most: int = NAMED) -> str:
    return ", ".join(names[:most]) + ", …" * (len(names) > most)


def _ranged(histogram: Histogram) -> str:
    return f"The range of least error (`calibrate_method` `MinMSE`) has {histogram.gain:.1f} dB less of it"


def _noise(r: ModelReport, part: float) -> str:
    return f"{part:.0%} of the noise at {r.layers.place}"


def _gain(part: float) -> str:
    """What an output gains when a part of its noise goes."""
    return f"{-10 * math.log10(max(1 - part, 1e-3)):.1f} dB"


def _span(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3g} … {pair[1]:.3g}"
