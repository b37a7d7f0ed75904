"""Placement: where quantizers stand, which format they have, who shares a scale. Needs the graph only, no data."""

from quark_onnx.stages.place.placement import place

__all__ = ["place"]
