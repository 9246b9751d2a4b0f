import pytest
from image_fixtures import make_series, phantoms, prepared, real  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def ready(children_ready):
    """Most tests here prepare a data set."""
