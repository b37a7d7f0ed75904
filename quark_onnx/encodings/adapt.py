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
    sections = {"activations": file.activations, "parameters": parameters}
    if relaxed:
        strict = tuple(e.tensor for section in sections.values() for e in section.values() if e.strict)
        losses += [Loss("the lowest code is allowed", strict)] if strict else []
        sections = {
            name: {t: replace(e, strict=False) for t, e in section.items()} for name, section in sections.items()
        }
    if unsigned:
        sections["activations"] = {t: _unsigned(e) for t, e in sections["activations"].items()}
    return replace(file, **sections, losses=(*file.losses, *losses))


def _unsigned(encoding: Encoding) -> Encoding:
    return replace(encoding, dtype=f"uint{encoding.bits}", zero_point=-encoding.offset) if encoding.signed else encoding
