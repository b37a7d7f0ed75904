"""No statistics of nothing: who takes figures from feeds asks for at least one.

Without this a pass over no feed ends as well as any other, and every scale is that of nothing, which is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quark_onnx.core.errors import DataError
from quark_onnx.engine.calibration_data import Feed


def at_least_one(feeds: Iterable[Feed], what: str) -> Iterator[Feed]:
    """The feeds, one by one.

    Args:
        what: what is learned from them, for the message.

    Raises:
        DataError: there was none.
    """
    none = True
    for feed in feeds:
        none = False
        yield feed
    if none:
        raise DataError(
            f"there is no sample to take {what} from: the data were read to the end before, or hold none; give at "
            "least one sample, in a list or in a reader that can start again"
        )
