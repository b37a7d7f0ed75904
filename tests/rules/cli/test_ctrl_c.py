"""Ctrl-C at any time: exit code 130 and not a word. The signal is sent at a known place of a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

START = """
import os, signal, sys, types, atexit
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where these tests run in the background
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
class At:  # Ctrl-C when this module is imported
    def __init__(self, name): self.name = name
    def find_spec(self, name, path=None, target=None):
        if name == self.name: interrupt()
def work(main):  # in place of the package
    sys.modules["quark_onnx"] = types.ModuleType("quark_onnx")
    sys.modules["quark_onnx.cli"] = types.ModuleType("quark_onnx.cli")
    sys.modules["quark_onnx.cli"].main = main
def forever():
    while True: pass
import quark_onnx_command
sys.argv = ["quark-onnx", "--version"]
{}
sys.exit(quark_onnx_command.main())
"""

WHEN = {
    "numpy": 'sys.meta_path.insert(0, At("numpy"))',
    "onnx": 'sys.meta_path.insert(0, At("onnx"))',
    "onnxruntime": 'sys.meta_path.insert(0, At("onnxruntime"))',
    "the last module": 'sys.meta_path.insert(0, At("quark_onnx.cli.commands"))',
    "at work": """
def main(): interrupt(); forever()
work(main)""",
    "twice": """
def main():
    try: interrupt(); forever()
    finally: interrupt(); forever()
work(main)""",
    "in a finalizer": """
class Freed:
    def __del__(self): interrupt(); [None for _ in range(10)]
def main(): Freed(); forever()
work(main)""",
    "on the way out": """
def main(): atexit.register(interrupt)
work(main)""",
    "at the very end": """
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT): kill(pid, number)
def main(): sys.last = Last(); interrupt(); forever()
work(main)""",
    "on the way out after another": """
def main(): atexit.register(interrupt); interrupt(); forever()
work(main)""",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START.format(code)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
@pytest.mark.parametrize("when", WHEN)
def test_the_exit_code_is_130_and_nothing_is_said(when: str) -> None:
    done = run(WHEN[when])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_without_it_the_command_works_and_other_errors_are_told() -> None:
    done = run("")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("quark-onnx ")
    done = run("class Bad:\n    def __del__(self): raise ValueError('told')\nwork(Bad)")
    assert done.returncode == 0
    assert "ValueError: told" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not ignored there")
def test_a_job_in_the_background_does_not_hear_it() -> None:
    """A shell has such jobs ignore Ctrl-C, which is meant for another."""
    done = run("signal.signal(signal.SIGINT, signal.SIG_IGN); " + WHEN["numpy"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("quark-onnx ")
