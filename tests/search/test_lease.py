"""One driver a study, wherever it runs; a dead one's lease is taken over at once, a silent one's when it expired."""

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


def test_a_lease_is_given_back_however_the_block_ends(uri):
    with pytest.raises(RuntimeError), leased(uri, "s"):
        assert "process" in holder(uri, "s")
        raise RuntimeError
    assert holder(uri, "s") == ""
    with leased(uri, "s"):
        pass


def test_studies_of_one_database_are_held_apart(uri):
    with leased(uri, "s") as lost, leased(uri, "t"):
        assert not lost()
        assert holder(uri, "s") and holder(uri, "t")


def test_a_second_driver_is_refused_with_the_first_ones_host_process_and_age(uri, other):
    message = refusal("E-LEASE-02", study="s")
    with pytest.raises(InputError, check=message), leased(uri, "s"):
        pass


def test_a_killed_drivers_lease_is_taken_over_at_once(uri, other):
    other.kill()
    other.wait()
    assert is_expired(uri, "s")
    with leased(uri, "s"):
        assert not is_expired(uri, "s")


def test_another_hosts_lease_holds_while_it_beats_and_no_longer(uri, other):
    change(uri, host="elsewhere")
    with pytest.raises(InputError, check=refusal("E-LEASE-02")), leased(uri, "s"):
        pass
    change(uri, beat=time.time() - lease.LIFE_S - 1)
    with leased(uri, "s"):
        pass


def test_a_driver_that_slept_too_long_ends_when_another_has_taken_over(uri, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    with pytest.raises(JobError, check=refusal("E-LEASE-01", study="s")), leased(uri, "s"):
        change(uri, token="another's")
        time.sleep(5)


def test_a_database_that_cannot_be_opened_is_refused():
    with (
        pytest.raises(InputError, check=refusal("E-STUDY-05")),
        leased("sqlite:////no/x.db", "s"),
    ):
        pass
