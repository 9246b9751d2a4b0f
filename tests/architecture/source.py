"""Reads the package's source for the tests of its architecture."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "medgan"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
TEXTS = {file: (PACKAGE / file).read_text() for file in FILES}
TREES = {file: ast.parse(text) for file, text in TEXTS.items()}


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
                place = ROOT / part.replace(".", "/")
                is_module = place.with_suffix(".py").exists() or place.is_dir()
                found.append(Import(file, part if is_module else str(node.module), lazy, node.lineno))
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


IMPORTS = [one for file in FILES for one in imports_of(TEXTS[file], file)]


def unit_of(file: str) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return file.split("/")[0].removesuffix(".py")


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with where it stands."""
    return [
        (f"{file}:{node.lineno} {node.name}", node)
        for file in FILES
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def branches_of(function: ast.AST) -> int:
    """Branches of a function: decisions, loops, handlers, and operands of `and` and `or`; not of functions in it."""
    count = 0
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        kinds = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
        count += isinstance(node, kinds)
        count += 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0
        count += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        count += branches_of(node)
    return count
