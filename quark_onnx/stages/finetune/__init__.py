"""Fast fine-tuning, weight scales by output error and bias correction: layer by layer, each against the float model.

Fills `Plan.codes` and `Plan.values`. A fold over the layers: every layer reads what the layers before it, as tuned,
now produce (Nagel et al. 2020, section 3.3), and is changed only if held-out samples say that it helps.
"""

from quark_onnx.stages.finetune.judged_correction import judged, lesson
from quark_onnx.stages.finetune.layer_by_layer import finetune

__all__ = ["finetune", "judged", "lesson"]
