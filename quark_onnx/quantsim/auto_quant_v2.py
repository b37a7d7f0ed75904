"""AutoQuant: what a user of AIMET would try, step by step, until the accuracy is what was asked for.

    quant_scheme_selection    the model as it is, with every pair of schemes for weights and activations
    w32_evaluation            float weights: what the activations alone cost
    batchnorm_folding         batch norms become part of layers
    cross_layer_equalization  of the float model, with what the samples show
    adaround                  of the best so far

The order and the rules are AIMET's, with two exceptions. Float weights are tried only while the target is not met. And
where they miss it, too, AIMET gives nothing back; here the best that can be had is made all the same, and the log and
`w32_below_target` say what is the matter. The pair of schemes that was best stays to the end.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError, ModelError
from quark_onnx.core.resource_faults import let_out, shortage, told_as_such
from quark_onnx.core.settings.checked_fields import flag, real
from quark_onnx.engine.calibration_data import told
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.kept_feeds import keep
from quark_onnx.graph import ModelProto, io
from quark_onnx.ladder import Ladder
from quark_onnx.quantsim.adaround.adaround_weight import AdaroundParameters
from quark_onnx.quantsim.auto_quant_steps import Found, Task, scorer
from quark_onnx.quantsim.common.defs import QuantScheme, bits
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.scheme_pairs import CANDIDATES, SchemePair, allowed, as_pair, without_training
from quark_onnx.quantsim.simulated_model import ConfigFile, Source, open_float
from quark_onnx.quantsim.simulation_arguments import as_folder, entries, refuse

logger = logging.getLogger("quark_onnx")

NAME = "auto_quant"
"""Of the files in the results folder: `.onnx`, `.encodings` and `.json`."""

SLACK = 1e-9
"""What the difference of two accuracies may be off by rounding."""


@dataclass(frozen=True)
class Stage:
    """One thing that was tried.

    name      "float", or one of the steps of this module
    schemes   of weights and activations; None: nothing is quantized
    accuracy  what eval_callback said; None: it failed
    met       whether that is what was asked for
    seconds   with evaluation
    error     why it failed
    """

    name: str
    schemes: str | None
    accuracy: float | None
    met: bool
    seconds: float
    error: str | None = None


class AutoQuant:
    """Tries the techniques for quantization after training until the accuracy is what was asked for.

        auto = AutoQuant("model.onnx", None, samples, evaluate)
        model, accuracy, encodings = auto.optimize(allowed_accuracy_drop=0.01)

    Args:
        model: path or `onnx.ModelProto` of a float model; never modified.
        dummy_input: None, or one feed, only checked to fit.
        data_loader: samples without labels: a reader with `get_next()`, or any iterable of feeds, arrays or tuples.
        eval_callback: called as f(session, None), or f(session) if it takes one argument: the accuracy of an
            onnxruntime.InferenceSession, higher is better. None asks for all samples.
        param_bw: width of parameters, 2..31.
        output_bw: width of activations, 2..31.
        quant_scheme: of `run_inference`; `optimize` chooses among the candidates.
        config_file: a runtime configuration, as of `QuantizationSimModel`.
        results_dir: folder for the results; None: a new one in the system's folder for temporary files.
        strict_validation: False goes on without a step that fails.
        others: AIMET's `rounding_mode`, `use_cuda` …, where they say what holds here anyway.

    Attributes:
        stages: what `optimize` tried, in order.
        float_accuracy: of the float model.
        target: the accuracy that was asked for.
        target_met: whether the result reaches it; None: not run yet.
        w32_below_target: whether float weights missed it, too: then it is the activations that lose accuracy.
        applied: the steps that led to the result.

    Raises:
        ConfigError, ModelError, DataError: an argument cannot be used.
    """

    def __init__(
        self,
        model: Source,
        dummy_input: object,
        data_loader: object,
        eval_callback: Callable[..., float],
        param_bw: int = 8,
        output_bw: int = 8,
        quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        *,
        config_file: ConfigFile = None,
        results_dir: str | Path | None = None,
        strict_validation: bool = True,
        **others: object,
    ) -> None:
        refuse(
            "AutoQuant",
            others,
            ("rounding_mode", "use_cuda", "device", "cache_id"),
            ("config_file", "results_dir", "strict_validation"),
        )
        score, widths = scorer(eval_callback), (bits("param_bw", param_bw), bits("output_bw", output_bw))
        self._scheme = without_training(quant_scheme)
        self._strict = flag("strict_validation", strict_validation)
        self._folder = None if results_dir is None else as_folder("results_dir", results_dir)
        feeds = keep(told(samples_of(open_float(model), data_loader)))
        self._task = Task(model, feeds, score, *widths, config_file, dummy_input)
        self._candidates: tuple[SchemePair, ...] = CANDIDATES
        self._reset()

    def _reset(self) -> None:
        self.stages: list[Stage] = []
        self.float_accuracy: float | None = None
        self.target: float | None = None
        self.target_met: bool | None = None
        self.w32_below_target = False
        self.applied: tuple[str, ...] = ()

    def set_adaround_params(self, adaround_params: AdaroundParameters) -> None:
        """What AdaRound learns from, and how long; default: the first 2,000 samples of the data loader.

        Raises:
            ConfigError: they are no `AdaroundParameters`.
        """
        if not isinstance(adaround_params, AdaroundParameters):
            raise ConfigError(f"adaround_params must be AdaroundParameters, not {type(adaround_params).__name__}")
        self._task = replace(self._task, adaround=adaround_params)

    def get_quant_scheme_candidates(self) -> tuple[SchemePair, ...]:
        """The pairs of schemes among which `optimize` chooses."""
        return self._candidates

    def set_quant_scheme_candidates(self, candidates: Iterable[Any]) -> None:
        """Choose among other pairs (weights, activations) of schemes, or of their names.

        Raises:
            ConfigError: there is none, or one is no pair of schemes that need no training.
        """
        pairs = tuple(as_pair(candidate) for candidate in entries("candidates", candidates, "pairs of schemes"))
        if not pairs:
            raise ConfigError("give at least one pair of schemes (weights, activations)")
        self._candidates = pairs

    def run_inference(self) -> tuple[QuantizationSimModel, float]:
        """The simulation with `quant_scheme`, batch norms folded, with encodings; and its accuracy."""
        found = self._task.folded(SchemePair(self._scheme, self._scheme), None)
        return found.sim, found.accuracy

    @told_as_such()
    def optimize(self, allowed_accuracy_drop: float = 0.0) -> tuple[ModelProto, float, str]:
        """Try one step after the other until the target is met, else take the best of all.

        Writes `auto_quant.onnx` (float), `auto_quant.encodings`, and `auto_quant.json` with all that was tried, to the
        results folder.

        Args:
            allowed_accuracy_drop: how far below the float model the accuracy may be.

        Returns:
            The best float model, its accuracy when quantized, and the path of its encodings. `target_met` tells
            whether that is enough; if not, a warning is logged, too.

        Raises:
            ConfigError, ModelError, DataError: an argument or the model cannot be used.
        """
        drop = real(0)("allowed_accuracy_drop", allowed_accuracy_drop)
        candidates = allowed(self._candidates, self._task.param_bw, self._task.output_bw)
        folder = self._results()
        self._reset()
        try:
            best = self._best(candidates, drop)
            best.sim.export(folder, NAME)
        finally:
            self._write(folder)
        return io.to_proto(best.sim.float_model), best.accuracy, str(folder / f"{NAME}.encodings")

    def _best(self, candidates: list[SchemePair], drop: float) -> Found:
        """All steps, one after the other."""
        self._measure_float(drop)
        pair, first = self._choose(candidates)
        if first is None or not self._meets(first.accuracy):
            self._test_activations(pair)
        best = self._improved(pair, first) or first
        if best is None:
            raise ModelError(f"AutoQuant: no step succeeded; the last one: {self.stages[-1].error}")
        self.applied, self.target_met = best.applied, self._meets(best.accuracy)
        steps, text = ", ".join(best.applied) or "no step", "AutoQuant: target %.6g %s; the best is %.6g after %s"
        level = logging.INFO if self.target_met else logging.WARNING
        logger.log(level, text, self.target, "met" if self.target_met else "NOT met", best.accuracy, steps)
        return best

    def _measure_float(self, drop: float) -> None:
        start = time.perf_counter()
        self.float_accuracy = self._task.float_accuracy()
        self.target = self.float_accuracy - drop
        logger.info("AutoQuant: accuracy %.6g as float; the target is %.6g", self.float_accuracy, self.target)
        self.stages.append(Stage("float", None, self.float_accuracy, True, _since(start)))

    def _choose(self, candidates: list[SchemePair]) -> tuple[SchemePair, Found | None]:
        """The pair with the highest accuracy, the first one of equals; a single one is taken as it is."""
        if len(candidates) == 1:
            return candidates[0], None

        def attempt(pair: SchemePair) -> tuple[SchemePair, Found] | None:
            found = self._attempt("quant_scheme_selection", pair, partial(self._task.simulated, pair))
            return None if found is None else (pair, found)

        ladder = Ladder(attempt, lambda new, old: new[1].accuracy > old[1].accuracy)
        return ladder.climb(candidates) or (candidates[0], None)

    def _test_activations(self, pair: SchemePair) -> None:
        """See whether the target can be met at all."""
        make = partial(self._task.simulated, pair, float_weights=True)
        found = self._attempt("w32_evaluation", pair, make)
        if found is not None and not self._meets(found.accuracy):
            self.w32_below_target = True
            logger.warning(
                "AutoQuant: with float weights and %d-bit activations the accuracy is %.6g, below the target %.6g: the "
                "activations lose it, and better weights may not bring it back; more bits for activations (output_bw) "
                "or training would. AIMET gives up here; the best that can be had is made all the same",
                self._task.output_bw,
                found.accuracy,
                self.target,
            )

    def _improved(self, pair: SchemePair, first: Found | None) -> Found | None:
        """The best of the steps that change the model; once one is good enough the rest is not tried."""
        steps = {
            "batchnorm_folding": self._task.folded,
            "cross_layer_equalization": self._task.equalized,
            "adaround": self._task.rounded,
        }

        def attempt(name: str) -> Found | None:
            return self._attempt(name, pair, partial(steps[name], pair, ladder.best or first))

        ladder: Ladder[str, Found] = Ladder(
            attempt, lambda new, old: new.accuracy > old.accuracy, lambda best: self._meets(best.accuracy)
        )
        return ladder.climb(steps)

    def _attempt(self, name: str, pair: SchemePair, make: Callable[[], Found]) -> Found | None:
        """What a step gives, put on record; None where it fails, if that is allowed."""
        start = time.perf_counter()
        try:
            found = make()
        except Exception as error:
            let_out(error)
            self.stages.append(Stage(name, str(pair), None, False, _since(start), f"{type(error).__name__}: {error}"))
            if self._strict:
                raise
            logger.warning("AutoQuant: %s failed, and is left out: %s", name, error)
            return None
        stage = Stage(name, str(pair), found.accuracy, self._meets(found.accuracy), _since(start))
        logger.info("AutoQuant: %s (%s): accuracy %.6g in %.1f s", name, pair, found.accuracy, stage.seconds)
        self.stages.append(stage)
        return found

    def _meets(self, accuracy: float) -> bool:
        assert self.target is not None
        return accuracy >= self.target - SLACK

    def _results(self) -> Path:
        """The folder for results, which is there now.

        Raises:
            ConfigError: it cannot be made.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
            logger.info("AutoQuant: results are written to %s", self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise shortage(error, self._folder) or ConfigError(
                f"cannot make the results_dir {self._folder}: {error.strerror or error}"
            ) from error
        return self._folder

    def _write(self, folder: Path) -> None:
        """The record, as `auto_quant.json`."""
        names = ("float_accuracy", "target", "target_met", "w32_below_target", "applied")
        record: dict[str, Any] = {name: getattr(self, name) for name in names}
        record |= {"param_bw": self._task.param_bw, "output_bw": self._task.output_bw}
        record["stages"] = [asdict(stage) for stage in self.stages]
        with new_file(folder / f"{NAME}.json") as path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
