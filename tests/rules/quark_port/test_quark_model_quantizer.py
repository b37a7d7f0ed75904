"""Quark's `ModelQuantizer` and readers: what is said meanwhile, what comes back, where samples come from."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx import ConfigError, Result
from quark_onnx.quark import (
    CachedDataReader,
    CalibrationDataReader,
    CLEConfig,
    Config,
    Int8Spec,
    ModelQuantizer,
    PathDataReader,
    QConfig,
    QLayerConfig,
    QuantizationConfig,
    RandomDataReader,
    get_default_config,
)

TEXT = """g (float[N,1,8,8] input) => (float[N,4] logits) {
    a = Conv(input, w)  b = Relu(a)  c = Conv(b, v)  d = GlobalAveragePool(c)  e = Flatten(d)  logits = Gemm(e, u)
}"""
MODEL = text_model(TEXT, w=normal(64, 1, 3, 3), v=normal(64, 64, 3, 3), u=normal(64, 4))
SAMPLES = np.random.default_rng(1).normal(size=(6, 1, 1, 8, 8)).astype(np.float32)


class Reader(CalibrationDataReader):
    """Writes all samples into one buffer, warns, and cannot begin again."""

    def __init__(self) -> None:
        self.buffer, self.rest = np.empty_like(SAMPLES[0]), iter(SAMPLES)

    def get_next(self) -> dict[str, Any] | None:
        warnings.warn("a reader's warning", UserWarning, stacklevel=2)
        if (sample := next(self.rest, None)) is None:
            return None
        self.buffer[:] = sample
        return {"input": self.buffer}


def config(**fields: Any) -> Config:
    return Config(QuantizationConfig(print_summary=False, **fields))


def test_a_result_comes_back_whether_a_file_is_written_or_not(tmp_path: Path) -> None:
    quantizer = ModelQuantizer(config())
    held = quantizer.quantize_model(MODEL, None, SAMPLES)
    written = quantizer.quantize_model(MODEL, tmp_path / "q.onnx", SAMPLES)
    assert isinstance(held, Result) and held.output is None
    assert written.output == tmp_path / "q.onnx" and written.output.exists()
    assert held.model == written.model


def test_a_configuration_is_read_when_it_is_used() -> None:
    changing = config()
    quantizer = ModelQuantizer(changing)
    changing.global_quant_config.nodes_to_exclude = ["Gemm_logits"]
    result = quantizer.quantize_model(MODEL, None, SAMPLES)
    assert "named in nodes_to_exclude" in result.report.float_nodes["Gemm_logits"]


@pytest.mark.parametrize("asked", [True, False])
def test_the_summary(asked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    first = Config(QuantizationConfig(print_summary=asked))
    second = QConfig(QLayerConfig(Int8Spec(), weight=Int8Spec()), PrintSummary=asked)
    for either in (first, second):
        ModelQuantizer(either).quantize_model(MODEL, None, SAMPLES)
        printed = capsys.readouterr().out
        assert bool(printed) == asked
        assert not asked or ("of 2 Conv" in printed and "logits: " in printed and "float 0.15 MB" in printed)


def test_warnings_of_others_are_shown_on_request() -> None:
    ModelQuantizer(config()).quantize_model(MODEL, None, Reader())
    with pytest.warns(UserWarning, match="a reader's warning"):
        ModelQuantizer(config(ignore_warnings=False)).quantize_model(MODEL, None, Reader())


@pytest.mark.parametrize(("severity", "told"), [(None, True), (2, True), (3, False)])
def test_severity_of_the_log(severity: int | None, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("quark_onnx")
    before = logger.level
    noisy = config(extra_options={"UseRandomData": True, "LogSeverityLevel": severity})
    result = ModelQuantizer(noisy).quantize_model(MODEL)
    assert any("RANDOM" in record.message for record in caplog.records) == told
    assert any("RANDOM" in warning for warning in result.report.warnings)
    assert logger.level == before


@pytest.mark.parametrize("generation", [1, 2])
def test_algorithms_of_the_call_come_on_top(generation: int) -> None:
    bare: Config | QConfig
    if generation == 1:
        bare, full = config(include_cle=False), config(extra_options={"CLESteps": 2})
    else:
        layer = QLayerConfig(input_tensors=Int8Spec(), weight=Int8Spec())
        bare = QConfig(layer, PrintSummary=False)
        full = QConfig(layer, algo_config=[CLEConfig(cle_steps=2)], PrintSummary=False)
    one = ModelQuantizer(bare).quantize_model(MODEL, None, SAMPLES, algorithms=[CLEConfig(cle_steps=2)])
    other = ModelQuantizer(full).quantize_model(MODEL, None, SAMPLES)
    assert one.model == other.model and one.plan.factors
    assert not ModelQuantizer(bare).quantize_model(MODEL, None, SAMPLES).plan.factors


@pytest.mark.parametrize("bare", [config(), QConfig(QLayerConfig(Int8Spec(), weight=Int8Spec()))])
def test_algorithms_of_the_call_are_a_list(bare: Any) -> None:
    with pytest.raises(ConfigError, match="algorithms must be a list, not CLEConfig"):
        ModelQuantizer(bare).quantize_model(MODEL, None, SAMPLES, algorithms=CLEConfig())  # type: ignore[arg-type]


def test_operator_types_that_stay_float() -> None:
    """Nodes of `MODEL` have no names: what is excluded is what preparing calls them."""
    layer = QLayerConfig(input_tensors=Int8Spec(), weight=Int8Spec())
    kept = QConfig(layer, layer_type_config={None: ["Gemm", "LSTM"]}, PrintSummary=False)
    result = ModelQuantizer(kept).quantize_model(MODEL, None, SAMPLES)
    assert "named in nodes_to_exclude" in result.report.float_nodes["Gemm_logits"]
    wrong = QConfig(layer, layer_type_config={None: ["Gemmm"]})
    with pytest.raises(ConfigError, match="did you mean 'Gemm'"):
        ModelQuantizer(wrong).quantize_model(MODEL, None, SAMPLES)


def test_readers_give_what_they_read(tmp_path: Path) -> None:
    for index, sample in enumerate(SAMPLES):
        np.save(tmp_path / f"{index}.npy", sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        cached, short = CachedDataReader(Reader()), CachedDataReader(Reader(), data_size=2)
    assert (len(cached), len(short)) == (6, 2)
    for reader in (cached, PathDataReader(MODEL, tmp_path)):
        for _ in range(2):
            assert np.array_equal([feed["input"] for feed in reader], SAMPLES)
            assert reader.get_next() is None
            reader.reset_iter()
    models = [
        ModelQuantizer(config()).quantize_model(MODEL, None, reader).model
        for reader in (SAMPLES, Reader(), cached, PathDataReader(MODEL, tmp_path))
    ]
    assert all(model == models[0] for model in models)


def test_random_numbers_are_told_of() -> None:
    reader = RandomDataReader(MODEL, input_shape={"input": [2, 1, 8, 8]}, input_data_range={"input": [-1, 1]})
    first = reader.get_next()
    assert first is not None and first["input"].shape == (2, 1, 8, 8) and first["input"].min() < 0
    result = ModelQuantizer(config()).quantize_model(MODEL, None, reader)
    assert any("RANDOM" in warning for warning in result.report.warnings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CachedDataReader(Reader(), convert_nchw_to_nhwc=True),
        lambda: CachedDataReader(Reader(), quantize_fp16=True),
        lambda: PathDataReader(MODEL, ".", input_shape=[1, 1, 8, 8]),
    ],
)
def test_what_readers_do_not_do(make: Any) -> None:
    with pytest.raises(ConfigError, match="is not supported: "):
        make()


def test_the_default_of_quark_is_a_preset_too() -> None:
    asked = QConfig.get_default_config("A8W8").global_quant_config
    assert asked == get_default_config("A8W8")
