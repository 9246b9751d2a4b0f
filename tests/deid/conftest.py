"""Fixtures: a folder to search for identifiers, and the findings in it."""

import pytest
from image_fixtures import make_series, phantoms, prepared, real  # noqa: F401

from medgan.deid.find_identifiers import find_identifiers


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.fixture
def found():
    def pairs(folder, **arguments):
        return [(one.file, one.what) for one in find_identifiers(folder, **arguments).findings]

    return pairs
