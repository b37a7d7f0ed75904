"""Signed activations stored as unsigned ones, where the runtime needs it.

On x64 onnxruntime runs int8 activations by rewriting them to uint8 when it loads the model, but only those that are
computed and read once. Around a tensor with two readers (every residual block has one), or a constant that is added or
looked up, nothing fuses, and an unfused layer is slower than the float one. int8 with zero point z and uint8 with
z + 128 are the same grid of real values, so such a model is stored as uint8 throughout; mixing the two would keep
layers from fusing on other processors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from quark_onnx.core.plan import Site

REMARK = "int8 activations are stored as uint8, zero point + 128: the same values, and more layers fuse"


def runnable_storage(sites: Mapping[str, Site], readers: Counter[str]) -> dict[str, Site]:
    """The sites, activations unsigned if any int8 one is read more than once, or is a constant.

    Args:
        readers: by tensor, how often it is read; twice by one node, as in x · x, counts twice.
    """
    activations = {name for name, site in sites.items() if site.role in ("activation", "constant")}
    signed = [name for name in activations if sites[name].format.dtype == "int8"]
    if not any(readers[name] > 1 or sites[name].role == "constant" for name in signed):
        return dict(sites)
    return {
        name: replace(site, format=replace(site.format, signed=False)) if name in activations else site
        for name, site in sites.items()
    }
