"""One quantization, measured: `python benchmarks/worker.py SUBJECT OUTPUT.onnx '{"preset": …}' [SAMPLES]`.

The JSON holds `preset`, and what differs from it: fields of the configuration, `options` (extra options) and `finetune`
(keys of FastFinetune). Seconds are those inside the quantizer, imports and reading the samples excluded, `cpu_seconds`
those of all its threads; peak memory is that of the process.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import onnxscript.optimizer  # noqa: F401  imported before the clock starts
from measure import leave_folder, metered
from subjects import material
from tasks import Reader

from quark_onnx import Config, ModelQuantizer, QuantizationConfig, get_default_config


def configured(preset: str, options: dict[str, Any], finetune: dict[str, Any], fields: dict[str, Any]) -> Any:
    """The preset with changes; `finetune` is left out where the preset does not fine-tune."""
    config: QuantizationConfig = get_default_config(preset)
    extra = {**config.extra_options, **options}
    if config.include_fast_ft:
        extra["FastFinetune"] = {**extra["FastFinetune"], **finetune}
    return replace(config, extra_options=extra, **fields)


def main(subject: str, output: str, how: str, samples: str = "200") -> None:
    """Quantize and print the measurements."""
    leave_folder()
    given = json.loads(how)
    parts = {"options": given.pop("options", {}), "finetune": given.pop("finetune", {})}
    quantizer = ModelQuantizer(Config(configured(given.pop("preset"), fields=given, **parts)))
    model, feeds = material(subject, int(samples))
    with metered() as found:
        report = quantizer.quantize_model(model, output, Reader(feeds)).report
    found |= {
        "stages": report.seconds,
        "fused": report.fused,
        "layers": Counter(record.choice if record.accepted else "raw" for record in report.tuned),
        "samples": report.samples,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
