"""`medgan serve` refuses wrong input before it starts anything."""

import errno
import hashlib
import json
import socket
from pathlib import Path

import pytest
from refusal import refusal

import medgan.inference
from medgan.errors import InputError
from medgan.inference.saved_model import MANIFEST
from medgan.locks import held
from medgan.paths import find_place
from medgan.registry.versions import point, register
from medgan.server.service import _own_folder
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.workflows.serve import _bound, serve

NAME = "medgan-pet2ct"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("medgan.workflows.serve.running", lambda *_: pytest.fail("started"))
    return find_place(tmp_path / "home")


@pytest.fixture
def champion(place, model_folder):
    """Registers a champion; returns the file with its weights."""
    place.output.mkdir()
    study = MlflowStudy(place.tracking_uri, "medgan/pet2ct", artifacts=place.artifacts, study="s", key="k")
    register(
        model_folder,
        name=NAME,
        run_id=study.trial(0).run_id,
        uri=place.tracking_uri,
        code=Path(medgan.inference.__file__).parent / "pyfunc.py",
        tags={},
        description="for research only",
    )
    point(NAME, "champion", "1", uri=place.tracking_uri)
    return next(place.artifacts.rglob("generator.safetensors"))


def refused(place, expected, **changes):
    """Runs a service that must be refused and leave nothing behind; returns the fields of the error."""
    with pytest.raises(InputError, check=expected) as caught:
        serve(**{"model": f"models:/{NAME}@champion", "place": place, **changes})
    assert not (place.output / "serve.token").exists() and not (place.output / "serving").exists()
    return caught.value.fields


def test_serve_refuses_missing_registry_and_makes_none(place):
    refused(place, refusal("E-REGISTRY-05", model=f"models:/{NAME}@champion"))
    assert not place.output.exists()


@pytest.mark.parametrize("model", ["models:/medgan-pet2ct@challenger", "models:/medgan-ct2pet@champion"])
def test_serve_refuses_unknown_model_or_alias(place, champion, model):
    refused(place, refusal("E-REGISTRY-06", model=model, known=NAME), model=model)


@pytest.mark.parametrize("file", ["generator.safetensors", "model.json"])
def test_serve_refuses_files_other_than_registered(place, champion, file):
    changed = champion.with_name(file)
    changed.write_bytes(changed.read_bytes()[:-1] + b" ")
    refused(place, refusal("E-REGISTRY-08", model=f"models:/{NAME}/1", file=file))


def test_serve_refuses_weights_changed_together_with_manifest(place, champion):
    champion.write_bytes(champion.read_bytes()[:-1] + b"\0")
    manifest = json.loads(champion.with_name(MANIFEST).read_text())
    manifest["weights_sha256"] = hashlib.sha256(champion.read_bytes()).hexdigest()
    champion.with_name(MANIFEST).write_text(json.dumps(manifest))
    refused(place, refusal("E-REGISTRY-08", model=f"models:/{NAME}/1", file=champion.name))


def test_serve_refuses_address_in_use_or_of_other_machine(place, champion):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fields = refused(place, refusal("E-SERVE-02", host="127.0.0.1", port=port), port=port)
        assert fields["error"].errno == errno.EADDRINUSE
    refused(place, refusal("E-SERVE-02", host="192.0.2.77", port=8000), host="192.0.2.77")


def test_two_services_that_start_at_once_have_one_address_only():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    expected = refusal("E-SERVE-02", host="127.0.0.1", port=port)
    with _bound("127.0.0.1", port), pytest.raises(InputError, check=expected), _bound("127.0.0.1", port):
        pass


def test_own_folder_removes_files_of_dead_services_only(tmp_path):
    host = socket.gethostname()
    dead, living = tmp_path / f"x-8000/{host}-1", tmp_path / f"x-8001/{host}-2"
    for folder in (dead, living):
        (folder / "upload").mkdir(parents=True)
        folder.with_name(f"{folder.name}.lock").touch()
    with (
        held(living.with_name(f"{living.name}.lock"), "the living service", limit_s=1),
        _own_folder(tmp_path / "x-8002") as own,
    ):
        assert own.is_dir() and living.is_dir() and not dead.exists()
    with _own_folder(tmp_path / "x-8002") as again:
        assert again == own and list(again.iterdir()) == [] and not living.exists()
