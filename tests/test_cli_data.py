"""The commands about images, as a person types them."""

import json
import subprocess
import sys
import time

import pytest

from medgan.data.phantoms import write_phantoms


def medgan(*arguments, home):
    """Exit code and what was said."""
    command = [sys.executable, "-m", "medgan.cli", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"MEDGAN_HOME": str(home), **ENV})
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "dicom", patients=4, slices=6, matrix=48)


def test_prepare_says_what_it_made_and_makes_it_once(dicom, tmp_path):
    arguments = ("prepare", dicom, "--size", 16, "--out", tmp_path / "set")
    code, said = medgan(*arguments, home=tmp_path)
    assert code == 0, said
    assert "phantoms: 2 train patients (12 slices), 1 validation patient (6 slices), 1 test patient" in said
    assert f"report   {tmp_path / 'set' / 'report.html'}" in said
    began = time.perf_counter()
    assert medgan(*arguments, home=tmp_path) == (0, said)
    assert time.perf_counter() - began < 5


def test_a_plan_is_written_edited_and_carried_out(dicom, tmp_path):
    arguments = ("prepare", dicom, "--size", 16, "--out", tmp_path / "set")
    code, said = medgan(*arguments, "--plan-only", home=tmp_path)
    assert (code, "edit it" in said) == (0, True)
    path = tmp_path / "set" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spacing_mm": 30}))
    code, said = medgan(*arguments, home=tmp_path)
    assert (code, "16 px of 30 mm" in said) == (0, True)
    path.write_text(json.dumps({**json.loads(path.read_text()), "spacing_mm": -1}))
    code, said = medgan(*arguments, home=tmp_path)
    assert (code, "plan.json: spacing_mm: Input should be greater than 0; got -1" in said) == (2, True)


def test_simulated_tasks_are_prepared_with_their_settings(tmp_path):
    dicom = write_phantoms(tmp_path / "dicom", task="pet_denoise", patients=3, slices=4)
    arguments = ("prepare", dicom, "--task", "pet_denoise", "--size", 32, "--out", tmp_path / "set")
    code, said = medgan(*arguments, "--set", "simulation.dose_fraction=0.25", home=tmp_path)
    assert code == 0, said
    manifest = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert manifest["simulation"] == {"total_counts": 1e6, "dose_fraction": 0.25, "seed": 0}
    code, said = medgan(*arguments, "--set", "simulation.dose_fraction=2", home=tmp_path)
    assert (code, "plan.json: says simulation.dose_fraction 0.25, asked for is 2" in said) == (2, True)


def test_doctor_finds_nothing_in_a_prepared_set_and_everything_in_dicom(dicom, tmp_path):
    medgan("prepare", dicom, "--size", 16, "--out", tmp_path / "set", home=tmp_path)
    code, said = medgan("doctor", "--phi", tmp_path / "set", "--against", dicom, home=tmp_path)
    assert (code, "known identifiers looked for: 0 findings" in said) == (0, True), said
    code, said = medgan("doctor", "--phi", dicom, home=tmp_path)
    assert code == 1
    assert "PHANTOM-0001/CT/0001.dcm: " in said
    code, said = medgan("doctor", "--phi", tmp_path / "nowhere", home=tmp_path)
    assert (code, "expected a folder to search" in said) == (2, True)


def test_phantoms_of_every_task_are_written(tmp_path):
    for task, modality in (("mr_motion", "MR"), ("pet_denoise", "PT")):
        arguments = ("--task", task, "--patients", 1, "--slices", 2, "--matrix", 32)
        code, said = medgan("phantoms", tmp_path / task, *arguments, home=tmp_path)
        assert code == 0, said
        assert [path.name for path in (tmp_path / task / "PHANTOM-0001").iterdir()] == [modality]
