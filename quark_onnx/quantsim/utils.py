"""A score for sessions, and a feed to try a model on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, DataError, ModelError
from quark_onnx.core.settings.checked_fields import whole
from quark_onnx.engine.calibration_data import Feed, InputSpec, open_data, told
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runner import Runner, input_specs
from quark_onnx.numerics.output_pairs import paired
from quark_onnx.quantsim.simulated_model import Source

LOUDEST = 100.0
"""Ratios beyond ± so many dB are cut, so that scores can be compared and averaged."""

FAINT = 1e-10
"""A signal counts as at least this large, so that one that is zero everywhere has a ratio, too."""

_FLOATS = {"float16", "float32", "float64"}
_TYPES = {"float": "float32", "double": "float64", "string": "object"}
"""onnxruntime's names of types that are not numpy's."""


def make_psnr_eval_fn(
    float_model: Any, inputs: object, output_indices: int | Sequence[int] | None = None
) -> Callable[[Any], float]:
    """A score for sessions: how near their outputs are to those of a float model, in dB.

    PSNR = 20·log10(peak / RMS error) of each output over all samples, where the peak is the larger one of its range and
    its largest absolute value; cut at ± 100 dB. The score is that of the worst output; an output that is not finite has
    the lowest one. Of an output that is not float, values are kept or not: 1, and 1 or 0 (`numerics.output_pairs`).

    Args:
        float_model: onnxruntime session of the float model, or its path or `onnx.ModelProto`.
        inputs: samples: a reader with `get_next()`, a folder, or any iterable of feeds, arrays or tuples.
        output_indices: of the outputs that count; None: all outputs of a float type, or all where none is.

    Raises:
        ConfigError: there is no such output.
        DataError: the samples do not fit the model, or its outputs are not finite.
    """
    session = float_model if hasattr(float_model, "get_inputs") else Runner(open_model(float_model)).session
    chosen = _chosen(session.get_outputs(), output_indices)
    specs = [_spec(value) for value in session.get_inputs()]
    feeds = list(told(open_data(inputs, specs, masks=lambda: _unasked)))
    names = [value.name for value in session.get_outputs()]
    expected = [_outputs(session, feed, chosen) for feed in feeds]
    for i, arrays in zip(chosen, zip(*expected, strict=True), strict=True):
        own = [pair.x for array in arrays for pair in paired(array, array)]
        if not sum(a.size for a in own) or not all(np.isfinite(a).all() for a in own):
            raise DataError(f"output {names[i]!r} of the float model is empty or not finite; choose other outputs")

    def eval_fn(other: Any) -> float:
        found = [_outputs(other, feed, chosen) for feed in feeds]
        pairs = zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True)
        return min(psnr(want, got) for want, got in pairs)

    return eval_fn


def make_dummy_input(model: Source, dynamic_size: int = 1) -> dict[str, NDArray[Any]]:
    """A feed of random numbers, to try whether a model runs; no data to compute encodings of.

    Args:
        model: path or `onnx.ModelProto`.
        dynamic_size: of the dimensions that the model leaves open.

    Returns:
        Input → array: floats from 0 to 1, zeros of other types.

    Raises:
        ModelError: the model cannot be read, or does not say how many dimensions an input has.
    """
    size, chance = whole(1)("dynamic_size", dynamic_size), np.random.default_rng(0)
    feed: dict[str, NDArray[Any]] = {}
    for spec in input_specs(open_model(model)):
        if spec.shape is None:
            raise ModelError(f"input {spec.name!r} has no known number of dimensions; make a feed for it by hand")
        shape = [size if n is None else n for n in spec.shape]
        drawn = chance.random(shape) if spec.dtype.kind == "f" else np.zeros(shape)
        feed[spec.name] = drawn.astype(spec.dtype)
    return feed


def psnr(expected: Sequence[Any], actual: Sequence[Any]) -> float:
    """Peak signal-to-noise ratio in dB of pairs of outputs that are one signal; see `make_psnr_eval_fn`.

    Raises:
        DataError: two shapes differ.
    """
    pairs = [pair for want, got in zip(expected, actual, strict=True) for pair in paired(want, got)]
    for pair in pairs:
        if pair.shapes is not None and not pair.exact:
            raise DataError(f"an output has the shape {pair.shapes[0]} in the float model, and here {pair.shapes[1]}")
    if not all(np.isfinite(pair.y).all() for pair in pairs):
        return -LOUDEST
    low = min(float(pair.x.min()) for pair in pairs if pair.x.size)
    high = max(float(pair.x.max()) for pair in pairs if pair.x.size)
    peak = max(high - low, abs(low), abs(high), FAINT)
    noise = sum(float(np.square(pair.x.astype(np.float64) - pair.y).sum()) for pair in pairs)
    error = math.sqrt(noise / sum(pair.x.size for pair in pairs))
    return LOUDEST if error == 0 else float(np.clip(20 * math.log10(peak / error), -LOUDEST, LOUDEST))


def _outputs(session: Any, feed: Feed, chosen: Sequence[int]) -> list[Any]:
    found = session.run(None, feed)
    return [found[i] for i in chosen]


def _chosen(outputs: Sequence[Any], asked: int | Sequence[int] | None) -> list[int]:
    """Indices of the outputs that count."""
    if asked is None:
        floats = [i for i, value in enumerate(outputs) if _type(value.type) in _FLOATS]
        return floats or list(range(len(outputs)))
    check = whole(0, len(outputs) - 1)
    indices = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    if not indices:
        raise ConfigError("output_indices is empty; give at least one, or None for all outputs of a float type")
    return [check("each of output_indices", i) for i in indices]


def _unasked(feed: Feed) -> None:
    """Whether outputs are finite is looked at for all feeds."""


def _spec(value: Any) -> InputSpec:
    """What an input of a session accepts."""
    dims = tuple(n if isinstance(n, int) and n > 0 else None for n in value.shape)
    return InputSpec(value.name, np.dtype(_type(value.type)), dims)


def _type(text: str) -> str:
    """numpy's name of a type of onnxruntime, e.g. "float32" for "tensor(float)"."""
    inner = text.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(inner, inner)
