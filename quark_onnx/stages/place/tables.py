"""Tables that a Gather looks up rows of, word embeddings for one: integers with a scale per row.

    row i of the table  =  scale[i] · codes[i]

Rows are looked up as integers, their scales beside them, and what comes out is float: a DequantizeLinear in front of
the Gather would make the whole table float each time. So this is about size alone, and asked where no neighbour takes
the Gather along on integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import TABLE, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.shared_constants import as_rows
from quark_onnx.graph.view import constant, is_op, rank, shape
from quark_onnx.stages.place.dynamic import ALONE, AT_RUN_TIME
from quark_onnx.stages.place.idle_operators import MOVES
from quark_onnx.stages.place.overridden_site import output_axis
from quark_onnx.stages.place.site_request import SiteRequest

SMALLEST = 1 << 14
"""Elements below which three more nodes take more than integers save."""

BLOCKS = (32, 16)
"""Neighbours that have one scale in a table of 4 bits, where no other size is asked for that divides the rows."""

ROWS = Format(8, signed=True, symmetric=True, axis=0)


def tables(
    graph: Graph, requests: Mapping[str, SiteRequest], notes: dict[str, str], config: QuantizationConfig
) -> dict[str, SiteRequest]:
    """Requests of the Gathers that nothing but their neighbours leave float; the `notes` on these go.

    requests: of layers. A weight that holds what a table does gets the format of its rows: see `stages.tied_tables`.
    """
    found = {}
    for node in graph:
        name, table = node.name or "", node.inputs[0] if node.inputs else None
        if not is_op(node, "Gather") or notes.get(name) not in (MOVES, ALONE, AT_RUN_TIME) or table is None:
            continue
        if _is_table(table, graph):
            request = found[name] = SiteRequest(TABLE)
            rows = _format(table, graph, config)
            request.want(table, "weight", rows)
            for other in requests.values() if rows.axis == 0 else ():
                other.sites = [_alike(graph, site, table, rows, config) for site in other.sites]
            del notes[name]
    return found


def _format(table: Value, graph: Graph, config: QuantizationConfig) -> Format:
    """A scale per row; with 4 bits one per block, where these divide the row, and what is looked up has known axes."""
    width = (shape(table) or ())[1:]
    known = all(rank(node.inputs[1]) is not None for node in table.consumers())
    sizes = (config.option("BlockSize") or BLOCKS[0], *BLOCKS)
    fitting = [size for size in sizes if len(width) == 1 and (width[0] or 1) % size == 0]
    if config.option("TableBits") == 4 and known and fitting:
        return replace(ROWS, bits=4, axis=1, block=fitting[0])
    return replace(ROWS, bits=max(ROWS.bits, config.weight.bits))


def _alike(graph: Graph, site: Site, table: Value, rows: Format, config: QuantizationConfig) -> Site:
    """The site; of a weight with the numbers of the table, with a scale for each of its rows."""
    weight = graph.initializers.get(site.tensor) if site.role == "weight" else None
    array, numbers = constant(weight), constant(table)
    if weight is None or array is None or numbers is None:
        return site
    axis = output_axis(weight, config.row.ops)
    turned = as_rows(array, numbers)
    return site if turned is None or axis != int(turned) else replace(site, format=replace(rows, axis=axis))


def _is_table(value: Value, graph: Graph) -> bool:
    """Whether it is a large constant that is read by row, and by nobody else."""
    dims = shape(value) or ()
    large = len(dims) > 1 and math.prod(dim or 0 for dim in dims) >= SMALLEST
    if not large or constant(value) is None or value.is_graph_output():
        return False
    return all(_reads_rows(use.node, use.idx, graph) for use in value.uses())


def _reads_rows(node: Node, at: int, graph: Graph) -> bool:
    return node.graph is graph and is_op(node, "Gather") and at == 0 and node.attributes.get_int("axis", 0) == 0
