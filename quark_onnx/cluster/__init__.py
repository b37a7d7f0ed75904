"""The work on one model, shared by workers of dask.distributed: processes of this machine, or those of a cluster."""

from quark_onnx.cluster.opened_crew import opened_crew

__all__ = ["opened_crew"]
