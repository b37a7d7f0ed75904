"""Many models: a manifest or a folder in, a folder of quantized models and a row for each out.

    from quark_onnx.zoo import convert_zoo

    result = convert_zoo("zoo.yaml", "out", workers=4)
    for outcome in result.bad:
        print(outcome.row.name, outcome.row.stage, outcome.row.reason)

Needs the extra `cluster`. Each model is converted in its own process: docs/zoo.md.
"""

from quark_onnx.zoo.api import check_zoo, convert_zoo
from quark_onnx.zoo.events import Event, ZooResult
from quark_onnx.zoo.problems import ManifestError, Problem
from quark_onnx.zoo.rows import Cost, Outcome, Row

__all__ = ["Cost", "Event", "ManifestError", "Outcome", "Problem", "Row", "ZooResult", "check_zoo", "convert_zoo"]
