"""A real training on phantoms, and `medgan reproduce` on its output folder."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from medgan.cli import run_commands as cli_runs
from medgan.cli.main import run
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.paths import find_place
from medgan.tasks import TASKS
from medgan.workflows.train import TrainRequest, train

SMALL = {
    "data.size": 32,
    "generator.base_channels": 4,
    "discriminator.base_channels": 4,
    "discriminator.patch": 16,
    "optim.schedule": "constant",
    "train.epochs": 3,
}
"""Settings of pix2pix, whose dropout draws random numbers in every step."""


@pytest.fixture(scope="session")
def trained() -> Callable[..., str]:
    """`trained(dicom, home, workers=1)`: trains in `home` and returns the id of the run."""

    def in_home(dicom, home, workers=1):
        uri = f"sqlite:///{home / 'mlflow.db'}"
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("RAY_ADDRESS", raising=False)
            request = TrainRequest(
                TASKS["pet2ct"],
                find_place(home, uri),
                "pix2pix",
                str(dicom),
                quick=True,
                workers=workers,
                overrides=SMALL,
            )
            train(request)
        client = mlflow.MlflowClient(uri)
        (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
        return found.info.run_id

    return in_home


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    """Six small patients as DICOM."""
    return write_phantoms(tmp_path_factory.mktemp("dicom") / "phantoms", patients=6, slices=8, matrix=64)


@pytest.fixture(scope="module")
def pristine(dicom, tmp_path_factory, trained):
    """The output folder of a training, and the id of its run."""
    home = tmp_path_factory.mktemp("pristine") / "home"
    return home, trained(dicom, home)


@pytest.fixture
def home(pristine, tmp_path):
    """The output folder; its data sets and artifacts are restored after each test."""
    folder, changing = pristine[0], ("datasets", "mlflow-artifacts")
    for name in changing:
        shutil.copytree(folder / name, tmp_path / "kept" / name)
    yield folder
    for name in changing:
        shutil.rmtree(folder / name)
        (tmp_path / "kept" / name).rename(folder / name)


@pytest.fixture
def run_id(pristine):
    return pristine[1]


@pytest.fixture
def dataset_folder(home) -> Path:
    (manifest,) = home.glob("datasets/*/dataset.json")
    return manifest.parent


@pytest.fixture
def medgan_reproduce(home, monkeypatch, capfd):
    """Runs the command on the output folder; returns its exit code and output."""

    def called(*arguments) -> tuple[int, str]:
        uri = f"sqlite:///{home / 'mlflow.db'}"
        fixed = ["--output", str(home), "--tracking-uri", uri]
        monkeypatch.setattr(sys, "argv", ["medgan", *fixed, *map(str, arguments)])
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run(cli_runs.app)
        output = capfd.readouterr()
        return stop.value.code or 0, output.out + output.err

    return called


@pytest.fixture
def artifact(home):
    """`artifact(name, values)`: writes values by dotted path into a JSON file of the run."""

    def found(name: str, values: dict) -> None:
        (path,) = (home / "mlflow-artifacts").rglob(name)
        tree = json.loads(path.read_text())
        for dotted, value in values.items():
            section, leaf = dotted.split(".")
            tree[section][leaf] = value
        path.write_text(json.dumps(tree))

    return found
