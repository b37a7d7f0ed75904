"""What a run shows of itself while it goes on: a bar in a notebook, a line on a terminal."""

from quark_onnx.progress.progress_bar import ProgressBar, followed, progress_bar

__all__ = ["ProgressBar", "followed", "progress_bar"]
