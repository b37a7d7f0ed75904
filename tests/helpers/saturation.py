"""Tests that must fail where onnxruntime's u8 × s8 kernels saturate, each with the reason; the list is to be emptied.

Without VNNI, x64 multiplies 8-bit integers with vpmaddubsw, which adds two neighbouring products in int16 and clips the
sum to ±32,767. What runs is then not what the file says. The machine is asked, not its flags: which kernel runs is
onnxruntime's choice.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime as ort
import pytest
from onnx import parser

COLLECTED = pytest.StashKey[set[str]]()
"""All tests of this run, kept in the configuration of pytest."""

DEPTH = 64
"""Products of one sum: more than any kernel adds at a time."""


@lru_cache
def kernels_saturate() -> bool:
    """Whether a sum of the largest products, u8 × s8, comes out smaller than it is."""
    codes = ",".join(["127"] * DEPTH)
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 13]> g (uint8[1,{DEPTH}] x) => (int32[1,1] y)
        <int8[{DEPTH},1] w = {{{codes}}}> {{ y = MatMulInteger (x, w) }}"""
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, DEPTH), 255, np.uint8)})
    return int(found[0, 0]) != DEPTH * 255 * 127


_WRITTEN = "what runs is compared with what is written, and the sums that run saturate"
_NOISE = "the signal-to-noise ratio is that of the model as run, whose sums saturate"
_ANSWERS = "the answers are those of the model as run, whose sums saturate"

_RULES, _E2E = "tests/rules/", "tests/e2e/test_"
_SHIELD = [
    f"engine/test_float_layer_shield.py::test_a_layer_that_is_excluded_is_computed_in_float[text{i}-{layer}-axes{i}-{activation}]"
    for i, layer in enumerate(("Conv", "ConvTranspose", "Gemm"))
    for activation in ("Relu", "Identity", "Sigmoid")
]
_SIMULATION = "quantsim_real.py::test_all_ways_to_run_a_simulation_lose_equally_much"

_LISTED = {
    (_RULES, _WRITTEN): [
        "engine/test_formats.py::test_onnxruntime_computes_what_the_plan_says[Gemm, transposed-at run time]",
        "engine/test_formats.py::test_onnxruntime_computes_what_the_plan_says[MatMul-8-bit bias, per channel]",
        "quantsim/test_quantsim_files.py::test_the_quantized_model_computes_what_the_simulation_does[8]",
        *_SHIELD,
    ],
    (_RULES, _NOISE): [
        "cli/test_cli.py::test_the_demo_has_a_fine_tuned_model",
        "stages/test_float16_models.py::test_layers_that_were_float32_keep_float_scales",
        "place/test_targets.py::test_models_load_and_are_close_to_float[cpu-attention]",
        "place/test_targets.py::test_models_load_and_are_close_to_float[qnn-attention]",
    ],
    (_E2E, _WRITTEN): [
        "tasks.py::test_the_runtime_computes_what_is_written[mobilenet]",
        f"{_SIMULATION}[mobilenet-imagenet]",
        f"{_SIMULATION}[resnet20-cifar10]",
    ],
    (_E2E, _NOISE): [
        "demo.py::test_int8_keeps_the_accuracy",
        "examples.py::test_quantize_images",
        "tasks.py::test_tuning_resnet",
    ],
    (_E2E, _ANSWERS): [
        "presets_real.py::test_the_best_method_needs_no_fine_tuning",
        "tasks.py::test_mobilenet_keeps_its_accuracy",
        "tasks.py::test_tuning_recovers_mobilenet[S8S8_AAWS_ADAROUND-changes2-0.585]",
    ],
}
EXPECTED_FAILURES = {folder + name: reason for (folder, reason), names in _LISTED.items() for name in names}
