"""Evaluators: the user's judge of a model, a Python function or a command, which gives it a number; higher is better.

A function `module:function` is called with the path of a model. A command has {model} where the path goes, and prints
the number as its last line. Modules are looked for in the folder of the manifest first, where commands run, too.
"""

from __future__ import annotations

import ast
import importlib
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from quark_onnx.core.errors import ConfigError, QuarkError, nearest
from quark_onnx.core.resource_faults import let_out

MODEL = "{model}"
FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


class EvaluatorError(QuarkError):
    """The evaluator raised something, or did not give a number."""


class EvaluatorKilled(Exception):
    """The evaluator's command was ended by a signal: as bad as if it had happened to this process, and as fleeting."""


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


def score(text: str, home: Path, model: Path) -> float:
    """What the evaluator says of a model file.

    Raises:
        EvaluatorError: it fails, or does not give a finite number.
        EvaluatorKilled: its command was ended by a signal.
    """
    value = _printed(text, home, model) if MODEL in text else _returned(text, home, model)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise EvaluatorError(f"evaluator {text!r} gave {value!r:.80} and not a number") from error
    if not math.isfinite(number):
        raise EvaluatorError(f"evaluator {text!r} gave {number} for {model.name}; it must be finite")
    return number


def _returned(text: str, home: Path, model: Path) -> Any:
    module, _, function = text.partition(":")
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    try:
        return getattr(importlib.import_module(module), function)(str(model))
    except QuarkError:
        raise
    except Exception as error:
        let_out(error)
        raise EvaluatorError(f"evaluator {text!r} failed: {type(error).__name__}: {error}") from error


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
        raise EvaluatorError(f"evaluator {text!r} printed nothing; its last line must be a number")
    return lines[-1].strip()
