"""What quantization does to a model, layer by layer: scores, ranges and errors, as JSON files in a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.core.settings.checked_fields import whole
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.numerics.output_pairs import paired
from quark_onnx.quantsim.batch_norm_fold import folded
from quark_onnx.quantsim.common.defs import QuantScheme
from quark_onnx.quantsim.data_loader import feeds_of
from quark_onnx.quantsim.quantsim import QuantizationSimModel
from quark_onnx.quantsim.sensitivity_analysis import analyze_per_layer_sensitivity, restored
from quark_onnx.quantsim.simulated_grids import realized
from quark_onnx.quantsim.simulated_model import ConfigFile, Source
from quark_onnx.quantsim.simulation_arguments import as_folder

logger = logging.getLogger("quark_onnx")

Callback = Callable[[Any], Any]


class QuantAnalyzer:
    """Analyzes how well a model can be quantized; its BatchNormalizations are folded in a copy first.

    Args:
        model: path or `onnx.ModelProto` of a float model; never modified.
        dummy_input: None, or one feed, only checked to fit.
        forward_pass_callback: called with a session, it runs it on samples: a function, or a `CallbackFunc`.
        eval_callback: called with a session, it gives a score; higher is better.

    Raises:
        ConfigError, ModelError: an argument cannot be used.
    """

    def __init__(
        self, model: Source, dummy_input: object, forward_pass_callback: Callback, eval_callback: Callback
    ) -> None:
        for name, value in (("forward_pass_callback", forward_pass_callback), ("eval_callback", eval_callback)):
            if not callable(value):
                raise ConfigError(f"{name} must be a function of a session, or a CallbackFunc, not {value!r}")
        self._model, self._dummy_input = io.to_proto(folded(model).model), dummy_input
        self._forward, self._evaluate = forward_pass_callback, eval_callback
        self._feeds: Sequence[Feed] = ()

    def enable_per_layer_mse_loss(self, unlabeled_dataset_iterable: object, num_batches: int) -> None:
        """Have `analyze` write the mean squared error of every layer, too.

        Args:
            unlabeled_dataset_iterable: yields batches: feeds, arrays or tuples of arrays; 256 samples are enough.
            num_batches: how many of them are used.

        Raises:
            ConfigError: there are fewer.
            DataError: they do not fit the model.
        """
        count = whole(1)("num_batches", num_batches)
        self._feeds = feeds_of(unlabeled_dataset_iterable, count, None, QuantizationSimModel(self._model).float_model)

    @told_as_such()
    def analyze(
        self,
        quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        default_param_bw: int = 8,
        default_activation_bw: int = 8,
        config_file: ConfigFile = None,
        results_dir: str | Path = "./results/",
    ) -> None:
        """Simulate the model, and write what is found.

        In `results_dir`: `per_layer_quant_enabled.json` and `…_disabled.json`, the score with the quantizers of a node
        alone on, or off; `min_max_ranges/weights.json` and `activations.json`, the range of each tensor, or of each of
        its channels; `per_layer_mse_loss.json` if it is enabled. The log has the scores of the float model, and with
        parameters or activations alone quantized. AIMET draws pages of it, too.

        Args:
            quant_scheme, default_param_bw, default_activation_bw, config_file: as of the simulation.

        Raises:
            ConfigError: an argument cannot be used, a score is no number, or a file cannot be written.
            DataError: the forward pass runs nothing.
        """
        place = as_folder("results_dir", results_dir)
        sim = QuantizationSimModel(
            self._model,
            dummy_input=self._dummy_input,
            quant_scheme=quant_scheme,
            default_param_bw=default_param_bw,
            default_activation_bw=default_activation_bw,
            config_file=config_file,
        )
        sim.compute_encodings(self._forward)
        self._tell(sim)
        for name, enabled in (("enabled", True), ("disabled", False)):
            file = place / f"per_layer_quant_{name}.json"
            analyze_per_layer_sensitivity(sim, self._evaluate, file, enabled=enabled)
        for name, quantizers in zip(("weights", "activations"), sim.get_all_quantizers(), strict=True):
            found = {t: _ranges(q.get_encodings() or []) for q in quantizers if q.enabled for t in q.tensors}
            _write(found, place / "min_max_ranges" / f"{name}.json")
        if self._feeds:
            _write(self._losses(sim), place / "per_layer_mse_loss.json")

    def _tell(self, sim: QuantizationSimModel) -> None:
        """Log the scores of the float model, and of what is quantized in part."""
        logger.info("float model: %g", self._evaluate(Runner(sim.float_model).session))
        for name, quantizers in zip(("parameters", "activations"), sim.get_all_quantizers(), strict=True):
            with restored(sim) as on:
                for quantizer in on:
                    quantizer.enabled = quantizer in quantizers
                logger.info("with %s alone quantized: %g", name, self._evaluate(sim.session))

    def _losses(self, sim: QuantizationSimModel) -> dict[str, float]:
        """Layer → mean squared error of its first output, over all samples."""
        layers = {node.name or "": node.outputs[0].name or "" for node in sim.float_model.graph}
        simulated, names = realized(sim.float_model, sim.plan), list(layers.values())
        behind = quantized_values(simulated)
        wanted = ((sim.float_model, names), (simulated, [behind.get(name, name) for name in names]))
        sides = [Runner(io.with_outputs(model, tensors), tensors, fuse=False) for model, tensors in wanted]
        squares, counts = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
        for feed in self._feeds:
            for layer, x, y in zip(layers, *(side(feed) for side in sides), strict=True):
                for pair in paired(x, y):
                    squares[layer] += float(((pair.x.astype(float) - pair.y) ** 2).sum())
                    counts[layer] += pair.x.size
        return {layer: squares[layer] / counts[layer] for layer in layers if counts[layer]}


def _ranges(encodings: Sequence[Any]) -> list[float] | list[list[float]]:
    """[min, max] of a tensor, or a list of these, one for each channel."""
    pairs = [[encoding.min, encoding.max] for encoding in encodings]
    return pairs[0] if len(pairs) == 1 else pairs


def _write(found: Mapping[str, Any], path: Path) -> None:
    with new_file(path) as file:
        file.write_text(json.dumps(found, indent=1) + "\n")
