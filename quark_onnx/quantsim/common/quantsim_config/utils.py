"""Paths of the runtime configurations that come with this package."""

from __future__ import annotations

from quark_onnx.core.settings.aimet_runtime_config import path_of


def get_path_for_per_channel_config() -> str:
    """The default: weights of layers per channel and symmetric, activations per tensor, biases float."""
    return str(path_of("default_per_channel"))


def get_path_for_per_tensor_config() -> str:
    """The same with one scale for each weight."""
    return str(path_of("default_per_tensor"))
