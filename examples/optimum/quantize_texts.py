"""Quantize a model that Hugging Face Optimum exported: `python quantize_texts.py FOLDER TEXTS.txt [OUTPUT]`.

FOLDER is what `optimum-cli export onnx --model … FOLDER` makes; TEXTS.txt has a text per line, some hundred of the kind
that the model will meet. OUTPUT is a folder like it, which Optimum loads:

    ORTModelForSequenceClassification.from_pretrained(OUTPUT)

Needs `pip install optimum-onnx datasets`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer

from quark_onnx import Config, ModelQuantizer, Result


def quantize(folder: Path, texts: list[str], output: Path) -> Result:
    """Rows of what the tokenizer makes; the columns that are no inputs, as the texts are, are not read.

    The model finds its configuration and tokenizer beside it; all but the float model is copied.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = Dataset.from_dict({"text": texts}).map(lambda row: tokenizer(row["text"], truncation=True))
    shutil.copytree(folder, output, ignore=shutil.ignore_patterns("*.onnx", "*.onnx_data"), dirs_exist_ok=True)
    return ModelQuantizer(Config()).quantize_model(folder / "model.onnx", output / "model.onnx", rows)


def main(folder: str, texts: str, output: str = "quantized") -> None:
    """Quantize, and tell how it went."""
    lines = [line for line in Path(texts).read_text(encoding="utf-8").splitlines() if line.strip()]
    report = quantize(Path(folder), lines, Path(output)).report
    for name, value in report.sqnr.items():
        print(f"{name}: {value:.1f} dB against the float model, on {report.judged} texts")
    print(f"wrote {output}, weights {report.bytes['float'] / report.bytes['quantized']:.1f} times smaller")


if __name__ == "__main__":
    main(*sys.argv[1:])
