"""Ray's start on a busy machine: it is retried, and fails with a clear error in the end."""

import os

import pytest
import ray
from refusal import refusal

from medgan.distributed.cluster import ANYONE, cluster
from medgan.errors import InputError, JobError

pytestmark = pytest.mark.unit

TIMED_OUT = Exception("The current node timed out during startup. This could happen because the GCS is overloaded.")
PORT_TAKEN = Exception(
    "Failed to find a valid port for dashboard after 0 retries: [Errno 98] error while attempting to bind on address "
    "('127.0.0.1', 44227): address already in use"
)
PORT_OCCUPIED = ValueError("Failed to bind to 127.0.0.1:44227 because it's already occupied.")


@pytest.fixture
def starts(monkeypatch):
    """The calls of a replaced `ray.init`, and the list of errors that it raises, one in each call."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    calls, errors = [], []

    def init(**settings):
        calls.append(settings)
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    return calls, errors


@pytest.mark.parametrize("error", [TIMED_OUT, PORT_TAKEN, PORT_OCCUPIED])
def test_cluster_start_is_retried_after_timeout_or_taken_port(starts, error):
    calls, errors = starts
    errors += [error]
    with cluster() as capacity:
        assert capacity.cpus == 2
    assert len({settings["dashboard_port"] for settings in calls}) == len(calls) == 2


def test_cluster_start_fails_after_three_attempts(starts):
    calls, errors = starts
    errors += [TIMED_OUT] * 3
    with pytest.raises(JobError, check=refusal("E-CLUSTER-04", starts="3")), cluster():
        pass
    assert len(calls) == 3


def test_cluster_start_is_not_retried_after_other_failure(starts):
    calls, errors = starts
    errors += [OSError("no space left")]
    with pytest.raises(OSError, match="no space left"), cluster():
        pass
    assert len(calls) == 1


@pytest.mark.parametrize("mode", ["disabled", "DISABLED", "none"])
def test_cluster_that_lets_everyone_in_is_refused(starts, monkeypatch, mode):
    calls, _ = starts
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(InputError, check=refusal("E-CLUSTER-05", mode=mode, option=ANYONE)), cluster():
        pass
    assert calls == []
    monkeypatch.setenv(ANYONE, "1")
    with cluster():
        assert len(calls) == 1


def test_token_of_ray_is_for_its_owner_only(starts, monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with cluster():
        assert token.stat().st_mode & 0o777 == 0o600


def test_given_cluster_is_joined_as_it_is(starts, monkeypatch):
    calls, _ = starts
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    with cluster():
        assert "dashboard_host" not in calls[0]
    assert "GLOO_SOCKET_IFNAME" not in os.environ
