"""Protection: quantizers that do harm out of proportion to what they buy are taken out of the plan.

Between ranges and fine-tuning. What a quantizer does to the outputs is measured on a few samples (`noise_by_group`),
what it buys is counted (`integer_work`), and whole runs decide (`protection`).
"""

from quark_onnx.stages.protect.own_scales import with_own_scales
from quark_onnx.stages.protect.protection import Hands, Protection, protect

__all__ = ["Hands", "Protection", "protect", "with_own_scales"]
