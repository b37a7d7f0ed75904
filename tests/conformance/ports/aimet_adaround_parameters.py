"""AIMET's AdaRound notebook (1.x): AdaroundParameters, a rounded float model, its encodings frozen in a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from quark_onnx.quantsim import Adaround, AdaroundParameters, QuantizationSimModel, fold_all_batch_norms

FILES = ("rounded.encodings", "sim.encodings", "sim.onnx")


def ported(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    from quark_onnx.quantsim.adaround.adaround_weight import Adaround, AdaroundParameters
    from quark_onnx.quantsim.batch_norm_fold import fold_all_batch_norms_to_weight
    from quark_onnx.quantsim.common.defs import QuantScheme
    from quark_onnx.quantsim.quantsim import QuantizationSimModel

    class DataLoader:
        """Unlabeled batches."""

        batch_size = 8

        def __iter__(self) -> Iterator[np.ndarray]:
            return (samples[i * self.batch_size :][: self.batch_size] for i in range(len(self)))

        def __len__(self) -> int:
            return len(samples) // self.batch_size

    loader = DataLoader()
    onnx_model = onnx.load_model(model)
    _ = fold_all_batch_norms_to_weight(onnx_model)
    params = AdaroundParameters(
        data_loader=loader, num_batches=3, default_num_iterations=20, forward_fn=None, forward_pass_callback_args=None
    )
    rounded = Adaround.apply_adaround(
        onnx_model,
        params,
        path="./",
        filename_prefix="rounded",
        default_param_bw=4,
        default_quant_scheme=QuantScheme.post_training_tf_enhanced,
        use_cuda=False,
    )
    sim = QuantizationSimModel(
        rounded,
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        default_activation_bw=8,
        default_param_bw=4,
        use_cuda=False,
    )
    sim.set_and_freeze_param_encodings(encoding_path="./rounded.encodings")

    def pass_calibration_data(session: Any, _: Any) -> None:
        for batch in loader:
            session.run(None, {"input": batch})

    sim.compute_encodings(pass_calibration_data, None)
    sim.export("./", "sim")
    return [folder / name for name in FILES]


def native(model: Path, samples: np.ndarray, folder: Path) -> Sequence[Path]:
    data = samples.reshape(3, 8, *samples.shape[1:])
    params = AdaroundParameters(list(data), 3, 20)
    rounded = Adaround.apply_adaround(fold_all_batch_norms(model), None, params, folder, "rounded")
    sim = QuantizationSimModel(rounded, default_param_bw=4)
    sim.set_and_freeze_param_encodings(folder / "rounded.encodings")
    sim.compute_encodings(list(data))
    sim.export(folder, "sim")
    return [folder / name for name in FILES]
