"""Training of the quantized model: its parameters, as they are exported, by the gradients of a loss."""
