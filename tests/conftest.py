import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks are fastest on one thread, and golden curves need it."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def no_store_of_other_tests():
    """MLflow leaves the store it was told of to whoever comes next in this process."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
