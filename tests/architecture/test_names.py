"""A newcomer finds each thing under one name, and each name means one thing."""

import ast
import sys
from collections import Counter
from pathlib import PurePath

import pytest
from source import FILES, PACKAGE, TEXTS, TREES

pytestmark = pytest.mark.unit

SHIMS = "serving/"
"""Only re-exports, for models that were registered when these modules had other names."""


def test_top_of_the_package_has_ten_modules_or_fewer():
    assert len([file for file in FILES if "/" not in file and file != "__init__.py"]) <= 10


def test_modules_have_no_name_of_the_standard_library():
    names = {part for file in FILES for part in PurePath(file).with_suffix("").parts}
    assert names & sys.stdlib_module_names == set()


def test_modules_have_one_name_each():
    names = Counter(PurePath(file).stem for file in FILES if not file.startswith(SHIMS))
    assert [name for name, count in names.items() if count > 1 and name != "__init__"] == []


def test_classes_have_one_name_each():
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_shims_only_reexport():
    for file in FILES:
        if file.startswith(SHIMS):
            assert all(isinstance(node, ast.Expr | ast.ImportFrom) for node in TREES[file].body), file


def test_files_have_at_most_300_lines():
    assert [file for file in FILES if len(TEXTS[file].splitlines()) > 300] == []


def test_packages_are_all_installed():
    import tomllib

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    packages = {"medgan", *("medgan." + ".".join(PurePath(file).parent.parts) for file in FILES if "/" in file)}
    assert packages | {"medgan.search_spaces"} == {*project["tool"]["setuptools"]["packages"]}
