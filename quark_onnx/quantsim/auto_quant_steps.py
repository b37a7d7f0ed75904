"""The steps of AutoQuant: each makes a float model out of another one, simulates it, and says how good that is."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import ModelProto
from quark_onnx.graph.view import is_op
from quark_onnx.quantsim.adaround.adaround_weight import Adaround, AdaroundParameters
from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms
from quark_onnx.quantsim.cross_layer_equalization import equalize_model
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.scheme_pairs import SchemePair
from quark_onnx.quantsim.simulated_model import ConfigFile, Source, open_float

Score = Callable[[Any], float]

MOST = 2000
"""Samples that AdaRound learns from, unless other parameters are given."""


@dataclass(frozen=True, eq=False)
class Found:
    """A float model, its simulation with encodings, how good that is, and the steps that led there."""

    model: Source
    sim: QuantizationSimModel
    accuracy: float
    applied: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be quantized, on which samples, how, and how it is scored.

    model        the user's; never modified
    feeds        samples for encodings, equalization and AdaRound
    score        of a session, higher is better
    dummy_input  None, or a feed that is only checked
    adaround     None: all feeds, but no more than 2,000 samples
    """

    model: Source
    feeds: Sequence[Feed]
    score: Score
    param_bw: int
    output_bw: int
    config_file: ConfigFile = None
    dummy_input: object = None
    adaround: AdaroundParameters | None = None

    def float_accuracy(self) -> float:
        """The score of the float model."""
        return self.score(Runner(open_float(self.model)).session)

    def simulated(
        self,
        pair: SchemePair,
        model: Source | None = None,
        applied: tuple[str, ...] = (),
        *,
        float_weights: bool = False,
        frozen: Path | None = None,
    ) -> Found:
        """The simulation of a float model.

        Args:
            model: None: the user's.
            float_weights: parameters are not quantized.
            frozen: a file with encodings of parameters.
        """
        source = self.model if model is None else model
        sim = QuantizationSimModel(
            source,
            dummy_input=self.dummy_input,
            quant_scheme=pair.output_quant_scheme,
            default_param_bw=self.param_bw,
            default_output_bw=self.output_bw,
            config_file=self.config_file,
        )
        for quantizer in sim.get_all_quantizers()[0]:
            if pair.param_quant_scheme != pair.output_quant_scheme:
                quantizer.set_quant_scheme(pair.param_quant_scheme)
            quantizer.enabled = quantizer.enabled and not float_weights
        if frozen is not None:
            sim.set_and_freeze_param_encodings(frozen)
        sim.compute_encodings(self.feeds)
        return Found(source, sim, self.score(sim.session), applied)

    def folded(self, pair: SchemePair, before: Found | None) -> Found:
        """Batch norms folded. Without any that is the model as it is, which was simulated before perhaps."""
        applied = ("batchnorm_folding",)
        if before is not None and not any(is_op(node, "BatchNormalization") for node in before.sim.float_model.graph):
            return replace(before, applied=applied)
        return self.simulated(pair, fold_all_batch_norms(self._copy()), applied)

    def equalized(self, pair: SchemePair, _: Found | None) -> Found:
        """Batch norms folded, channels evened out and high biases moved on, with what the samples show."""
        return self.simulated(pair, equalize_model(self._copy(), self.feeds), ("cross_layer_equalization",))

    def rounded(self, pair: SchemePair, best: Found | None) -> Found:
        """AdaRound of the best so far, or of the user's model."""
        source, applied = (self.model, ()) if best is None else (best.model, best.applied)
        with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
            model = Adaround.apply_adaround(
                source,
                None,
                self.adaround or _all_of(self.feeds),
                folder,
                "adaround",
                default_param_bw=self.param_bw,
                default_quant_scheme=pair.param_quant_scheme,
                default_config_file=self.config_file,
            )
            return self.simulated(pair, model, (*applied, "adaround"), frozen=Path(folder) / "adaround.encodings")

    def _copy(self) -> Source:
        """The user's model, so that it can be changed in place; files never are."""
        if not isinstance(self.model, ModelProto):
            return self.model
        copy = ModelProto()
        copy.CopyFrom(self.model)
        return copy


def _all_of(feeds: Sequence[Feed]) -> AdaroundParameters:
    """Parameters for as many of the feeds as hold `MOST` samples."""
    rows, count = 0, 0
    while count < len(feeds) and rows < MOST:
        array = next(iter(feeds[count].values()))
        rows, count = rows + (len(array) if array.ndim else 1), count + 1
    return AdaroundParameters(feeds, count)


def scorer(callback: object) -> Score:
    """A user's callback as a function of a session that surely gives a number.

    It is called as f(session, None), None meaning all samples; or as f(session) if it takes one argument.

    Raises:
        ConfigError: it cannot be called.
    """
    if not callable(callback):
        raise ConfigError(f"eval_callback must be a function of a session, not {type(callback).__name__}")
    try:
        inspect.signature(callback).bind(None, None)
        rest: tuple[None, ...] = (None,)
    except (TypeError, ValueError):
        rest = ()

    def score(session: Any) -> float:
        value = callback(session, *rest)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"eval_callback must return a number, not {value!r}") from error
        if not math.isfinite(number):
            raise DataError(f"eval_callback returned {number}; an accuracy must be finite")
        return number

    return score
