"""The recipes of docs/pipelines.md: all of each where the other tool is installed, everywhere what runs without it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.demo import MODEL, digits

ROOT = Path(__file__).parents[2]
OLIVE = ROOT / "examples" / "olive"
TEXT = ROOT / "examples" / "optimum" / "quantize_texts.py"
BERT = ROOT / "tests" / "exports" / "bert.legacy.onnx"
WORDS = ("good film", "it was not bad", "the cat sat on the mat", "very good", "i hate this", "a dog ran")


def needs(*packages: str) -> pytest.MarkDecorator:
    """Looked for, not imported: what they warn of while they load is not ours."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def run(folder: Path, *command: object) -> str:
    alone = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **alone}
    command = (sys.executable, *map(str, command))
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- Olive ----------------------------------------------------------------------------------------------------------


def test_the_files_for_olive_fit_each_other() -> None:
    tree = ast.parse((OLIVE / "quark_onnx_pass.py").read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    [table] = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PARAMETERS"]  # type: ignore[attr-defined]
    assert isinstance(table, ast.Dict)
    parameters = {ast.literal_eval(key) for key in table.keys if key is not None}
    packages, settings = (json.loads((OLIVE / f"{name}.json").read_text()) for name in ("package_config", "run"))
    [used], [data] = settings["passes"].values(), settings["data_configs"]
    assert packages["passes"][used["type"]]["module_path"] == f"quark_onnx_pass.{used['type']}"
    assert {used["type"], data["load_dataset_config"]["type"]} <= defined
    assert set(used) - {"type"} <= parameters and used["data_config"] == data["name"]
    replace(get_default_config(used["preset"]), **used["fields"])


@pytest.mark.slow
@needs("olive", "torch", "sklearn")
def test_a_run_of_olive_makes_what_our_call_makes(tmp_path: Path) -> None:
    shutil.copytree(OLIVE, tmp_path, dirs_exist_ok=True)
    shutil.copy(MODEL, tmp_path / "digits.onnx")
    text = run(tmp_path, "-m", "olive", "run", "--config", "run.json", "--package-config", "package_config.json")
    assert "dB against the float model, on 12 samples" in text
    config = Config(replace(get_default_config("S8S8_AAWS"), per_channel=True))
    ModelQuantizer(config).quantize_model(MODEL, tmp_path / "native.onnx", list(digits()[0][:64]))
    assert (tmp_path / "quantized" / "model.onnx").read_bytes() == (tmp_path / "native.onnx").read_bytes()


# --- Optimum --------------------------------------------------------------------------------------------------------


class Rows(list[dict[str, Any]]):
    """What is used of a data set of Hugging Face."""

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]]) -> Rows:
        return cls(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

    def map(self, function: Any) -> Rows:
        return Rows(row | function(row) for row in self)


def spelled(text: str, truncation: bool) -> dict[str, list[int]]:
    """What a tokenizer makes: lists, and one that the model does not read."""
    assert truncation
    tokens = [ord(letter) % 40 for letter in text[:16]]
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "special_tokens_mask": [0] * len(tokens)}


def test_the_text_example_with_packages_that_look_like_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for Optimum comes out: all that was in it, and a quantized model by the name of the float one."""
    tokenizer = SimpleNamespace(from_pretrained=lambda folder: spelled)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=Rows))  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=tokenizer))  # type: ignore[misc]
    spec = spec_from_file_location("quantize_texts", TEXT)
    assert spec is not None and spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    folder, output = tmp_path / "exported", tmp_path / "quantized"
    folder.mkdir()
    shutil.copy(BERT, folder / "model.onnx")
    (folder / "config.json").write_text("{}")
    result = example.quantize(folder, list(WORDS), output)
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "model.onnx"]
    assert any("'text', 'special_tokens_mask'" in text for text in result.report.warnings)
    feed = {name: np.int64([value]) for name, value in spelled(WORDS[0], True).items() if "special" not in name}
    outputs = [ort.InferenceSession(path / "model.onnx").run(None, feed)[0] for path in (folder, output)]
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < 0.1 * np.abs(outputs[0]).max()


EXPORT = """
import torch
from optimum.exporters.onnx import main_export
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
words = sorted({word for line in open("texts.txt") for word in line.split()})
open("vocab.txt", "w").write("\\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
torch.manual_seed(0)
small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
config = BertConfig(vocab_size=len(words) + 5, max_position_embeddings=32, **small)
BertForSequenceClassification(config).save_pretrained("float")
BertTokenizerFast("vocab.txt", model_max_length=32).save_pretrained("float")
main_export("float", "exported", task="text-classification")
"""

LOAD = """
import runpy, shutil, sys
import numpy as np
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer
runpy.run_path(sys.argv[1])["main"]("exported", "texts.txt", "quantized")
shutil.copy("quantized/model.onnx", "exported/model_quantized.onnx")
batch = AutoTokenizer.from_pretrained("quantized")(["good film", "a dog ran"], padding=True, return_tensors="np")
loaded = ORTModelForSequenceClassification.from_pretrained
places = {"exported": "model.onnx", "quantized": None}
plain, quantized = (loaded(folder, file_name=name)(**batch).logits for folder, name in places.items())
assert 0 < np.abs(plain - quantized).max() < 0.1 * np.abs(plain).max()
beside = loaded("exported", file_name="model_quantized.onnx")(**batch).logits
assert np.array_equal(quantized, beside)
"""


@pytest.mark.slow
@needs("optimum.onnxruntime" if find_spec("optimum") else "optimum", "datasets", "torch", "transformers")
def test_optimum_loads_what_the_text_example_makes(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(WORDS * 5))
    run(tmp_path, "-c", EXPORT)
    assert "logits: " in run(tmp_path, "-c", LOAD, TEXT)
