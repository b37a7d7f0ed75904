"""Settings of training a quantized model."""
