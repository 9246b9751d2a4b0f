"""What an earlier medgan made (commit d5bb1c7: data set, study, translated folder, registered model) is used as it is.

`tests/made_before/d5bb1c7.tar.xz` holds what `tests/made_before/make.sh` made with that commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
from pydicom import dcmread

from medgan.data.dataset import PreparedDataset
from medgan.data.manifest import FIRST_MASK_RULE, read_manifest, sealed
from medgan.data.reader import find_series, read_volume
from medgan.paths import find_place
from medgan.registry.versions import resolve
from medgan.server.app import build_app  # noqa: F401 - what serves the model imports
from medgan.workflows.serve import load_served

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path("/tmp/medgan-d5bb1c7")
"""The stores hold absolute paths in this folder."""
SPACE = REPOSITORY / "tests" / "made_before" / "quick.yaml"
"""The search space of the study, as it was then."""
MODEL = "models:/medgan-pet2ct-phantom@challenger"
SETTINGS = ["train.epochs=2", "train.batch_size=2", "generator.base_channels=2", "discriminator.base_channels=2"]


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """The folder of an earlier medgan, as it left it."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tarfile.open(REPOSITORY / "tests" / "made_before" / "d5bb1c7.tar.xz") as archive:
        archive.extractall(FOLDER.parent, filter="data")
    yield FOLDER
    shutil.rmtree(FOLDER, ignore_errors=True)


def medgan(*arguments: str | Path, script: Path | None = None) -> str:
    """What a command prints, with the earlier output folder."""
    program = [script] if script else ["-m", "medgan.cli.main"]
    environment = {**os.environ, "MEDGAN_HOME": str(FOLDER / "home"), "MEDGAN_COMMIT": "later"}
    done = subprocess.run(
        [sys.executable, *map(str, [*program, *arguments])],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_preparing_again_keeps_the_earlier_state_and_its_digest(made):
    """The rules that read images have changed since: a new state stands beside the earlier one, whose files stay."""
    (dataset,) = (made / "home" / "datasets").glob("pet2ct-64px-*")
    before = contents(dataset)
    said = medgan("prepare", made / "patients", "--task", "pet2ct", "--size", "64")
    assert f"data set {dataset}, digest" in said
    changed = ("dataset.json", "report.html", "fingerprint.json", ".lock")
    after = contents(dataset)
    assert {name: after[name] for name in before if name not in changed} == {
        name: content for name, content in before.items() if name not in changed
    }
    for state in (dataset / "states").glob("*.json"):
        assert sealed(read_manifest(state)).digest == state.stem


def test_preparing_anew_gives_the_same_images(made, tmp_path):
    (dataset,) = (made / "home" / "datasets").glob("pet2ct-64px-*")
    shutil.copytree(made / "home" / "datasets", tmp_path / "datasets", ignore=shutil.ignore_patterns("pet2ct-64px-*"))
    medgan("prepare", made / "patients", "--task", "pet2ct", "--size", "64", "--output", tmp_path)
    (again,) = (tmp_path / "datasets").glob("pet2ct-64px-*")
    earlier = [PreparedDataset.open(path) for path in (dataset / "states").glob("*.json")]
    states = [next(one for one in earlier if one.manifest.mask_rule == FIRST_MASK_RULE), PreparedDataset.open(again)]
    old, new = (
        {(one.hash, one.role, one.sha256["source.npy"], one.sha256["target.npy"]) for one in state.manifest.patients}
        for state in states
    )  # fmt: skip
    assert old == new


def test_translating_again_into_its_folder_leaves_it_alone(made):
    before = contents(made / "translated")
    assert "1 of 1 series are there already" in medgan(
        "translate", "--model", MODEL, made / "patients" / "PHANTOM-0001" / "PT", made / "translated"
    )
    assert contents(made / "translated") == before


def test_registered_model_translates_to_the_same_pixels(made, tmp_path):
    medgan("translate", "--model", MODEL, made / "patients" / "PHANTOM-0001" / "PT", tmp_path / "out")
    old, new = (sorted(folder.glob("*")) for folder in (made / "translated", tmp_path / "out"))
    slices = [[dcmread(path) for path in paths if path.suffix == ".dcm" or path.is_file()] for paths in (old, new)]
    assert len(slices[0]) == len(slices[1]) > 3
    for before, after in zip(*slices, strict=True):
        assert np.array_equal(before.pixel_array, after.pixel_array)
        assert before.keys() == after.keys()


def test_registered_model_loads_through_mlflow_and_for_serving(made, tmp_path):
    place = find_place(made / "home", f"sqlite:///{made / 'home' / 'mlflow.db'}")
    mlflow.set_tracking_uri(place.tracking_uri)
    name, version = resolve(MODEL, place.tracking_uri)
    (series,) = find_series(made / "patients" / "PHANTOM-0001" / "PT")
    source = read_volume(series).array
    loaded = mlflow.pyfunc.load_model(MODEL).predict(source)
    served = load_served(version, tmp_path / "kept", name=name, uri=place.tracking_uri)
    assert not served.network.problem()
    served.network.close()
    assert loaded.shape == source.shape and np.isfinite(loaded).all()
    assert served.manifest.task == "pet2ct" and "Synthetic" in served.card.title()


@pytest.mark.timeout(900)
def test_study_goes_on_and_its_trials_stay(made):
    def trials():
        study = optuna.load_study(study_name="old", storage=f"sqlite:///{made / 'home' / 'study.db'}")
        return [(one.number, one.state, one.values, one.params, one.user_attrs) for one in study.trials]

    before = trials()
    assert "nothing disagrees" in medgan("doctor", "old")
    options = ["--data", made / "patients", "--space", SPACE, "--study", "old", "--workers", "1", "--trials"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    job = REPOSITORY / "jobs" / "tune_pet2ct.py"
    said = medgan(*options, "2", *settings, script=job)
    assert "2 of 2 trials done" in said and "Study old: 2 complete" in said
    assert trials() == before
    said = medgan(*options, "3", *settings, script=job)
    assert "it goes on with extractor.scale=as_is" in said
    assert "Study old: 3 complete" in said or "1 stopped early" in said or "1 pruned" in said
    assert trials()[:2] == before and len(trials()) == 3
    assert "nothing disagrees" in medgan("doctor", "old")


@pytest.mark.timeout(400)
def test_run_is_reproduced_with_features_as_they_were(made):
    client = mlflow.MlflowClient(f"sqlite:///{made / 'home' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medgan/pet2ct-phantom")
    runs = client.search_runs([experiment.experiment_id], "tags.`medgan.trial` = '0'")
    said = medgan("reproduce", runs[0].info.run_id, "--workers", "1", "--rtol", "0.02")
    assert "extractor.scale: as_is then, oxford by default now: the feature scale differs" in said
    assert "is reproduced" in said
