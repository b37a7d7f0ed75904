"""−∞ in an input: a mask, where what the model makes of it stays finite.

In front of a Softmax nothing comes of −∞. Anywhere else it spreads, or becomes NaN. The model itself is asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import numpy as np

from quark_onnx.engine.calibration_data import CalibrationData, Feed, ImageOptions, InputSpec, open_data
from quark_onnx.engine.runner import Runner, input_specs
from quark_onnx.graph import Model
from quark_onnx.numerics.output_pairs import paired


class Asked:
    """Asks a float model, which gets a session with the first mask that comes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._runner: Runner | None = None

    def __call__(self, feed: Feed) -> str | None:
        """The first output that is not finite for this feed; None: all are.

        Raises:
            ModelError, DataError: the model does not run.
        """
        self._runner = self._runner or Runner(self._model)
        for name, output in zip(self._runner.outputs, self._runner(feed), strict=True):
            if not all(np.isfinite(pair.x).all() for pair in paired(output, output)):
                return name
        return None


def samples_of(
    model: Model,
    source: object,
    *,
    path: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    image_options: ImageOptions | None = None,
    beside: Sequence[InputSpec] = (),
) -> CalibrationData:
    """The samples of a model, as `open_data` reads them, with −∞ where the model takes it for a mask.

    beside: what samples hold besides the model's inputs.
    """
    asked, inputs = partial(Asked, model), (*input_specs(model), *beside)
    return open_data(source, inputs, path=path, limit=limit, image_options=image_options, masks=asked)
