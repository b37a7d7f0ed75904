"""What a user gives to training besides samples: labels, and a function that makes other samples of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.labels import opened_labels
from quark_onnx.stages.train import Augment

Array = NDArray[Any]

NO_TRAINING = (
    "{what} for training, and with this configuration nothing is trained: start from a preset such as S8S8_AAWS_QAT, "
    "set the extra option QAT, or leave {it} out"
)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """labels   a row for each sample, see `opened_labels`; None: none
    augment  what is done to a sample before it is trained on, in place of flips and crops; None: these, as asked for
    """

    labels: Array | None = None
    augment: Augment | None = None

    @classmethod
    def of(cls, config: QuantizationConfig, labels: object, augment: Augment | None) -> TrainingData:
        """As a user gives them.

        Raises:
            ConfigError: nothing trains, or what there is cannot be used.
            DataError: the labels are not one array of numbers.
        """
        training = config.training
        if labels is not None and training is None:
            raise ConfigError(NO_TRAINING.format(what="labels are", it="them"))
        if augment is not None and training is None:
            raise ConfigError(NO_TRAINING.format(what="an augmentation is", it="it"))
        if augment is not None and not callable(augment):
            raise ConfigError(
                "augment must be a function of a sample (a dictionary of its arrays) and a numpy Generator that "
                f"returns another sample, not {augment!r:.80}; flips and crops are settings of QAT"
            )
        if labels is not None and config.option("UseRandomData"):
            raise ConfigError("labels are given, and UseRandomData=True asks for random samples; leave one of them out")
        return cls(None if labels is None else opened_labels(labels), augment)
