"""Imports point downwards only, and third parties stay in their rooms (DESIGN, Layout)."""

import ast
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "medgan"

LAYERS = [
    ["errors"],
    ["terminal", "place", "provenance"],
    ["lock"],
    ["config", "tasks"],
    ["models", "losses", "metrics", "data"],
    ["engine"],
    ["build"],
    ["tracking", "presets"],
    ["distributed"],
    ["search", "registry", "serving"],
    ["report", "benchmark"],
    [
        "pipeline",
        "train",
        "profile",
        "features",
        "inspect",
        "accept",
        "conclude",
        "summary",
        "prepared",
        "reproduce",
        "planning",
        "evaluation",
        "evaluate",
        "promote",
        "judgement",
        "serve",
        "translate",
        "tables",
    ],
    ["options"],
    ["cli_data", "cli_registry", "cli_runs", "cli_search", "cli_serving", "cli_tables"],
    ["cli"],
]
"""From the bottom up. Units on one line are siblings and do not import each other, but for the `PIPELINE`."""
PIPELINE = next(units for units in LAYERS if "pipeline" in units)
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

ROOMS = {
    "torch": ["benchmark/*", "models/*", "losses/*", "metrics/*", "data/dataset.py", "data/augment.py", "engine/*",
              "build/*", "distributed/*", "search/memory.py", "search/forecast.py", "search/trial.py", "serving/*",
              "train.py", "inspect.py", "translate.py", "cli.py"],
    "torchmetrics": ["metrics/*"],
    "safetensors": ["engine/checkpoint.py", "models/weights.py", "build/testing.py", "conclude.py", "features.py",
                    "serving/*"],
    "ray": ["distributed/*", "search/*", "serving/deployment.py", "serve.py"],
    "optuna": ["search/*", "report/*"],
    "sqlalchemy": ["search/*"],
    "yaml": ["search/*", "registry/rules.py"],
    "mlflow": ["tracking/*", "registry/models.py", "registry/aliases.py", "registry/evidence.py", "registry/ledger.py",
               "serving/pyfunc.py"],
    "pydicom": ["data/series.py", "data/header.py", "data/frames.py", "data/phi.py",
                "data/phantom_files.py", "serving/derive.py", "serving/folder.py", "serving/answer.py"],
    "fsspec": ["data/remote.py"],
    "SimpleITK": ["data/*"],
    "torchio": ["data/motion.py"],
    "skimage": ["data/*", "metrics/*"],
    "scipy": ["build/knn.py", "data/*", "metrics/*", "registry/*"],
    "matplotlib": ["tracking/pictures.py", "report/*"],
    "PIL": ["data/pair_picture.py"],
    "typer": ["options.py", "cli_data.py", "cli_registry.py", "cli_runs.py", "cli_search.py", "cli_serving.py",
              "cli_tables.py", "cli.py"],
    "rich": ["terminal.py", "summary.py", "accept.py", "train.py", "features.py", "inspect.py", "pipeline.py",
             "profile.py", "tables.py", "prepared.py", "planning.py", "reproduce.py", "promote.py", "judgement.py",
             "evaluation.py", "evaluate.py", "cli.py", "cli_data.py", "cli_registry.py", "cli_search.py",
             "cli_serving.py", "cli_tables.py", "serve.py", "translate.py", "search/progress.py"],
    "fastapi": ["serving/app.py", "serving/desk.py", "serving/deployment.py"],
    "starlette": ["serving/desk.py"],
    "python_multipart": ["serving/requests.py"],
    "pydantic": ["config.py", "evaluation.py", "judgement.py", "data/manifest.py", "data/plan.py", "serving/*",
                 "search/*", "registry/rules.py"],
    "numpy": ["*"],
}  # fmt: skip
"""A third party, and the files that may import it; anything else is not a dependency."""


class Import(NamedTuple):
    """One imported module, where, and whether only when a function runs."""

    file: str
    module: str
    lazy: bool
    line: int


def imports_of(source: str, file: str) -> list[Import]:
    """Every import of a module's source text, `from package import module` included; those in functions are lazy."""
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(file, name.name, lazy, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            for name in node.names:
                part = f"{node.module}.{name.name}"
                is_module = (ROOT / part.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / part.replace(".", "/")
                ).is_dir()
                found.append(Import(file, part if is_module else str(node.module), lazy, node.lineno))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
IMPORTS = [one for file in FILES for one in imports_of((PACKAGE / file).read_text(), file)]


def unit_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def upward(one: Import) -> bool:
    """Does this import of medgan's own point up or sideways?"""
    importing, imported = unit_of(one.file), (one.module.split(".") + [""])[1]
    if importing == "__init__":
        return bool(imported)
    if not imported or imported == importing:
        return False
    if importing in PIPELINE and imported in PIPELINE:
        return False
    return LEVEL[imported] >= LEVEL[importing]


def test_every_file_has_its_place():
    assert [file for file in FILES if unit_of(file) not in ("__init__", *LEVEL)] == [], "in which layer are these?"


def test_imports_point_downwards_only():
    own = [one for one in IMPORTS if one.module.split(".")[0] == "medgan"]
    assert len(own) > 50, "the imports are found at all"
    assert [one for one in own if upward(one)] == []


def test_no_two_modules_import_each_other():
    modules = {"medgan." + file.removesuffix(".py").replace("/", "."): file for file in FILES}
    edges = {
        name: {one.module for one in IMPORTS if one.file == file and one.module in modules}
        for name, file in modules.items()
    }
    while leaves := [name for name, reached in edges.items() if not reached]:
        for leaf in leaves:
            del edges[leaf]
        for reached in edges.values():
            reached.difference_update(leaves)
    assert not edges, "these import each other in a circle"


def test_only_the_command_line_imports_lazily_and_what_only_some_conversions_need():
    lazy = {"cli.py", "cli_data.py", "cli_registry.py", "cli_runs.py", "cli_search.py", "cli_serving.py",
            "cli_tables.py", "data/simulation.py"}  # fmt: skip
    assert [one for one in IMPORTS if one.lazy and one.file not in lazy] == []


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_a_library_stays_in_its_rooms(library):
    outside = [
        one
        for one in IMPORTS
        if one.module.split(".")[0] == library and not any(fnmatch(one.file, room) for room in ROOMS[library])
    ]
    assert outside == []


def test_nothing_is_imported_that_has_no_room():
    allowed = {*ROOMS, *sys.stdlib_module_names, "medgan"}
    assert [one for one in IMPORTS if one.module.split(".")[0] not in allowed] == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("losses/new.py", "from medgan.models.ublock import UBlock", True),
        ("losses/new.py", "def f():\n    import medgan.training.step", True),
        ("losses/new.py", "from medgan import engine", True),
        ("errors.py", "from medgan.config import Config", True),
        ("search/new.py", "from medgan.registry.gates import Verdict", True),
        ("search/new.py", "from medgan.search.space import Space", False),
        ("engine/new.py", "from medgan.losses.style import gram", False),
        ("provenance.py", "import medgan", False),
    ],
)
def test_the_rule_itself_tells_up_from_down(file, source, wrong):
    assert any(upward(one) for one in imports_of(source, file)) is wrong


def test_no_file_is_longer_than_300_lines():
    assert [file for file in FILES if len((PACKAGE / file).read_text().splitlines()) > 300] == []


def test_every_module_says_what_it_is_for():
    sources = {file: (PACKAGE / file).read_text() for file in FILES}
    assert [file for file, text in sources.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []
