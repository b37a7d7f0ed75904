"""The house rules of CONTRIBUTING.md, kept by machine: who may import whom, how large things get, what is public."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median
from types import FunctionType, ModuleType

import pytest

import quark_onnx

ROOT = Path(quark_onnx.__file__).parent
SOURCES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
NAMES = [name.removesuffix(".__init__") for name in SOURCES]

ALLOWED = {  # what each part may import of the others
    "core": "",
    "numerics": "core",
    "graph": "core",
    "encodings": "core numerics",
    "engine": "core numerics graph child_environment",
    "stages": "core numerics graph engine",
    "result": "core graph engine",
    "cluster": "core engine child_environment",
    "clock": "core engine",
    "progress": "core clock",
    "ladder": "",
    "job": "core graph engine stages",
    "opened_job": "core graph engine stages job",
    "decided": "core engine stages job result",
    "decided_bodies": "core graph engine job decided",
    "decided_ranges": "core numerics engine stages clock job decided",
    "rescaled_job": "core engine stages clock job",
    "training_data": "core engine stages",
    "trained": "core engine stages clock job decided training_data",
    "pipeline": "core numerics graph engine stages cluster clock progress job opened_job result decided decided_bodies "
    "decided_ranges rescaled_job trained training_data",
    "": "core result pipeline progress",  # quark_onnx/__init__.py
    "demo": "core numerics graph engine stages clock result pipeline",
    "quantsim": "core numerics graph engine stages encodings ladder progress job result pipeline",
    "ort": "core graph opened_job result pipeline",
    "quark": "core graph engine stages result pipeline ort",
    "plots": "core numerics",
    "durations": "",
    "child_environment": "",
    "evaluators": "core numerics",
    "report": "core numerics graph engine result optimize child_environment",
    "optimize": "core numerics graph engine stages clock progress job opened_job result pipeline evaluators ladder",
    "zoo": "core graph engine stages cluster ladder result pipeline evaluators durations report optimize "
    "child_environment",
    "cli": "core numerics graph engine stages clock progress job opened_job result decided pipeline plots evaluators "
    "durations report demo zoo optimize training_data",
}
ROOMS = {  # folders inside a part, and what each may import of the others; files beside them import none but OPEN
    "core": {"settings": "", "shown": ""},
    "numerics": {"ranges": "", "rounding": "", "layer": "rounding", "search": ""},
}
OPEN = {"core": "shown"}
"""Rooms that files beside them, too, may import: a value shows itself."""

HOMES = {  # the only modules that may import these packages
    "onnx": "quark_onnx.graph",
    "onnx_ir": "quark_onnx.graph",
    "onnxscript": "quark_onnx.graph",
    "onnxruntime": "quark_onnx.engine.runner",
    "openvino": "quark_onnx.engine.runtimes.openvino.session",
    "PIL": "quark_onnx.engine.images",
    "threadpoolctl": "quark_onnx.numerics.matrix_products",
    "matplotlib": "quark_onnx.plots",
    "jinja2": "quark_onnx.report",
    "markupsafe": "quark_onnx.report",
    "sklearn": "quark_onnx.demo",
    "typer": "quark_onnx.cli",
    "rich": "quark_onnx.cli quark_onnx.progress",
    "IPython": "quark_onnx.progress",
    "dask": "quark_onnx.cluster quark_onnx.zoo",
    "distributed": "quark_onnx.cluster quark_onnx.zoo",
    "psutil": "quark_onnx.zoo",
    "yaml": "quark_onnx.zoo",
}
LATE = ("onnxscript", "typer", "rich", "sklearn", "PIL", "matplotlib", "jinja2", "scipy", "dask", "distributed")
LATE = (*LATE, "openvino", "psutil", "yaml", "sympy", "IPython")
"""Not needed by `import quark_onnx`."""


@cache
def trees() -> dict[str, ast.Module]:
    """Parsed when the first test asks: every worker of pytest-xdist imports this file, and one runs it."""
    return {name: ast.parse(path.read_text("utf-8")) for name, path in zip(NAMES, SOURCES.values(), strict=True)}


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports anywhere, functions included: modules, and names in modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, without those it only passes through."""
    for target in imports(trees()[name]):
        if target.split(".")[0] == "quark_onnx":
            yield target if target in trees() else target.rpartition(".")[0]


def inside(name: str, home: str) -> bool:
    return name == home or name.startswith(f"{home}.")


def at_home(name: str, package: str) -> bool:
    return any(inside(name, home) for home in HOMES.get(package, name).split())


def part(name: str) -> str:
    return name.partition(".")[2].partition(".")[0]


def test_layers() -> None:
    assert {part(name) for name in NAMES} == ALLOWED.keys()
    seen = {name: {part(target) for target in modules(name)} - {part(name), ""} for name in NAMES}
    wrong = {name: bad for name, parts in seen.items() if (bad := parts - {*ALLOWED[part(name)].split()})}
    assert wrong == {}
    assert {part(name) for name in NAMES if "quark_onnx" in modules(name)} <= {"cli"}


def room(name: str) -> str:
    """The folder inside the part; empty for files that stand beside the folders, and in parts without rooms."""
    inner = name.split(".")[2:3]
    return inner[0] if inner and inner[0] in ROOMS.get(part(name), {}) else ""


def test_rooms() -> None:
    wrong = {}
    for name in (name for name in NAMES if part(name) in ROOMS):
        seen = {room(target) for target in modules(name) if part(target) == part(name)}
        allowed = ROOMS[part(name)].get(room(name), OPEN.get(part(name), ""))
        if bad := seen - {"", room(name), *allowed.split()}:
            wrong[name] = bad
    assert wrong == {}


def test_every_folder_of_these_parts_is_a_room() -> None:
    folders = {name: {path.parent.name for path in (ROOT / name).glob("*/__init__.py")} for name in ROOMS}
    assert folders == {name: set(rooms) for name, rooms in ROOMS.items()}


def test_rooms_are_small() -> None:
    sizes = Counter(path.parent for path in SOURCES.values() if path.relative_to(ROOT).parts[0] in ROOMS)
    assert {folder: size for folder, size in sizes.items() if size > 17} == {}


def test_an_init_only_hands_on() -> None:
    """Code is in files that have a name: here are a docstring, imports and `__all__`."""
    wrong = {}
    for name in (name.removesuffix(".__init__") for name in SOURCES if name.endswith(".__init__")):
        rest = [ast.unparse(node) for node in trees()[name].body[1:] if not isinstance(node, ast.ImportFrom)]
        if bad := [text for text in rest if not text.startswith("__all__ = ")]:
            wrong[name] = bad
    assert wrong == {}


def test_no_stage_imports_another() -> None:
    def stage(name: str) -> str:
        return ".".join(name.split(".")[:3])

    stages = [name for name in NAMES if inside(name, "quark_onnx.stages")]
    seen = {name: {stage(target) for target in modules(name) if inside(target, "quark_onnx.stages")} for name in stages}
    assert {name: bad for name, others in seen.items() if (bad := others - {stage(name)})} == {}


def test_packages_stay_in_their_homes() -> None:
    packages = {name: {target.split(".")[0] for target in imports(tree)} for name, tree in trees().items()}
    strangers = {name: [p for p in used if not at_home(name, p)] for name, used in packages.items()}
    assert {name: bad for name, bad in strangers.items() if bad} == {}
    plain = {*sys.stdlib_module_names, "numpy", "threadpoolctl", "quark_onnx"}
    bare = {name: used - plain for name, used in packages.items() if part(name) in ("core", "numerics", "encodings")}
    assert {name: bad for name, bad in bare.items() if bad} == {}


def test_matrices_are_multiplied_in_one_place() -> None:
    """Where BLAS is held to one thread: elsewhere the result would depend on how many it has."""

    def multiplies(node: ast.AST) -> bool:
        if isinstance(node, ast.BinOp | ast.AugAssign):
            return isinstance(node.op, ast.MatMult)
        return isinstance(node, ast.Attribute) and node.attr in ("matmul", "dot", "inner", "vdot", "tensordot")

    homes = {name for name, tree in trees().items() if any(map(multiplies, ast.walk(tree)))}
    assert homes == {"quark_onnx.numerics.matrix_products"}


def test_no_import_cycles() -> None:
    try:
        TopologicalSorter({name: set(modules(name)) - {name} for name in NAMES}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_files_are_short() -> None:
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in SOURCES.items()}
    assert median(sizes.values()) <= 130
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_functions_are_short() -> None:
    """Lines from `def` to the end, the docstring left out."""
    sizes = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0]
                told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
                sizes[f"{name}:{node.lineno}"] = node.end_lineno - node.lineno + 1 - told
    assert median(sizes.values()) <= 10
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_public_functions_and_classes_have_a_docstring() -> None:
    """All but `Found`, which is what a rewrite rule hands to itself."""
    silent = [name for name, tree in trees().items() if not ast.get_docstring(tree)]
    for name, tree in trees().items():
        public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        silent += [f"{name}.{n.name}" for n in public if ast.get_docstring(n) is None and n.name != "Found"]
    assert silent == []


def test_methods_that_users_get_have_a_docstring() -> None:
    """Their own, or that of the method they replace."""
    classes = [value for name in quark_onnx.__all__ if inspect.isclass(value := getattr(quark_onnx, name))]
    for kind in classes:
        members = {name: value for name, value in vars(kind).items() if name[0] != "_"}
        methods = {n: v for n, v in members.items() if isinstance(v, FunctionType | property | classmethod)}
        assert [f"{kind.__name__}.{name}" for name in methods if not inspect.getdoc(getattr(kind, name))] == []


def test_exported_names() -> None:
    public = {n for n, value in vars(quark_onnx).items() if n[0] != "_" and not isinstance(value, ModuleType)}
    assert sorted(public) == sorted(quark_onnx.__all__)


def test_the_version_is_that_of_the_project() -> None:
    project = (ROOT.parent / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{quark_onnx.__version__}"\n' in project


def test_importing_the_package_is_light() -> None:
    code = f"import sys, quark_onnx; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert done.stdout.strip() == "[]"
