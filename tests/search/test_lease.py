"""One driver for each study: a dead driver loses its lease at once, one without renewal when the lease expires."""

import subprocess
import sys
import time

import pytest
from refusal import refusal
from sqlalchemy import create_engine

from medgan.errors import InputError, JobError
from medgan.search import lease
from medgan.search.lease import LEASES, holder, is_expired, leased

HOLDING = """
import sys, time
from medgan.search.lease import leased
with leased(sys.argv[1], "s"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def other(uri):
    """Another process that holds the study."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def change(uri, **values):
    with create_engine(uri).begin() as connection:
        connection.execute(LEASES.update().values(**values))


def test_lease_is_released_with_and_without_error(uri):
    with pytest.raises(RuntimeError), leased(uri, "s"):
        assert "process" in holder(uri, "s")
        raise RuntimeError
    assert holder(uri, "s") == ""
    with leased(uri, "s"):
        pass


def test_lease_is_separate_for_each_study_of_database(uri):
    with leased(uri, "s") as lost, leased(uri, "t"):
        assert not lost()
        assert holder(uri, "s") and holder(uri, "t")


def test_lease_refuses_second_driver_and_describes_first(uri, other):
    driver = rf"process {other.pid} on \S+ \(for \d+ s\)"
    with pytest.raises(InputError, check=refusal("E-LEASE-02", study="s"), match=driver), leased(uri, "s"):
        pass


def test_lease_of_killed_driver_is_taken_over_at_once(uri, other):
    other.kill()
    other.wait()
    assert is_expired(uri, "s")
    with leased(uri, "s"):
        assert not is_expired(uri, "s")


def test_lease_of_other_host_holds_only_while_renewed(uri, other):
    change(uri, host="elsewhere")
    driver = f"process {other.pid} on elsewhere"
    with pytest.raises(InputError, check=refusal("E-LEASE-02", study="s"), match=driver), leased(uri, "s"):
        pass
    change(uri, beat=time.time() - lease.LIFE_S - 1)
    with leased(uri, "s"):
        pass


def test_lease_taken_over_by_other_driver_ends_first_driver(uri, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    with pytest.raises(JobError, check=refusal("E-LEASE-01", study="s"), match=r"process \d+ on"), leased(uri, "s"):
        change(uri, token="of another driver")
        time.sleep(5)


def test_lease_refuses_database_that_cannot_be_opened():
    uri = "sqlite:////no/x.db"
    with pytest.raises(InputError, check=refusal("E-STUDY-05", uri=uri)), leased(uri, "s"):
        pass
