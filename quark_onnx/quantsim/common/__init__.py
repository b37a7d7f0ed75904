"""What AIMET's packages have in common: `aimet_onnx.common`, before that `aimet_common`."""
