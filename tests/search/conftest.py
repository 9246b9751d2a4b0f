import optuna
import pytest


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a space file and returns its path."""

    def write_file(text: str) -> str:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return str(path)

    return write_file


@pytest.fixture
def study(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    return optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
