"""A float model and an encodings file, of AIMET or of ours, to the quantized model for onnxruntime."""

from __future__ import annotations

from quark_onnx.core.errors import PlanError, nearest
from quark_onnx.encodings import read
from quark_onnx.encodings.reading import Source as EncodingSource
from quark_onnx.encodings.reading import named
from quark_onnx.graph import ModelProto
from quark_onnx.quantsim.quantsim import QuantizationSimModel, load_encodings_to_sim
from quark_onnx.quantsim.simulated_model import Source
from quark_onnx.quantsim.simulation_arguments import refuse


def encodings_to_onnx_qdq(model: Source, encodings: EncodingSource, **others: object) -> ModelProto:
    """The model with QuantizeLinear and DequantizeLinear where the file has encodings of integers, and only there.

    Args:
        model: path or `onnx.ModelProto` of the float model; never modified.
        encodings: a path, or the document that was read of it, versions 0.4.0 to 2.0.0.
        others: AIMET's `prequantize_constants`, where it says what holds here anyway: parameters are integers.

    Raises:
        ConfigError: a grid has more than 16 bits.
        ModelError, PlanError: the model or the file cannot be read, or the file names what the model has not.
    """
    refuse("encodings_to_onnx_qdq", others, ())
    sim = QuantizationSimModel(model)
    known = sim.qc_quantize_op_dict
    for tensor, encoding in read(encodings, [t for t, q in known.items() if q.is_param]).all.items():
        if tensor not in known and not encoding.is_float and encoding.bits != 32:
            raise PlanError(f"{named(encodings)}: the model has no float tensor {tensor!r}{nearest(tensor, known)}")
    load_encodings_to_sim(sim, encodings, strict=False)
    return sim.to_onnx_qdq()
