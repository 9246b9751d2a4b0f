"""Evidence is stored with the run of a version and read back; a version without a run is refused."""

import pytest
from mlflow import MlflowClient
from refusal import refusal

from medgan.errors import InputError
from medgan.registry.evidence import attach, read_back

NAME = "medgan-pet2ct"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Returns (uri, client) of a store with version 1, made by a run, and version 2, made without a run."""
    folder = tmp_path_factory.mktemp("evidence")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    run = client.create_run(client.create_experiment("medgan/pet2ct", (folder / "artifacts").as_uri()))
    client.create_registered_model(NAME)
    client.create_model_version(NAME, source=str(folder), run_id=run.info.run_id)
    client.create_model_version(NAME, source=str(folder))
    return uri, client


def test_attach_stores_files_with_run_and_tags_with_version(store, tmp_path):
    uri, client = store
    (tmp_path / "promotion.json").write_text("{}")
    attach(NAME, "1", files=tmp_path, folder="promotion/abc", tags={"medgan.gate": "passed"}, uri=uri)
    assert client.get_model_version(NAME, "1").tags == {"medgan.gate": "passed"}
    assert read_back(NAME, "1", "promotion/abc/promotion.json", uri=uri) == b"{}"
    assert read_back(NAME, "1", "promotion/other/promotion.json", uri=uri) is None


def test_evidence_of_version_without_run_is_refused(store, tmp_path):
    uri, _ = store
    with pytest.raises(InputError, check=refusal("E-EVIDENCE-02", name="medgan-pet2ct", number="2")):
        read_back(NAME, "2", "promotion/abc/promotion.json", uri=uri)
    with pytest.raises(InputError, check=refusal("E-EVIDENCE-02", number="2")):
        attach(NAME, "2", files=tmp_path, folder="promotion/abc", tags={}, uri=uri)
