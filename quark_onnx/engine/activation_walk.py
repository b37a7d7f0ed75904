"""The activation walk: through the graph once, float and quantized side by side, only the frontier alive.

The graph is cut in front of every layer that will be tuned. At each cut the float activations and the quantized ones
(as integer codes, a quarter of the size) of all samples are held. A visitor sees what the layer would read on both
sides and may change the plan; then the segment runs, once per sample and side (or per stack of samples, see
`stacked_feeds`), and what nobody reads later is dropped.
Time is linear in depth and in samples; memory is the widest cut, spilled to a file beyond a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

from quark_onnx.core.plan import Plan
from quark_onnx.core.threads import cores
from quark_onnx.engine.activation_store import Samples, Store, let_go
from quark_onnx.engine.apply_plan import apply_codes
from quark_onnx.engine.at_least_one import at_least_one
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.runner import Arrays, Runner
from quark_onnx.engine.stacked_feeds import FLIPPED, ROWS_BY_VALUE, Shapes, Stack, apart, run, shapes_of, stacks
from quark_onnx.graph import Model, Node
from quark_onnx.graph.segments import Segment, segments, submodel
from quark_onnx.numerics.matrix_products import one_thread
from quark_onnx.numerics.parallel_blocks import in_order
from quark_onnx.numerics.quantizer import stored_codes

WORKERS = 2
"""Samples that run at a time, each on one thread: the result does not depend on how many there are."""


Parts = Callable[[str, int, Any], list[Any]]


@dataclass(frozen=True)
class Frontier:
    """What the next layer reads, by tensor name, one array per sample.

    exact    float activations
    rounded  activations of the quantized model: integer codes where the tensor has a quantizer, else floats (and where
             `walk` was asked for floats, or the floats are kept beside the codes)
    pool     threads that a visitor may use
    counted  the parts of an array that count, by tensor and number of the sample
    beside   tensors of the latter kind
    """

    exact: Store
    rounded: Store
    pool: ThreadPoolExecutor
    counted: Parts
    beside: Collection[str] = ()

    def read(self, node: Node, tensor: str, plan: Plan) -> tuple[Samples, Samples]:
        """A tensor in both models, as the node reads it: in the quantized one its codes, where it asked for them."""
        exact, rounded = self.exact[tensor], self.rounded[tensor]
        if tensor in self.beside and plan.reads_codes(node.name or "", tensor):
            rounded = list(_entering(rounded, tensor, plan))
        return exact, rounded


Visitor = Callable[[Node, Frontier, Plan], Plan]


def walk(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    layers: Collection[str],
    visit: Visitor,
    limit: int,
    follow: bool = True,
    floats: Collection[str] = (),
    counted: Counted | None = None,
) -> Plan:
    """Visit every layer in the order of the graph; the plan that the last visit returned.

    Args:
        model: the float model that the plan belongs to.
        feeds: one per sample (a batch of several samples is fine).
        layers: names of the nodes to visit.
        visit: called as `visit(layer, frontier, plan)` before the layer runs.
        limit: bytes of activations held in memory.
        follow: later layers read what the changed plan makes of earlier ones; False: what the given plan makes.
        floats: tensors that are held on both sides as they are before their quantizer, so that a visitor may still
            change it: what reads them later quantizes them with the plan of then.
        counted: which positions of the samples count; None: all.

    Raises:
        DataError: there are no feeds, or the model fails on one.
    """
    given, parts = plan, _counting(feeds, counted)
    if not layers:
        return plan
    beside = {tensor for tensor, site in plan.sites.items() if site.beside} - {*floats}
    held = {*floats, *beside}
    next(at_least_one(feeds, "inputs of layers"))
    pieces = segments(model, layers)
    last_reader = {name: i for i, piece in enumerate(pieces) for name in piece.inputs}
    codes = limit // (2 if floats else 4)
    workers = ThreadPoolExecutor(min(WORKERS, cores()))
    with Store(limit - codes) as exact, Store(codes) as rounded, workers as pool, one_thread():
        names = [value.name or "" for value in model.graph.inputs]
        exact.fill(names, ((i, [feed[name] for name in names]) for i, feed in enumerate(feeds)), len(feeds))
        for name in names:
            entering = ((i, [array]) for i, array in enumerate(_entering(exact[name], name, plan, held)))
            rounded.fill([name], entering, len(feeds))
        stacked = {exact: stacks(model, {name: exact[name] for name in names}, len(feeds))}
        at_run_time = any(site.role == "dynamic" for site in plan.sites.values())  # a range of all that run together
        stacked[rounded] = apart(len(feeds)) if at_run_time else stacked[exact]
        frontier = Frontier(exact, rounded, pool, parts, beside)
        for i, piece in enumerate(pieces[:-1] if _is_layer(pieces[-1], layers) else pieces):
            if _is_layer(piece, layers):
                plan = visit(piece.nodes[0], frontier, plan)
            if piece.outputs:  # else nobody reads what it makes
                part = submodel(model, piece)
                tuned = apply_codes(part, plan if follow else given, held)
                done = [name for name in piece.inputs if last_reader[name] == i]
                stacked[exact] = _run(Runner(part, threads=1), piece, exact, done, stacked[exact], pool)
                if all(len(stack.members) == 1 for stack in stacked[exact]):  # floats are mixed, so codes are
                    stacked[rounded] = apart(len(feeds))
                runner = Runner(tuned, threads=1, fuse=False)
                stacked[rounded] = _run(runner, piece, rounded, done, stacked[rounded], pool, FLIPPED)
            for name in (*piece.inputs, *piece.outputs):
                if last_reader.get(name, -1) <= i:
                    exact.drop(name)
                    rounded.drop(name)
        if _is_layer(pieces[-1], layers):
            plan = visit(pieces[-1].nodes[0], frontier, plan)
    return plan


def _counting(feeds: Sequence[Feed], counted: Counted | None) -> Parts:
    if counted is None:
        return lambda name, sample, array: [array]
    return lambda name, sample, array: counted.parts(name, array, feeds[sample])


def _is_layer(piece: Segment, layers: Collection[str]) -> bool:
    return piece.nodes[0].name in layers


def _entering(samples: Samples, name: str, plan: Plan, floats: Collection[str] = ()) -> Iterator[Any]:
    """A tensor that is computed in float, as the quantized model reads it."""
    held = name not in plan.sites or plan.sites[name].role == "dynamic" or name in floats
    for array in samples:
        yield array if held else stored_codes(array, plan.qparams_of(name), plan.sites[name].format)
        let_go(array)


def _run(
    runner: Runner,
    piece: Segment,
    store: Store,
    done: Sequence[str],
    together: list[Stack],
    pool: ThreadPoolExecutor,
    flipped: float = 0,
) -> list[Stack]:
    """One segment on all samples, several at a time; the stacks in which the next may run.

    done: inputs that nobody reads any more: each sample of them is let go of when it has been read.
    flipped: see `run`.
    """
    columns = [store[name] for name in piece.inputs]
    count = sum(len(stack.members) for stack in together)
    given = together
    if any(node.op_type in ROWS_BY_VALUE for node in piece.nodes):
        together = apart(count)
    made: dict[int, Shapes] = {}
    failed = not piece.inputs  # what is made of nothing is the same for all

    def work(stack: Stack) -> tuple[Stack, list[Arrays], bool]:
        feeds = [dict(zip(runner.inputs, (column[i] for column in columns), strict=True)) for i in stack.members]
        return stack, *run(runner, feeds, made.get(stack.kind), flipped)

    def rows() -> Iterator[tuple[int, Arrays]]:
        nonlocal failed
        for first in (True, False):  # the first of their shapes tell whether others may run together
            jobs = [stack for stack in together if stack.first is first]
            jobs = [Stack((i,)) for stack in jobs for i in stack.members] if failed else jobs
            for stack, found, as_one in in_order(work, jobs, pool, WORKERS):
                failed = failed or (len(found) > 1 and not as_one)
                if first and as_one:
                    made[stack.kind] = shapes_of(found[0])
                yield from zip(stack.members, found, strict=True)
                for column, i in product(columns, stack.members):
                    let_go(column[i])
                for name, i in product(done, stack.members):
                    store.forget(name, i)

    store.fill(piece.outputs, rows(), count)
    return apart(count) if failed and piece.inputs else given
