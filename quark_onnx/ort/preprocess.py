"""`python -m quark_onnx.ort.preprocess --input model.onnx --output prepared.onnx`: `quant_pre_process` as a command."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence

from quark_onnx.core.errors import QuarkError
from quark_onnx.ort.shape_inference import quant_pre_process

_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_PATHS = {"input_model": "--input", "output_model_path": "--output"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; its flags are the parameters of `quant_pre_process`.

    Args:
        arguments: those of the process by default. A switch alone is True.
    """
    told = (inspect.getdoc(quant_pre_process) or "").partition("\n")[0]
    parser = argparse.ArgumentParser("python -m quark_onnx.ort.preprocess", description=told)
    for name, parameter in inspect.signature(quant_pre_process).parameters.items():
        usual = parameter.default
        if name in _PATHS:
            parser.add_argument(_PATHS[name], dest=name, required=True)
        elif isinstance(usual, bool):
            parser.add_argument(f"--{name}", type=_truth, nargs="?", const=True, default=usual)
        elif parameter.kind is not parameter.VAR_KEYWORD:
            parser.add_argument(f"--{name}", type=str if usual is None else type(usual), default=usual)
    try:
        quant_pre_process(**vars(parser.parse_args(arguments)))
    except QuarkError as error:
        parser.error(str(error))


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return _TRUTH[text.lower()]


if __name__ == "__main__":
    main()
