"""Evaluators: the user's judge of a model, a Python function or a command, which gives it a number; higher is better.

A function, given as such or as `module:function`, is called with the path of a model. A command has {model} where the
path goes, and prints as its last line. Modules are looked for in one folder first, where commands run, too: that of the
manifest. In place of a number there may be one for each sample: their mean is the score, and they tell how much of a
difference is chance.
"""

from __future__ import annotations

import ast
import importlib
import json
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError, QuarkError, nearest
from quark_onnx.core.resource_faults import let_out
from quark_onnx.numerics.search.paired_bootstrap import standard_error

Evaluator = str | Callable[[str], object]
"""`module:function`, a command with {model}, or a function of a model's path."""

MODEL = "{model}"
_BETWEEN = re.compile(r"[\s,]+")
"""Numbers on a line."""

FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


class EvaluatorError(QuarkError):
    """The evaluator raised something, or did not give a number."""


class EvaluatorKilled(Exception):
    """The evaluator's command was ended by a signal: as bad as if it had happened to this process, and as fleeting."""


@dataclass(frozen=True, eq=False)
class Score:
    """What an evaluator says of a model.

    value      higher is better
    samples    (samples,) what `value` is the mean of; None: it gave one number
    evaluator  as messages call it
    model      name of its file
    """

    value: float
    samples: NDArray[np.float64] | None = None
    evaluator: str = "the evaluator"
    model: str = "the model"

    @property
    def noise(self) -> float | None:
        """Standard error of the value: by how much it would differ on other samples; None where that is not known."""
        return None if self.samples is None else standard_error(self.samples)

    def noise_of_drop(self, after: Score) -> float | None:
        """Standard error of `self.value - after.value`, where both are of the same samples; None if it is not known.

        Raises:
            EvaluatorError: they are of different numbers of samples.
        """
        if self.samples is None or after.samples is None:
            return None
        if self.samples.shape != after.samples.shape:
            raise EvaluatorError(
                f"{self.evaluator} gave {len(self.samples)} numbers for {self.model} and {len(after.samples)} for "
                f"{after.model}; score every model on the same samples, in the same order, or return their mean"
            )
        return standard_error(self.samples - after.samples)


def refusal(text: str, home: Path) -> str:
    """Why the evaluator cannot be called; empty if it can, as far as can be told without importing anything."""
    if MODEL in text:
        return _refused_command(text, home)
    found = FUNCTION.fullmatch(text)
    if found is None:
        return f"evaluator {text!r} is neither module:function nor a command with {MODEL} where the path goes"
    module, function = found.groups()
    try:
        file = module_file(module, home)
    except ConfigError as error:
        return str(error)
    known = _names(file) if file is not None else None
    if known is None or function in known:
        return ""
    return f"evaluator {text!r}: {file} has no function {function!r}{nearest(function, known)}"


def _refused_command(text: str, home: Path) -> str:
    try:
        program = shlex.split(text)[0]
    except (ValueError, IndexError) as error:
        return f"evaluator {text!r} is not a command: {error}; check its quotes"
    if program == MODEL or shutil.which(program) or shutil.which(str(home / program)):
        return ""
    return f"evaluator {text!r}: there is no program {program!r}; install it, or give its path"


def module_file(module: str, home: Path) -> Path | None:
    """The source of a module, found without importing its parents; None where it is not a Python file.

    Raises:
        ConfigError: there is no such module.
    """
    places: Any = [str(home), *sys.path]
    spec = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), places)
        if spec is None:
            if module.split(".")[0] in sys.builtin_module_names:
                return None
            raise ConfigError(f"there is no module {module!r}; put {parts[0]}.py into {home}, or install it")
        places = spec.submodule_search_locations or []
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _names(file: Path) -> list[str] | None:
    """Names that a module has at its top; None where that cannot be told from its text."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body):
        return None
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif not isinstance(node, ast.Expr):  # under `if` or `try` there may be more
            return None
    return names


def files_of(text: str, home: Path) -> list[Path]:
    """The files that decide what an evaluator says, as far as can be told: the module, or what the command names."""
    if MODEL in text:
        named = (home / part for part in shlex.split(text) if MODEL not in part)
        return sorted({path for path in named if path.is_file()})
    file = module_file(text.partition(":")[0], home)
    return [] if file is None else [file]


def identity(evaluator: Evaluator, home: Path) -> str:
    """What tells one evaluator from another, as far as can be told: its name, its code, and what it holds.

    Of what cannot be pickled nothing is known, and it is another one each time.
    """
    if isinstance(evaluator, str):
        return title(evaluator) + "".join(f"\n{file} {file.read_bytes().hex()}" for file in files_of(evaluator, home))
    inner = getattr(evaluator, "func", evaluator)  # of a functools.partial
    function = inner if hasattr(inner, "__code__") else type(inner).__call__
    held = [getattr(evaluator, "__self__", None) if function is evaluator else evaluator]
    return "\n".join([title(evaluator), _code(function), _pickled(held)])


def _code(function: Any) -> str:
    """Of a Python function: the file that it is in, or its instructions; its defaults and its closure."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    source = Path(code.co_filename)
    text = source.read_bytes().hex() if source.is_file() else f"{code.co_code.hex()} {code.co_consts} {code.co_names}"
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return f"{code.co_firstlineno} {text} {_pickled([cells, function.__defaults__, function.__kwdefaults__])}"


def _pickled(held: object) -> str:
    try:
        return pickle.dumps(held).hex()
    except Exception as error:  # objects raise what they like
        let_out(error)
        return uuid4().hex


def score(evaluator: Evaluator, home: Path, model: Path) -> Score:
    """What the evaluator says of a model file.

    Raises:
        EvaluatorError: it fails, or does not give finite numbers.
        EvaluatorKilled: its command was ended by a signal.
    """
    shown = title(evaluator)
    if isinstance(evaluator, str) and MODEL in evaluator:
        value: object = _printed(evaluator, home, model)
    else:
        value = _returned(evaluator, home, model)
    numbers = _numbers(value, shown)
    if numbers.ndim > 1 or not numbers.size:
        raise EvaluatorError(
            f"{shown} gave an array of shape {numbers.shape} for {model.name}; it must be a number, or a list of "
            "numbers, one for each sample"
        )
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        where = f" at sample {wrong[0]}" if numbers.ndim else ""
        raise EvaluatorError(f"{shown} gave {numbers.flat[wrong[0]]} for {model.name}{where}; it must be finite")
    samples = numbers if numbers.size > 1 else None  # one sample alone does not tell how much they differ
    return Score(float(numbers.mean()), samples, shown, model.name)


def title(evaluator: Evaluator) -> str:
    """What messages call it."""
    name = evaluator if isinstance(evaluator, str) else getattr(evaluator, "__qualname__", type(evaluator).__name__)
    return f"evaluator {name!r}"


def _numbers(value: object, shown: str) -> NDArray[np.float64]:
    """What was returned, or printed on a line, as numbers."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else [float(one) for one in _BETWEEN.split(value)]
        array = np.asarray(value)
        if array.dtype == object:  # numpy would take None for a number
            array = np.array([float(one) for one in array.flat]).reshape(array.shape)
        return array.astype(np.float64, casting="same_kind")
    except Exception as error:  # arrays of other libraries raise what they like
        let_out(error)
        raise EvaluatorError(f"{shown} gave {value!r:.80} and not a number, or a list of numbers") from error


def _returned(evaluator: Evaluator, home: Path, model: Path) -> object:
    try:
        return (_imported(evaluator, home) if isinstance(evaluator, str) else evaluator)(str(model))
    except QuarkError:
        raise
    except SystemExit as error:  # of a script; it is not that of whoever asks
        raise EvaluatorError(
            f"{title(evaluator)} ends Python (exit code {error.code}); let it return a number"
        ) from error
    except Exception as error:
        let_out(error)
        raise EvaluatorError(f"{title(evaluator)} failed: {type(error).__name__}: {error}") from error


def _imported(text: str, home: Path) -> Callable[[str], object]:
    module, _, function = text.partition(":")
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    found: Callable[[str], object] = getattr(importlib.import_module(module), function)
    return found


def _printed(text: str, home: Path, model: Path) -> str:
    command = [part.replace(MODEL, str(model)) for part in shlex.split(text)]
    if not shutil.which(command[0]) and shutil.which(str(home / command[0])):
        command[0] = str(home / command[0])
    try:
        done = subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise EvaluatorError(f"evaluator {text!r} cannot be started: {error}") from error
    if done.returncode < 0:
        raise EvaluatorKilled(f"the evaluator's command was ended by {signal.Signals(-done.returncode).name}")
    output = done.stdout.decode(errors="replace")
    sys.stdout.write(output)  # into the log
    sys.stdout.flush()
    if done.returncode:
        raise EvaluatorError(f"evaluator {text!r} ended with exit code {done.returncode}; its output is in the log")
    lines = output.strip().splitlines()
    if not lines:
        raise EvaluatorError(f"evaluator {text!r} printed nothing; its last line must be a number, or several")
    return lines[-1].strip()
