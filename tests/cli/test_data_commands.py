"""The commands about images work as a person types them."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from optuna.distributions import FloatDistribution

from medgan.cli.main import main
from medgan.data.phantoms.phantom_patients import write_phantoms
from medgan.paths import find_place
from medgan.search.lease import leased
from medgan.search.objectives import Goal
from medgan.search.study import Identity, open_study
from medgan.tracking.mlflow_runs import MlflowStudy


def medgan(*arguments, home):
    """Runs a command; returns its exit code and its output."""
    command = [sys.executable, "-m", "medgan.cli.main", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"MEDGAN_HOME": str(home), **ENV})
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


ENV = {"PATH": "/usr/bin:/bin"}


def check_refused(answer, error, *values):
    """Checks that a command was refused with this code, and that the message holds these values."""
    code, output = answer
    assert (code, output.endswith(f"[{error}]\n")) == (2, True), output
    assert [value for value in values if value not in output] == []


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "dicom", patients=4, slices=6, matrix=48)


def test_prepare_prints_data_set_and_does_not_prepare_twice(dicom, tmp_path):
    arguments = ("prepare", dicom, "--size", 16, "--out", tmp_path / "set")
    code, output = medgan(*arguments, home=tmp_path)
    assert code == 0, output
    assert "phantoms: 2 train patients (12 slices), 1 validation patient (6 slices), 1 test patient" in output
    assert f"report   {tmp_path / 'set' / 'report.html'}" in output
    began = time.perf_counter()
    assert medgan(*arguments, home=tmp_path) == (0, output)
    assert time.perf_counter() - began < 5


def test_prepare_writes_plan_and_follows_edited_plan(dicom, tmp_path):
    arguments = ("prepare", dicom, "--size", 16, "--out", tmp_path / "set")
    code, output = medgan(*arguments, "--plan-only", home=tmp_path)
    assert (code, "edit it" in output) == (0, True)
    path = tmp_path / "set" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spacing_mm": 30}))
    code, output = medgan(*arguments, home=tmp_path)
    assert (code, "16 px of 30 mm" in output) == (0, True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "spacing_mm": -1}))
    check_refused(medgan(*arguments, home=tmp_path), "E-PLAN-06", f"{path}: spacing_mm: ", "greater than 0; got -1")


def test_prepare_simulates_with_given_settings(tmp_path):
    dicom = write_phantoms(tmp_path / "dicom", task="pet_denoise", patients=3, slices=4)
    arguments = ("prepare", dicom, "--task", "pet_denoise", "--size", 32, "--out", tmp_path / "set")
    code, output = medgan(*arguments, "--set", "simulation.dose_fraction=0.25", home=tmp_path)
    assert code == 0, output
    manifest = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert manifest["simulation"] == {"total_counts": 1e6, "dose_fraction": 0.25, "seed": 0}
    answer = medgan(*arguments, "--set", "simulation.dose_fraction=2", home=tmp_path)
    check_refused(answer, "E-PREPARE-05", "plan.json: ", "simulation.dose_fraction 0.25", "got 2")


def test_doctor_finds_identifiers_in_dicom_and_none_in_prepared_set(dicom, tmp_path):
    medgan("prepare", dicom, "--size", 16, "--out", tmp_path / "set", home=tmp_path)
    code, output = medgan("doctor", "--phi", tmp_path / "set", "--against", dicom, home=tmp_path)
    assert (code, "known identifiers looked for: 0 findings" in output) == (0, True), output
    code, output = medgan("doctor", "--phi", dicom, home=tmp_path)
    assert code == 1
    assert output.startswith("PHANTOM-0001/CT: DICOM file with ")
    assert " in 6 files\n" in output
    assert "CT/0001.dcm" not in output
    assert "\n45 files searched: 44 findings\n" in output
    missing = tmp_path / "nowhere"
    check_refused(medgan("doctor", "--phi", missing, home=tmp_path), "E-DEID-01", f"{missing}: ")


def test_doctor_names_each_file_where_few_hold_identifiers(dicom, tmp_path):
    (tmp_path / "few").mkdir()
    for path in sorted(dicom.rglob("*.dcm"))[:3]:
        shutil.copy(path, tmp_path / "few")
    code, output = medgan("doctor", "--phi", tmp_path / "few", home=tmp_path)
    assert [f"{number:04d}.dcm: DICOM file with " in output for number in (1, 2, 3)] == [True] * 3
    assert (code, " in 3 files" in output) == (1, False)


@pytest.fixture
def study(tmp_path):
    """Makes a study of one trial that a dead driver left running, in the home `tmp_path`."""
    place = find_place(tmp_path, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    goals = (Goal("val/ssim", "max"),)
    study = open_study(place.study_uri, "tried", Identity("pet2ct", "a" * 64, "b" * 64), goals=goals)
    with MlflowStudy(
        place.tracking_uri, "medgan/pet2ct", artifacts=tmp_path, study="tried", key=study.user_attrs["key"]
    ) as tracking:
        study.ask({"optim.generator_lr": FloatDistribution(1e-4, 1e-2, log=True)})
        tracking.trial(0).tags({"medgan.state": "running"})
    return place


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    """Runs `medgan doctor` in this process; returns its exit code and its output."""
    monkeypatch.setenv("MEDGAN_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    def typed(*arguments):
        monkeypatch.setattr(sys, "argv", ["medgan", "doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        output = capsys.readouterr()
        return stop.value.code or 0, output.out + output.err

    return typed


def test_doctor_repairs_disagreements_of_study(study, doctor):
    lines = (
        "trial 0: attempt 0 runs in the study but no driver does, should wait to be repeated",
        "trial 0: MLflow says running (RUNNING), should be interrupted (KILLED)",
    )
    code, output = doctor("tried")
    assert (code, output.splitlines()) == (1, [*lines, "study tried: 2 disagreements"])
    code, output = doctor("tried", "--repair")
    done = [f"{lines[0]}: put back into the queue", f"{lines[1]}: set", "study tried: nothing disagrees"]
    assert (code, output.splitlines()) == (0, done)
    with leased(study.study_uri, "tried"):
        check_refused(doctor("tried", "--repair"), "E-LEASE-02", "study tried: ", f"process {os.getpid()}")


def test_doctor_counts_disagreements_left_in_given_stores(study, doctor, tmp_path):
    (tmp_path / "other").mkdir()
    empty = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    MlflowStudy(empty, "medgan/pet2ct", artifacts=tmp_path, study="other", key="other")
    stores = ("--output", tmp_path, "--study-uri", study.study_uri, "--tracking-uri", empty)
    code, output = doctor("tried", "--repair", *stores)
    assert code == 1
    assert "study: MLflow has no run of it, should have one: cannot be repaired" in output
    assert output.endswith("study tried: 1 disagreement left\n")
    check_refused(doctor("tired", *stores), "E-STUDY-02", "study tired: ", "one of tried")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("E-CLI-02", "got none")),
        (("tried", "--phi", "."), ("E-CLI-02", "got STUDY and --phi")),
        (("tried", "--against", "."), ("E-CLI-03", "--against: ", "got STUDY")),
        (("--phi", ".", "--repair"), ("E-CLI-04", "--repair: ", "got --phi .")),
    ],
)
def test_doctor_refuses_mixed_options(doctor, arguments, expected):
    answer = doctor(*arguments)
    check_refused(answer, *expected)
    assert len(answer[1].splitlines()) == 1


def test_doctor_refuses_missing_database_and_makes_none(doctor, tmp_path):
    check_refused(doctor("tried"), "E-STUDY-01", "study.db")
    assert list(tmp_path.iterdir()) == []


def test_phantoms_writes_modality_of_task(tmp_path):
    for task, modality in (("mr_motion", "MR"), ("pet_denoise", "PT")):
        arguments = ("--task", task, "--patients", 1, "--slices", 2, "--matrix", 32)
        code, output = medgan("phantoms", tmp_path / task, *arguments, home=tmp_path)
        assert code == 0, output
        assert [path.name for path in (tmp_path / task / "PHANTOM-0001").iterdir()] == [modality]
