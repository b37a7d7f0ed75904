"""How much noise groups of quantizers alone make at the outputs, found by halving.

With everything else in float the noises of groups add up, as long as they are small beside the signal. A set of groups
that makes little of it together holds none that makes much: so the groups, in the order of the graph, are halved where
there is much, the noisiest part first, until single groups are left, or parts that need not be told apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence

from quark_onnx.engine.output_judge import Worth

HALVINGS = 24
"""At most. Parts that are not told apart by then are taken as they are."""

Part = tuple[str, ...]

Judge = Callable[[Collection[str], "int | None"], Worth]
"""Of a quantized model without the quantizers of some tensors, on so many samples; None: on all."""


def noisy_parts(
    alone: Callable[[set[str]], Worth],
    groups: Mapping[str, Sequence[str]],
    limit: float,
    small: Callable[[Part], bool],
) -> dict[Part, Worth]:
    """Groups, or parts of neighbours that are `small`, that alone leave the worst output less than `limit` dB.

    Args:
        alone: what the worst output is worth with the quantizers of these tensors only.
        groups: tensors of each group that may be at fault, in the order of the graph.
        small: whether a part need not be told apart.
    """

    def measured(part: Part) -> tuple[Worth, Part]:
        return alone({tensor for name in part for tensor in groups[name]}), part

    found: dict[Part, Worth] = {}
    waiting = [measured(tuple(groups))] if groups else []
    for _ in range(HALVINGS):
        while waiting and (len(waiting[0][1]) == 1 or small(waiting[0][1])):
            noise, part = heapq.heappop(waiting)
            found[part] = noise
        if not waiting or waiting[0][0][0] >= limit:
            break
        _, part = heapq.heappop(waiting)
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]):
            heapq.heappush(waiting, measured(half))
    return {part: noise for part, noise in [*found.items(), *((p, n) for n, p in waiting)] if noise[0] < limit}
