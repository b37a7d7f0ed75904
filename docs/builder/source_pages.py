"""Pages of what is in source files: examples, and the API by its docstrings, which mkdocstrings fills in."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

MODULES = {
    "quark_onnx": "quantize a model",
    "quark_onnx.optimize": "the smallest or fastest model within a budget",
    "quark_onnx.zoo": "many models",
    "quark_onnx.quark": "AMD Quark's API, both generations",
    "quark_onnx.ort": "onnxruntime.quantization's API",
    "quark_onnx.quantsim": "AIMET's workflow",
    "quark_onnx.encodings": "AIMET's encodings files",
}
"""The public modules, each with what it is for; what is in `__all__` is on the page."""


def api_page(module: str) -> str:
    """The public names of a module: `:::` is where mkdocstrings puts what it knows of one."""
    tree = ast.parse(_source(module).read_text("utf-8"))
    parts = [f"# {module}\n\n{ast.get_docstring(tree)}"]
    parts += [f"::: {_address(module, name)}" for name in public_names(module)]
    return "\n\n".join(parts) + "\n"


def _address(module: str, name: str) -> str:
    """Where a public name is found: a file that is called as what it holds stands in front of that."""
    hidden = _source(module).with_name(f"{name}.py").exists()
    return f"{module}.{name}.{name}" if hidden else f"{module}.{name}"


def public_names(module: str) -> list[str]:
    """What `__all__` of a module says, without importing it."""
    for node in ast.parse(_source(module).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{module} has no __all__")


def _source(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    return Path(spec.origin)


def api_uri(module: str) -> str:
    """The page of a module."""
    return f"reference/api/{module.rpartition('.')[2]}.md"


def example_page() -> str:
    """Every example, with its source."""
    files = sorted((ROOT / "examples").rglob("*.py"))
    parts = [f"## {example_title(file)}\n\n```python\n{file.read_text('utf-8').strip()}\n```" for file in files]
    return "# Examples\n\nShort scripts; tests run each of them.\n\n" + "\n\n".join(parts) + "\n"


def example_title(file: Path) -> str:
    """The heading of an example: its path in `examples/`."""
    return file.relative_to(ROOT / "examples").as_posix()
