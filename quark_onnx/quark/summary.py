"""What came of a quantization, in a few lines."""

from __future__ import annotations

from quark_onnx.engine.result_wording import measured_text, worth_text
from quark_onnx.result import Result


def summary(result: Result) -> str:
    """How many nodes run on integers, how near the outputs are, how large both models are, where the new one is."""
    report = result.report
    mega = {which: f"{size / 1e6:.2f} MB" for which, size in report.stored.items()}
    lines = [("quantized", f"{done} of {count} {op_type}") for op_type, (done, count) in report.fused.items() if done]
    lines += [("float", f"{len(report.float_nodes)} nodes")] if report.float_nodes else []
    lines += [("output", f"{name}: {measured_text(one)}") for name, one in report.outputs.items()]
    if not report.outputs:
        lines += [("output", f"{name}: not run; as written {worth_text(one)}") for name, one in report.written.items()]
    lines += [("size", f"{mega['quantized']}, float {mega['float']}")]
    lines += [("wrote", str(result.output))] if result.output is not None else []
    return "\n".join(f"{title:<10} {text}" for title, text in lines)
