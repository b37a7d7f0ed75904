"""What must hold of a quantization, whatever the model: `judge` says what does not."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from model_builder import Array, Arrays, bodies, run, session
from plain_quantizer import plain
from random_models import Case
from random_settings import SIMULATION, Settings

from quark_onnx import ModelQuantizer, QuarkError, Result
from quark_onnx.core.threads import VARIABLE
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel

_ROUNDING = ("Ceil", "Floor", "Mod", "Round", "Sign")
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "If", "IsInf", "IsNaN", "Less", "LessOrEqual")
_CHOOSING = ("ArgMax", "ArgMin", "Compress", "Hardmax", "OneHot", "TopK")
DISCRETE = frozenset(_ROUNDING + _COMPARING + _CHOOSING)
"""Operators that turn a little noise into another answer: what lies behind them is judged by its form alone."""

UNCHECKABLE = frozenset({"MeanVarianceNormalization", "SimplifiedLayerNormalization"})
"""Operators of which the checker of onnx 1.23 refuses every model: of the first one from operator set 13 on."""

LEGITIMATE: tuple[tuple[str, str], ...] = (
    # names and operators that the options speak of, and the model does not have
    ("ConfigError", r"^nodes_to_exclude: .* matches no node of the model"),
    ("ConfigError", r"^OpTypeQuantOverrides\[.*: nothing of the model has a quantizer there"),
    # simulations of float16 models
    ("ModelError", r"^nothing can be simulated: the model has no float32 tensors"),
    # number types that the target does not run
    ("ConfigError", r"^OpTypeQuantOverrides\[.*: target '\w+' runs "),
    # float models that the runtime of the target does not load
    ("ModelError", r"^OpenVINO \S+ cannot load the model: .*; replace what it does not know"),
)
"""Refusals that are right for a model that runs: class, and how the message begins."""

NOISE, SURE = 3.0, 3
"""dB that an output may be worse as run than as written, and deviations of the chance that few values leave."""

RUINED, FINE = 5.0, 15.0
"""dB: below the first an output is ruined, if a plain quantizer keeps the second."""

EXACT = 60.0
"""dB from which on what is left is the rounding of floats."""

KEPT = 20.0
"""dB from which on it is no matter which of two ways to compute is the better one."""


@dataclass(frozen=True)
class Finding:
    """What is wrong: its kind, what tells it from others of the kind, and the whole story."""

    kind: str
    signature: str
    text: str


def judge(case: Case, settings: Settings) -> Finding | None:
    """Quantize the model of a case, and find the first thing that is wrong."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        source, output = Path(folder) / "model.onnx", Path(folder) / "quantized.onnx"
        onnx.save(case.model, source)
        before = source.read_bytes()
        try:
            result = _quantized(source, output, case, settings)
        except QuarkError as error:
            return _refusal(error)
        except Exception as error:
            return Finding("foreign exception", _place(error), traceback.format_exc())
        if source.read_bytes() != before:
            return Finding("input changed", "", "the model file is not what it was")
        on_cpu = settings.config.row.on_cpu
        return (
            _file(case, output, on_cpu=on_cpu)
            or _values(case, settings, result, output)
            or _again(case, settings, output)
        )


def _quantized(source: Path, output: Path, case: Case, settings: Settings) -> Result | None:
    """The file is written; None: by a simulation, which has no report."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        if settings.preset != SIMULATION:
            return ModelQuantizer(settings.config).quantize_model(source, output, list(case.feeds))
        simulation = QuantizationSimModel(source, threads=1, **settings.fields)
        simulation.compute_encodings(list(case.feeds))
        onnx.save(simulation.to_onnx_qdq(), output)
        return None


def _refusal(error: QuarkError) -> Finding | None:
    name, text = type(error).__name__, str(error)
    if any(name == kind and re.search(pattern, text) for kind, pattern in LEGITIMATE):
        return None
    return Finding("refused", f"{name} {_place(error)}", "".join(traceback.format_exception(error)))


def _place(error: BaseException) -> str:
    """Class, and the innermost place in the package, without its line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "quark_onnx" in f.filename]
    where = f"{frames[-1].filename.rsplit('quark_onnx/', 1)[-1]}:{frames[-1].name}" if frames else ""
    return f"{type(error).__name__} in {where}: {_words(str(error))}"


def _words(text: str) -> str:
    """The beginning of a message without names, numbers and paths."""
    return " ".join(re.sub(r"'[^']*'|\"[^\"]*\"|\S*[\d/]\S*|\([^)]*\)", "", text.split(";")[0]).split())[:80]


def _file(case: Case, output: Path, *, on_cpu: bool) -> Finding | None:
    """The file that was written: valid, loadable (for other targets as it is written), with the input's interface."""
    quantized = onnx.load(output)
    checked = UNCHECKABLE.isdisjoint(case.operators) and _refused(case.model) is None
    if checked and (reason := _refused(quantized)) is not None:
        return Finding("invalid file", _words(reason), reason)
    try:
        for optimized in {False, on_cpu}:
            session(str(output), optimized=optimized)
    except Exception as error:  # onnxruntime's classes have no common base
        return Finding("file does not load", _words(str(error)), str(error))
    return _interface(case.model.graph, quantized.graph)


def _interface(before: onnx.GraphProto, after: onnx.GraphProto) -> Finding | None:
    """Inputs that have to be fed, and outputs: those with a default are folded into the model."""
    sides = []
    for graph in (before, after):
        defaults = {tensor.name for tensor in graph.initializer}
        sides.append(([value for value in graph.input if value.name not in defaults], list(graph.output)))
    for what, old, new in zip(("input", "output"), *sides, strict=True):
        if len(old) != len(new):
            return Finding("interface", f"number of {what}s", f"{len(old)} became {len(new)}")
        for one, other in zip(old, new, strict=True):
            if not _alike(one, other):
                return Finding("interface", what, f"{one}\nbecame\n{other}")
    return None


def _refused(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's, and shape inference's
        return str(error)
    return None


def _alike(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    """Same name, type and shape; what was not said may be said now."""
    a, b = one.type.tensor_type, other.type.tensor_type
    if one.name != other.name or a.elem_type != b.elem_type:
        return False
    if not a.HasField("shape"):
        return True
    sides = zip(a.shape.dim, b.shape.dim, strict=False)
    same = all(not x.WhichOneof("value") or x == y for x, y in sides)
    return len(a.shape.dim) == len(b.shape.dim) and same


def _values(case: Case, settings: Settings, result: Result | None, output: Path) -> Finding | None:
    """What it computes, as written and on a CPU with kernels, on samples that nothing was learned of."""
    known, on_cpu = run(case.model, case.judging), settings.config.row.on_cpu
    try:
        written = run(str(output), case.judging)
        ran = run(str(output), case.judging, optimized=True) if on_cpu else written
    except Exception as error:  # onnxruntime's classes have no common base
        return Finding("file does not run", _words(str(error)), str(error))
    for name in known[0]:
        shapes = [[answer[name].shape for answer in answers] for answers in (known, written, ran)]
        if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
            return Finding("other shapes", "", f"{name!r}: {shapes[0][0]}, written {shapes[1][0]}, run {shapes[2][0]}")
    smooth = [name for name in continuous(case.model) if known[0][name].dtype.kind == "f"]
    worth = {name: decibels(known, written, name) for name in smooth}
    for name in smooth if on_cpu else ():
        chance = SURE * 10 / np.log(10) * np.sqrt(4 / sum(answer[name].size for answer in known))  # of two noises
        if (as_run := decibels(known, ran, name)) < min(worth[name] - NOISE - chance, KEPT):
            told = None if result is None else result.report.departure
            text = f"{name!r} keeps {worth[name]:.1f} dB as written, {as_run:.1f} as run; the report: {told}"
            return Finding("run is not written", "told" if told and told.here else "untold", text)
    wrong = None if result is None else _figures(result, smooth)
    return wrong or _ruined(case, settings, output, worth)


def continuous(model: onnx.ModelProto) -> list[str]:
    """Outputs that no discrete operator stands in front of."""
    made = {name: node for node in model.graph.node for name in node.output}
    functions = {(f.domain, f.name): f for f in model.functions}

    def discrete(node: onnx.NodeProto) -> bool:
        inner = [n for body in bodies(node) for n in body.node]
        called = functions.get((node.domain, node.op_type))
        return node.op_type in DISCRETE or any(map(discrete, [*inner, *(called.node if called else ())]))

    def tainted(name: str, seen: set[str]) -> bool:
        stack = [name]
        while stack:
            node = made.get(stack.pop())
            if node is None or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            if discrete(node):
                return True
            stack += [*node.input, *(n for body in bodies(node) for m in body.node for n in m.input)]
        return False

    return [output.name for output in model.graph.output if not tainted(output.name, set())]


def decibels(known: list[Arrays], found: list[Arrays], name: str) -> float:
    """Signal to noise of an output over all samples; −inf where the noise is no number."""
    x, y = (np.concatenate([answer[name].astype(np.float64).ravel() for answer in side]) for side in (known, found))
    noise, signal = float(((x - y) ** 2).sum()), float((x**2).sum())
    if not np.isfinite(noise):
        return -np.inf
    return np.inf if noise == 0 else -np.inf if signal == 0 else 10 * float(np.log10(signal / noise))


def _figures(result: Result, smooth: Collection[str]) -> Finding | None:
    """What the report says of these outputs, computed anew on its own samples."""
    feeds = [dict(feed) for feed in result.evidence.feeds]
    if not feeds or not result.report.sqnr:
        return None
    known = run(io.to_proto(result.evidence.model), feeds)
    names = {value.name: value for value in onnx.load(result.output).graph.input}
    fed = [{name: _typed(array, names[name]) for name, array in feed.items() if name in names} for feed in feeds]
    found = run(onnx.load(result.output), fed)
    for name, one in result.report.written.items():
        if one.sqnr is None or name not in smooth:
            continue
        ours = decibels(known, found, name)
        if abs(min(ours, EXACT) - min(one.sqnr, EXACT)) > 0.5:
            return Finding("figures", "", f"{name!r}: the report says {one.sqnr:.2f} dB as written, it is {ours:.2f}")
    return None


def _typed(array: Array, value: onnx.ValueInfoProto) -> Array:
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _ruined(case: Case, settings: Settings, output: Path, worth: Mapping[str, float]) -> Finding | None:
    """An output that is worth nothing, on the samples that taught as on others, where a plain quantizer keeps it.

    What the few samples that taught do not show, their ranges cut off: no fault of what chose them. A target whose
    scales are powers of two, one for all that is joined, cannot run what the plain quantizer writes.
    """
    config = settings.config
    if config.row.pow2:
        return None
    if settings.fields.get("calibrate_method") == "Entropy":  # which clips what is rare: here, as there is little
        return None
    low = {name: db for name, db in worth.items() if db < RUINED}
    if not low or (config.conversion is None and min(config.activation.bits, config.weight.bits) < 8):
        return None
    taught = run(case.model, case.feeds), run(str(output), case.feeds)
    other = run(case.model, case.judging), run(plain(case.model, case.feeds, config.per_channel), case.judging)
    must = not config.row.on_cpu or settings.preset == SIMULATION  # quantize what others may leave float: inf, then
    for name, db in low.items():
        kept = decibels(*other, name)
        if decibels(*taught, name) >= FINE or (must and kept == np.inf):
            continue
        if kept >= FINE:
            return Finding("ruined", "", f"{name!r} keeps {db:.1f} dB; a plain quantizer {kept:.1f}")
    return None


def _again(case: Case, settings: Settings, output: Path) -> Finding | None:
    """A part of the seeds once more, with as many threads or others: the same bytes."""
    if case.seed % 8:
        return None
    again = output.parent / "again" / output.name
    again.parent.mkdir()
    with _threads(3 if case.seed % 16 else 1):
        _quantized(output.with_name("model.onnx"), again, case, settings)
    if again.read_bytes() != output.read_bytes():
        return Finding("not deterministic", f"threads {case.seed % 16}", "the second file has other bytes")
    return None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
