"""Imports point downwards only, and third parties stay in their rooms (CONTRIBUTING)."""

import sys
from fnmatch import fnmatch

import pytest
from source import FILES, IMPORTS, Import, imports_of, unit_of

pytestmark = pytest.mark.unit

LAYERS = [
    ["errors"],
    ["logs", "paths", "provenance", "units"],
    ["locks", "processes"],
    ["config", "tasks"],
    ["models", "losses", "metrics", "data"],
    ["training", "deid"],
    ["tracking", "presets", "inference"],
    ["distributed"],
    ["search", "registry"],
    ["report", "benchmark", "server", "serving"],
    ["workflows"],
    ["cli"],
]
"""From the bottom up. Units on one line are siblings and do not import each other."""
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

ROOMS = {
    "torch": ["models", "losses", "metrics", "training", "benchmark", "distributed", "search", "inference", "server",
              "workflows", "data"],
    "torchmetrics": ["metrics"],
    "safetensors": ["models", "training", "inference", "workflows"],
    "ray": ["distributed", "search"],
    "optuna": ["search", "report"],
    "sqlalchemy": ["search"],
    "yaml": ["search", "registry"],
    "mlflow": ["tracking", "registry", "inference"],
    "pydicom": ["data", "deid", "inference", "server"],
    "fsspec": ["data"],
    "SimpleITK": ["data"],
    "nibabel": ["data"],
    "torchio": ["data"],
    "skimage": ["data"],
    "scipy": ["data", "metrics", "training"],
    "matplotlib": ["tracking", "report"],
    "PIL": ["data"],
    "typer": ["cli"],
    "rich": ["cli"],
    "fastapi": ["server"],
    "starlette": ["server"],
    "uvicorn": ["server"],
    "h11": ["server"],
    "python_multipart": ["server"],
    "pydantic": ["config", "data", "inference", "search", "registry"],
    "numpy": ["*"],
}  # fmt: skip
"""A third party, and the units that may import it; anything else is not a dependency."""

LAZY = ["cli", "data/prepare/simulation.py"]
"""Only the command line imports when a function runs, and what only some conversions need."""


def upward(one: Import) -> bool:
    """Does this import of medgan's own point up or sideways?"""
    importing, imported = unit_of(one.file), (one.module.split(".") + [""])[1]
    if importing == "__init__":
        return bool(imported)
    if imported not in LEVEL or imported == importing:
        return False
    return LEVEL[imported] >= LEVEL[importing]


def test_every_unit_has_its_layer():
    assert {unit_of(file) for file in FILES} - {"__init__"} == {*LEVEL}


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


def test_lazy_imports_stand_where_they_may():
    assert [one for one in IMPORTS if one.lazy and not {unit_of(one.file), one.file} & {*LAZY}] == []


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_library_stays_in_its_rooms(library):
    rooms = ROOMS[library]
    users = {unit_of(one.file) for one in IMPORTS if one.module.split(".")[0] == library}
    assert [unit for unit in users if not any(fnmatch(unit, room) for room in rooms)] == []
    assert {*rooms} <= users | {"*"}, "these rooms are empty"


def test_third_parties_are_those_that_have_a_room():
    allowed = {*ROOMS, *sys.stdlib_module_names, "medgan"}
    assert [one for one in IMPORTS if one.module.split(".")[0] not in allowed] == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("losses/new.py", "from medgan.models.unet import UBlock", True),
        ("losses/new.py", "def f():\n    import medgan.training.step", True),
        ("losses/new.py", "from medgan import training", True),
        ("errors.py", "from medgan.config import Config", True),
        ("search/new.py", "from medgan.registry.gates import Verdict", True),
        ("search/new.py", "from medgan.search.space import Space", False),
        ("training/new.py", "from medgan.losses.style import gram", False),
        ("provenance.py", "import medgan", False),
    ],
)
def test_upward_finds_imports_that_point_up(file, source, wrong):
    assert any(upward(one) for one in imports_of(source, file)) is wrong
