"""The same grids, said the way other tools insist on."""

from __future__ import annotations

from dataclasses import replace

from quark_onnx.encodings.values import Encoding, EncodingFile, Loss


def adapted(file: EncodingFile, *, relaxed: bool = False, unsigned: bool = False, biases: bool = True) -> EncodingFile:
    """A file with the same real values at every code, and a loss for each tensor that says less than before.

    Args:
        relaxed: strict grids (−127..127) get their lowest code back, offset −128: SNPE refuses −127
            (https://github.com/qualcomm/aimet/issues/2468), and so does a default AIMET simulation with strict=True.
        unsigned: activations get the unsigned type (zero point + 2^(bits − 1)), which AIMET gives them in 2.0.0.
        biases: False leaves int32 biases out; a simulation whose bias quantizers are off refuses them.
    """
    losses = []
    parameters = {tensor: e for tensor, e in file.parameters.items() if biases or e.bits != 32}
    if gone := tuple(file.parameters.keys() - parameters.keys()):
        losses.append(Loss("int32 biases are left out", tuple(sorted(gone))))
    if relaxed and (strict := tuple(e.tensor for e in (*parameters.values(), *file.activations.values()) if e.strict)):
        losses.append(Loss("the lowest code is allowed", strict))
    activations = {t: _adapted(e, relaxed, unsigned) for t, e in file.activations.items()}
    parameters = {t: _adapted(e, relaxed, False) for t, e in parameters.items()}
    return replace(file, activations=activations, parameters=parameters, losses=(*file.losses, *losses))


def _adapted(encoding: Encoding, relaxed: bool, unsigned: bool) -> Encoding:
    found = replace(encoding, strict=encoding.strict and not relaxed)
    if not (unsigned and found.signed):
        return found
    return replace(found, dtype=f"uint{found.bits}", zero_point=-found.offset)
