"""Read what was decided, change it, and apply it again: `python read_the_plan.py`.

A plan holds every decision of a quantization: where quantizers stand, their scales and zero points, and why the rest
stays float. It is an immutable value that can be saved, read, compared, and changed by `dataclasses.replace`.
Needs `pip install 'quark-onnx[demo]'`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from quark_onnx import Config, ModelQuantizer, Plan
from quark_onnx.core.plan import QParams
from quark_onnx.core.plan_diff import diff
from quark_onnx.demo import MODEL, digits


def main() -> None:
    """Quantize, read the plan, widen one range, and see what that does."""
    images, *_ = digits()
    quantizer = ModelQuantizer(Config())
    first = quantizer.quantize_model(MODEL, None, images[:200])
    plan = Plan.load(first.plan.save("digits_plan"))

    print(dict(Counter(site.role for site in plan.sites.values())))
    for tensor, site in plan.sites.items():
        if site.role == "activation":
            q = plan.qparams_of(tensor)
            low, high = (q.scale * (np.array([site.format.lo, site.format.hi]) - q.zero_point)).tolist()
            print(f"{tensor:24} {site.format}  {low:.3f} … {high:.3f}  by rule {site.rule}")
    for tensor, remark in plan.remarks.items():
        print(f"{tensor}: {remark}")

    name = next(tensor for tensor, site in reversed(plan.sites.items()) if site.role == "activation")
    group = plan.sites[name].group
    old = plan.qparams[group]
    wider = replace(plan, qparams={**plan.qparams, group: QParams(old.scale * 2, old.zero_point)})
    print(*diff(plan, wider), sep="\n")
    second = quantizer.quantize_model(MODEL, "digits_wider.onnx", images[:200], resume=wider)
    before, after = (result.report.sqnr["logits"] for result in (first, second))
    print(f"{before:.1f} dB with the observed range of {group}, {after:.1f} dB with twice that")


if __name__ == "__main__":
    main()
