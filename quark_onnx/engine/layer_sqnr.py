"""The SQNR of layers: a dictionary that a notebook shows as a chart."""

from __future__ import annotations

from quark_onnx.core.records import GOOD
from quark_onnx.core.shown.card import GOOD as SOUND
from quark_onnx.core.shown.card import LOOK, Card, Level
from quark_onnx.engine.result_card import decibels_chart, level_of
from quark_onnx.engine.result_wording import decibels_text

CAPTION = f"The worst first; a full bar is 60 dB, green from {GOOD:.0f} dB on"


class LayerSqnr(dict[str, float]):
    """dB by tensor, in order of the graph."""

    def _repr_html_(self) -> str:
        worst = min(self, key=lambda name: self[name], default="")
        if not self:
            return Card("SQNR of layers", LOOK, "nothing was measured", (), (), "poor").html
        level: Level = level_of(self[worst])
        summary = f"the worst of {len(self):,} tensors is {worst!r} with {decibels_text(self[worst])}"
        chart = decibels_chart(CAPTION, self)
        return Card("SQNR of layers", SOUND if level == "good" else LOOK, summary, (), (chart,), level).html
