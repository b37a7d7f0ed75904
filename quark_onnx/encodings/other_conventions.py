"""The same grids, said the way other tools insist on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from quark_onnx.encodings.encoding_values import Encoding, EncodingFile, Loss


def adapted(
    file: EncodingFile,
    *,
    relaxed: bool = False,
    unsigned: bool = False,
    biases: bool = True,
    without: Collection[str] = (),
) -> EncodingFile:
    """A file with the same real values at every code, and a loss for each tensor that says less than before.

    Args:
        relaxed: strict grids (−127..127) get their lowest code back, offset −128: SNPE refuses −127
            (https://github.com/qualcomm/aimet/issues/2468), and so does a default AIMET simulation with strict=True.
            A value that the strict grid clipped may then be one step lower.
        unsigned: activations get the unsigned type (zero point + 2^(bits − 1)), which AIMET gives them in 2.0.0.
        biases: False leaves int32 biases out; a simulation whose bias quantizers are off refuses them.
        without: tensors to leave out, e.g. outputs of Reshape and Transpose, on which AIMET has no quantizers.
    """
    losses = []
    parameters = {t: e for t, e in file.parameters.items() if (biases or e.bits != 32) and t not in without}
    activations = {t: e for t, e in file.activations.items() if t not in without}
    if gone := tuple(t for t in file.all if t not in parameters and t not in activations):
        losses.append(Loss("left out on request", gone))
    if relaxed and (strict := tuple(e.tensor for e in (*parameters.values(), *activations.values()) if e.strict)):
        losses.append(Loss("the lowest code is allowed", strict))
    activations = {t: _adapted(e, relaxed, unsigned) for t, e in activations.items()}
    parameters = {t: _adapted(e, relaxed, False) for t, e in parameters.items()}
    return replace(file, activations=activations, parameters=parameters, losses=(*file.losses, *losses))


def _adapted(encoding: Encoding, relaxed: bool, unsigned: bool) -> Encoding:
    found = replace(encoding, strict=encoding.strict and not relaxed)
    if not (unsigned and found.signed):
        return found
    return replace(found, dtype=f"uint{found.bits}", zero_point=found.zero_point - found.lowest)
