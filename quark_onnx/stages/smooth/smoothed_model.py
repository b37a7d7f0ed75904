"""The model with a Mul in front of products, where a plan has factors for what they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from quark_onnx.graph import Model
from quark_onnx.graph.edit import add_constant, new_node
from quark_onnx.graph.io import copy
from quark_onnx.stages.smooth.product_sites import find


def with_products(model: Model, smoothed: Mapping[str, NDArray[Any]]) -> Model:
    """A copy whose products read `tensor · array` in place of the tensors named; others read these as they are.

    Raises:
        ValueError: no products read a tensor that is named, or its array is no number for each channel.
    """
    result = copy(model)
    sites = {site.name: site for site in find(result)[0]}
    for name, array in smoothed.items():
        site = sites.get(name)
        if site is None or array.shape != (site.channels,):
            raise ValueError(f"no products read {name!r} with {array.size} channels")
        graph, value = result.graph, site.value
        factor = add_constant(graph, array, f"{name}_smoothing")
        node = new_node(graph, "Mul", [value, factor], f"{name}_Smooth", f"{name}_smoothed")
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        for reader in site.readers:
            for index, read in enumerate(reader.inputs):
                if read is value:
                    reader.replace_input_with(index, node.outputs[0])
    return result
