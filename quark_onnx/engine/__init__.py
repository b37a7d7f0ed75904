"""Where graph and numbers meet: data, the onnxruntime runner, observation, applying a plan, the fusion ledger."""
