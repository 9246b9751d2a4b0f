import os

import pytest
import torch

from medgan.processes.crew import get_ready


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks are fastest on one thread, and golden curves need it."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def no_store_of_other_tests():
    """MLflow leaves the store it was told of to whoever comes next in this process."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True, scope="session")
def children_ready():
    """Child processes are forked from one server, which imports what all of them need once."""
    get_ready("medgan.server.translate_upload")
