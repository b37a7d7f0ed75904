"""What a run shows of itself: a bar in notebooks, a line on terminals where it is asked for, in scripts nothing."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from html_pages import HOSTILE, card
from text_models import normal, text_model

from quark_onnx import AdaRound, DataError, ModelQuantizer, get_default_config, progress_bar
from quark_onnx.optimize import optimize
from quark_onnx.progress import ProgressBar, followed
from quark_onnx.progress.notebook_bar import PAUSE, NotebookBar, in_notebook
from quark_onnx.quantsim import QuantizationSimModel, fine_tune

MODEL = text_model("g (float[1, 8] x) => (float[1, 3] y) <float[8, 3] w> { y = MatMul (x, w) }", w=normal(8, 3))
QUANTIZER = ModelQuantizer(get_default_config("S8S8_AAWS"))


class Kernel:
    """In place of IPython in a kernel: keeps what is shown, the last of it in each output."""

    def __init__(self, kernel: object) -> None:
        self.outputs: list[list[dict[str, str]]] = []
        self.kernel = kernel

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.outputs.append([content])
        return SimpleNamespace(update=lambda content, raw: self.outputs[-1].append(content))

    @property
    def texts(self) -> list[list[str]]:
        return [[content["text/plain"] for content in output] for output in self.outputs]


def installed(monkeypatch: pytest.MonkeyPatch, kernel: object) -> Kernel:
    """IPython as it is seen from a cell, or with kernel None, from its prompt on a terminal."""
    shell = Kernel(kernel)
    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: shell  # type: ignore[attr-defined]
    display.display = shell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shell


def terminal(monkeypatch: pytest.MonkeyPatch, *, tty: bool, encoding: str = "utf-8") -> io.StringIO:
    """stderr that keeps what it gets."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return tty

    Screen.encoding = encoding  # type: ignore[assignment,misc]
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_a_notebook_gets_a_bar_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = installed(monkeypatch, object())
    QUANTIZER.quantize_model(MODEL, None, normal(20, 1, 8))
    assert len(shell.outputs) == 1
    (texts,) = shell.texts
    assert texts[0] == "preparing the float model" and any("calibrating" in text for text in texts)
    assert texts[-1].startswith("done in ")
    assert all(card(content["text/html"]).text for content in shell.outputs[0])
    QUANTIZER.quantize_model(MODEL, None, normal(20, 1, 8))
    assert len(shell.outputs) == 2


def test_a_simulation_that_is_tuned_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = installed(monkeypatch, object())
    sim, data = QuantizationSimModel(MODEL), list(normal(6, 1, 8))
    sim.compute_encodings(data)
    fine_tune(sim, data, AdaRound(num_iterations=20))
    assert len(shell.outputs) == 1 and shell.texts[0][0].startswith("fine-tuning MatMul")


def test_a_run_that_fails_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = installed(monkeypatch, object())
    with pytest.raises(DataError):
        optimize(MODEL)
    assert shell.texts[0][-1].endswith("while preparing the float model")
    with pytest.raises(KeyboardInterrupt), progress_bar() as tell:
        tell("tune a/b, about 3 min left", 1, 4)
        raise KeyboardInterrupt
    assert shell.texts[1][0] == "fine-tuning a/b, 1/4, about 3 min left"
    assert shell.texts[1][-1].endswith("while fine-tuning a/b 1/4")


@pytest.mark.parametrize("ipython", [False, True])
def test_scripts_and_prompts_are_left_alone(
    ipython: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also on a terminal: nobody asked for a line."""
    shell = installed(monkeypatch, None) if ipython else Kernel(None)
    screen = terminal(monkeypatch, tty=True)
    QUANTIZER.quantize_model(MODEL, None, normal(20, 1, 8))
    assert not in_notebook()
    assert (shell.outputs, screen.getvalue(), *capfd.readouterr()) == ([], "", "", "")


@pytest.mark.parametrize(("tty", "encoding", "shown"), [(True, "utf-8", 1), (False, "utf-8", 0), (True, "ascii", 0)])
def test_a_terminal_gets_a_line_where_it_is_asked_for(
    tty: bool, encoding: str, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch, tty=tty, encoding=encoding)
    asked = progress_bar()
    for _ in range(2):  # a bar can be used again
        screen.truncate(0)
        ModelQuantizer(get_default_config("S8S8_AAWS"), progress=asked).quantize_model(MODEL, None, normal(20, 1, 8))
        assert ("proving the result" in screen.getvalue()) is bool(shown)


def test_a_bar_is_drawn_a_few_times_a_second() -> None:
    drawn: list[str] = []
    now = [100.0]
    bar = NotebookBar(lambda text, html: drawn.append(text), lambda: now[0])
    for done in range(1280):
        bar("calibrate", done, 1280)
        now[0] += PAUSE / 128  # exact in binary
    assert len(drawn) == 10
    assert (drawn[0], drawn[-1]) == ("calibrating, 0/1280", "calibrating, 1152/1280, 2.2 s, about 0.2 s left")
    bar("apply", 0, None)
    assert drawn[-1] == "writing quantizers into the graph"
    bar.end(done=True)
    assert drawn[-1] == "done in 2.5 s"


def test_a_search_tells_its_trials() -> None:
    drawn: list[str] = []
    bar = NotebookBar(lambda text, html: drawn.append(text))
    for stage in ("trial 1: 8 bits", "calibrate", "trial 2: 4 bits", "calibrate"):
        bar(stage, 0, None)
    assert drawn == [
        "trial 1: 8 bits",
        "trial 1: 8 bits, calibrating",
        "trial 2: 4 bits",
        "trial 2: 4 bits, calibrating",
    ]


def test_a_bar_that_is_entered_has_one_output_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shell, bar = installed(monkeypatch, object()), progress_bar()
    quantizer = ModelQuantizer(get_default_config("S8S8_AAWS"), progress=bar)
    with pytest.raises(DataError), bar:
        quantizer.quantize_model(MODEL, None, normal(20, 1, 8))
        assert not shell.texts[0][-1].startswith("done")
        quantizer.quantize_model(MODEL, None, [])
    assert len(shell.outputs) == 1
    assert "while reading the data" in shell.texts[0][-1]
    quantizer.quantize_model(MODEL, None, normal(20, 1, 8))
    assert len(shell.outputs) == 2
    assert shell.texts[1][-1].startswith("done in ")


def test_names_in_a_bar_do_no_harm() -> None:
    drawn: list[str] = []
    bar = NotebookBar(lambda text, html: drawn.extend((text, html)))
    bar(f"tune {HOSTILE}", 1, 2)
    assert "\x1b" not in drawn[0] and "<script>alert" in card(drawn[1]).text


def test_whoever_can_be_entered_is_entered() -> None:
    told: list[str] = []

    class Asked:
        def __call__(self, stage: str, done: int, total: int | None) -> None:
            told.append(stage)

        def __enter__(self) -> None:
            told.append("begun")

        def __exit__(self, *error: object) -> None:
            told.append("over")

    ModelQuantizer(get_default_config("S8S8_AAWS"), Asked()).quantize_model(MODEL, None, normal(20, 1, 8))
    assert (told[0], told[-1]) == ("begun", "over") and "prove" in told
    silent = ProgressBar()
    silent("prove", 0, None)  # nobody has begun it


def test_a_warning_is_logged_once_in_a_run(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("quark_onnx")

    def twice() -> Iterator[int]:
        for _ in range(2):
            logger.warning("the scale of %s is raised", "x")
            logger.error("another")
        yield len(caplog.records)
        caplog.clear()

    with followed(None), contextmanager(twice)() as count:
        assert count == 2
    with contextmanager(twice)() as count:  # the next run tells it again
        assert count == 4
