import multiprocessing

import pytest
from refusal import refusal

from medgan.errors import InputError
from medgan.locks import held, opening
from medgan.tracking.mlflow_runs import MlflowStudy


def test_held_refuses_lock_that_stays_held(tmp_path):
    lock = tmp_path / "lock"
    with (
        held(lock, "this", limit_s=1),
        pytest.raises(InputError, check=refusal("E-LOCK-01", what="that", lock_file=lock, limit_s=0.3)),
        held(lock, "that", limit_s=0.3),
    ):
        pytest.fail("two holders at once")
    with held(lock, "that", limit_s=0):
        pass


def test_opening_server_uses_no_lock_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opening("postgresql://host/db"), opening("http://host:5000"):
        pass
    assert list(tmp_path.iterdir()) == []


def open_store(folder, name, failures):
    try:
        MlflowStudy(f"sqlite:///{folder / 'mlflow.db'}", "medgan/x", artifacts=folder, study=name, key=name)
    except BaseException as error:
        failures.put(f"{type(error).__name__}: {error}")


@pytest.mark.timeout(120)
def test_opening_lets_several_processes_create_one_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    processes = [context.Process(target=open_store, args=(tmp_path, name, failures)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    assert failures.empty(), failures.get()
