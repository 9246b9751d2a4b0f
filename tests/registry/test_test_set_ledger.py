"""The ledger counts candidates on a real MLflow store that processes share."""

import subprocess
import sys

import pytest
from mlflow import MlflowClient
from refusal import refusal

from medgan.errors import JobError
from medgan.registry.test_set_ledger import enter

PATIENTS, OTHERS = "a" * 64, "b" * 64
ENTER_THREE = """
import sys
from medgan.registry.test_set_ledger import enter
uri, name, test_set, mine = sys.argv[1:]
for number in range(3):
    enter(name, test_set=test_set, weights=f"{mine}{number}" * 16, version=str(number), uri=uri)
"""


def tried(name, *, test_set, uri):
    """Returns the number of candidates that the tags of the model name."""
    tags = MlflowClient(tracking_uri=uri).get_registered_model(name).tags
    return sum(key.startswith(f"medgan.tried.{test_set[:12]}.") for key in tags)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'mlflow.db'}"


@pytest.fixture
def name(uri, request):
    """Registers a model for this test."""
    return MlflowClient(tracking_uri=uri).create_registered_model(f"medgan-{request.node.name}").name


def test_enter_counts_candidate_once_whatever_version(uri, name):
    entered = [("c" * 64, "1"), ("d" * 64, "2"), ("c" * 64, "1"), ("c" * 64, "3")]
    counts = [enter(name, test_set=PATIENTS, weights=one, version=version, uri=uri) for one, version in entered]
    assert counts == [1, 2, 2, 2] and tried(name, test_set=PATIENTS, uri=uri) == 2


def test_enter_counts_each_test_set_separately(uri, name):
    assert enter(name, test_set=PATIENTS, weights="c" * 64, version="1", uri=uri) == 1
    assert enter(name, test_set=OTHERS, weights="c" * 64, version="1", uri=uri) == 1
    assert enter(name, test_set=OTHERS, weights="d" * 64, version="2", uri=uri) == 2
    assert tried(name, test_set=PATIENTS, uri=uri) == 1


def test_enter_tags_model_with_version_first_tried(uri, name):
    client = MlflowClient(tracking_uri=uri)
    client.set_registered_model_tag(name, "owner", "somebody")
    for version in ("1", "3"):
        enter(name, test_set=PATIENTS, weights="c" * 64, version=version, uri=uri)
    tags = client.get_registered_model(name).tags
    assert tags == {"owner": "somebody", "medgan.tried.aaaaaaaaaaaa.cccccccccccc": "version 1"}


@pytest.mark.timeout(120)
def test_enter_from_two_processes_loses_no_candidate(uri, name):
    command = [sys.executable, "-c", ENTER_THREE, uri, name, PATIENTS]
    both = [subprocess.Popen([*command, mine], stderr=subprocess.PIPE, text=True) for mine in "ef"]
    assert [(one.communicate(timeout=100)[1], one.returncode)[1] for one in both] == [0, 0]
    assert tried(name, test_set=PATIENTS, uri=uri) == 6


def test_enter_refuses_unregistered_model(uri):
    with pytest.raises(JobError, check=refusal("E-REGISTRY-01", name="medgan-none")):
        enter("medgan-none", test_set=PATIENTS, weights="c" * 64, version="1", uri=uri)
    with pytest.raises(JobError, check=refusal("E-REGISTRY-01", name="medgan-none")):
        enter("medgan-none", test_set=PATIENTS, weights="c" * 64, version="1", uri=uri)


def test_enter_fails_within_seconds_where_server_is_away(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(JobError, check=refusal("E-REGISTRY-01", uri="http://127.0.0.1:9")):
        enter("medgan-away", test_set=PATIENTS, weights="c" * 64, version="1", uri="http://127.0.0.1:9")
