"""Training of the quantized model: its parameters, as they are exported, by the gradients of a loss."""

from quark_onnx.stages.train.batches import Augment
from quark_onnx.stages.train.model_training import Outcome, in_threads, train_model

__all__ = ["Augment", "Outcome", "in_threads", "train_model"]
