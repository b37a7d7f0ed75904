"""The mathematics: arrays in, arrays out. Never imports onnx."""
