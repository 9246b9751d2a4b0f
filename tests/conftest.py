import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks are fastest on one thread, and golden curves need it."""
    torch.set_num_threads(1)
