"""What `medgan serve` refuses before anything is started."""

import socket
from pathlib import Path

import pytest
from refusal import refusal

import medgan.inference
from medgan.errors import InputError
from medgan.locks import held
from medgan.paths import find_place
from medgan.registry.versions import point, register
from medgan.server.deployment import _own_folder
from medgan.tracking.mlflow_runs import MlflowStudy
from medgan.workflows.serve import serve

NAME = "medgan-pet2ct"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("medgan.workflows.serve.cluster", lambda: pytest.fail("started Ray"))
    return find_place(tmp_path / "home")


@pytest.fixture
def champion(place, model_folder):
    """A registered champion; gives the file with its weights."""
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


def refused(place, message, **changes):
    with pytest.raises(InputError, check=message):
        serve(**{"model": f"models:/{NAME}@champion", "place": place, **changes})
    assert not (place.output / "serve.token").exists() and not (place.output / "serving").exists()


def test_a_registry_that_is_not_there_is_refused_and_not_made(place):
    refused(place, refusal("E-REGISTRY-05"))
    assert not place.output.exists()


@pytest.mark.parametrize("model", ["models:/medgan-pet2ct@challenger", "models:/medgan-ct2pet@champion"])
def test_an_unknown_model_or_alias_is_refused(place, champion, model):
    refused(place, refusal("E-REGISTRY-06", known="medgan-pet2ct"), model=model)


def test_damaged_weights_are_refused(place, champion):
    champion.write_bytes(champion.read_bytes()[:-1] + b"\0")
    refused(place, refusal("E-MODEL-05"))


def test_an_address_that_is_taken_or_another_machine_s_is_refused(place, champion):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(place, refusal("E-SERVE-02", host="127.0.0.1", port=port), port=port)
    refused(place, refusal("E-SERVE-02", host="192.0.2.77", port="8000"), host="192.0.2.77")


def test_the_ray_of_others_is_left_alone(place, champion, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    refused(place, refusal("E-SERVE-01"))


def test_images_that_a_killed_service_left_go_when_another_one_starts_and_those_of_a_living_one_stay(tmp_path):
    host = socket.gethostname()
    dead, living = tmp_path / f"x-8000/{host}-1", tmp_path / f"x-8001/{host}-2"
    for folder in (dead, living):
        (folder / "upload").mkdir(parents=True)
        folder.with_name(f"{folder.name}.lock").touch()
    with (
        held(living.with_name(f"{living.name}.lock"), "a living one", limit_s=1),
        _own_folder(tmp_path / "x-8002") as own,
    ):
        assert own.is_dir() and living.is_dir() and not dead.exists()
    with _own_folder(tmp_path / "x-8002") as again:
        assert again == own and list(again.iterdir()) == [] and not living.exists()
