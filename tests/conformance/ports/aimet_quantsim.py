"""AIMET's quantsim notebook (1.x): fold, simulate, a callback that runs the session on samples, evaluate, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from quark_onnx.quantsim import QuantizationSimModel, fold_all_batch_norms


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms_to_weight
    from quark_onnx.quantsim.common.defs import QuantScheme
    from quark_onnx.quantsim.common.quantsim_config.utils import get_path_for_per_channel_config
    from quark_onnx.quantsim.quantsim import QuantizationSimModel

    onnx_model = onnx.load_model(model)
    _ = fold_all_batch_norms_to_weight(onnx_model)
    sim = QuantizationSimModel(
        model=onnx_model,
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        rounding_mode="nearest",
        default_activation_bw=8,
        default_param_bw=8,
        use_cuda=False,
        config_file=get_path_for_per_channel_config(),
    )
    input_name = sim.session.get_inputs()[0].name

    def pass_calibration_data(session: Any, batches: int) -> None:
        for i in range(batches):
            session.run(None, {input_name: samples[i * 8 : i * 8 + 8]})

    sim.compute_encodings(forward_pass_callback=pass_calibration_data, forward_pass_callback_args=3)
    np.save(folder / "logits.npy", sim.session.run(None, {input_name: samples})[0])
    sim.export(path="./", filename_prefix="quantsim")
    return [folder / "logits.npy", folder / "quantsim.encodings", folder / "quantsim.onnx"]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    sim = QuantizationSimModel(fold_all_batch_norms(model))
    sim.compute_encodings(samples[i : i + 8] for i in range(0, 24, 8))
    np.save(folder / "logits.npy", sim.session.run(None, {"input": samples})[0])
    sim.export(folder, "quantsim")
    return [folder / "logits.npy", folder / "quantsim.encodings", folder / "quantsim.onnx"]
