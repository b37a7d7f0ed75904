"""A training graph run in pieces that keep only what is on their borders: less memory, for a second way forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.graph.gradient.pieces import Piece, pieces

Arrays = dict[str, NDArray[Any]]


class InPieces:
    """Outputs of a model, and gradients of one of them; called as a `Runner` of the differentiated model is.

    Args:
        model: without gradients.
        anchors: names of nodes in front of which it is cut.
        loss: the output, and the input that takes its gradient.
        asked: outputs that are returned.
        by: inputs whose gradients are returned, behind the outputs.
    """

    def __init__(
        self,
        model: Model,
        anchors: Sequence[str],
        loss: tuple[str, str],
        asked: Sequence[str],
        by: Sequence[str],
        threads: int,
    ) -> None:
        self._loss, self._incoming = loss
        self._asked, self._by = list(asked), list(by)
        self._pieces = [_Ready(part, threads) for part in pieces(model, anchors, self._loss, by, asked)]

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """The outputs, and the gradients."""
        values: Arrays = dict(feed)
        for piece in self._pieces:
            values |= piece.forward(values)
        outputs = [values[name] for name in self._asked]
        back: Arrays = {self._loss: feed[self._incoming]}
        for piece in reversed(self._pieces):
            for name, gradient in piece.back(values, back).items():
                back[name] = back[name] + gradient if name in back else gradient
            piece.forget(values, back)
        return [*outputs, *(back[name] for name in self._by)]


class _Ready:
    """A piece with its sessions."""

    def __init__(self, piece: Piece, threads: int) -> None:
        self._piece = piece
        self._forward = (
            Runner(piece.model, piece.made, threads=threads, fuse=False, frugal=True) if piece.made else None
        )
        self._back = None
        if piece.back is not None:
            outputs = list(piece.back.gradients.values())
            self._back = Runner(piece.back.model, outputs, threads=threads, fuse=False, lean=True, frugal=True)

    def forward(self, values: Arrays) -> Arrays:
        """What later pieces read, and what is asked for."""
        if self._forward is None:
            return {}
        return dict(zip(self._piece.made, self._forward(values), strict=True))

    def back(self, values: Arrays, given: Arrays) -> Arrays:
        """The gradients by what it reads."""
        if self._back is None or self._piece.back is None:
            return {}
        incoming = {name: given[tensor] for tensor, name in self._piece.back.incoming.items()}
        return dict(zip(self._piece.back.gradients, self._back({**values, **incoming}), strict=True))

    def forget(self, values: Arrays, given: Arrays) -> None:
        """What nobody reads any more goes."""
        for name in self._piece.made:
            del values[name]
            given.pop(name, None)
