"""What every layer computes, as files: of a float model and of its simulation under the same names, to be compared."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from quark_onnx.core.atomic_files import new_file
from quark_onnx.core.resource_faults import told_as_such
from quark_onnx.engine.compare import quantized_values
from quark_onnx.engine.infinite_masks import samples_of
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.quantsim.simulated_model import Source
from quark_onnx.quantsim.simulation_arguments import as_folder, refuse

logger = logging.getLogger("quark_onnx")

T = TypeVar("T")


class LayerOutputUtil:
    """Writes the outputs of all layers of a model, one folder for each call.

        util = LayerOutputUtil(sim.model, "simulated")
        util.generate_layer_outputs(feed)

    `<dir_path>/layer_output_name_order.json` holds the names in the order of the graph, `inputs/input_<n>.raw` what the
    model read (a folder with a file for each of several inputs), `outputs/layer_outputs_<n>/<name>.raw` what came out:
    the numbers of an array, one after the other. Of a quantized model these are tensors with a quantizer, behind it.
    In names, runs of what is no letter, digit or underscore are an underscore.

    Args:
        model: path or `onnx.ModelProto`: float, or `sim.model`.
        dir_path: folder for the files.
        others: none of AIMET's `device`.

    Raises:
        ConfigError, ModelError: an argument cannot be used.
    """

    def __init__(self, model: Source, dir_path: str | Path, **others: object) -> None:
        refuse("LayerOutputUtil", others, ("device",), ("dir_path",))
        self._model, self._folder = open_model(model), as_folder("dir_path", dir_path)
        self._tensors = _named(quantized_values(self._model) or _computed(self._model))
        shown = io.with_outputs(self._model, list(self._tensors.values()))
        self._runner = Runner(shown, list(self._tensors.values()), fuse=False)
        self._count = 0
        with new_file(self._folder / "layer_output_name_order.json") as path:
            path.write_text(json.dumps({"layer_output_names": list(self._tensors)}, indent=4) + "\n")

    @told_as_such()
    def generate_layer_outputs(self, input_instance: object) -> None:
        """Run the model on one feed, and write what it read and what its layers made of it.

        Args:
            input_instance: a feed, the array of a model with one input, or a tuple with an array for each.

        Raises:
            DataError: it does not fit the model.
            ConfigError: a file cannot be written.
        """
        feed = next(iter(samples_of(self._model, [input_instance])))
        place = self._folder / "inputs" / f"input_{self._count}"
        if len(feed) == 1:
            _write(place.with_suffix(".raw"), next(iter(feed.values())))
        else:
            for name, array in _named(feed).items():
                _write(place / f"{name}.raw", array)
        outputs = self._folder / "outputs" / f"layer_outputs_{self._count}"
        for name, array in zip(self._tensors, self._runner(feed), strict=True):
            _write(outputs / f"{name}.raw", array)
        logger.info("outputs of %d layers in %s", len(self._tensors), outputs)
        self._count += 1


def _computed(model: Model) -> dict[str, str]:
    """What nodes of the main graph compute, in order; the inputs are files of their own."""
    names = [value.name for node in model.graph for value in node.outputs if value.name]
    return {name: name for name in names}


def _named(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same by names of files; no two are alike."""
    found: dict[str, T] = {}
    for tensor, value in tensors.items():
        name = re.sub(r"\W+", "_", tensor)
        while name in found:
            name += "_"
        found[name] = value
    return found


def _write(path: Path, array: Any) -> None:
    if isinstance(array, np.ndarray) and array.dtype.kind in "biuf":  # sequences and texts are no row of numbers
        with new_file(path) as file:
            np.ascontiguousarray(array).tofile(file)
