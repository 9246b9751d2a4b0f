import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from refusal import refusal

from medgan.data.nifti_names import ISSUED, MODALITIES
from medgan.data.prepare.pairing import Choice, pair
from medgan.data.reader import find_series, read_volume, representative_headers, survey
from medgan.data.series import Problem
from medgan.errors import InputError
from medgan.tasks import TASKS

pytestmark = pytest.mark.unit

BRAIN = Path(__file__).parents[3] / "shared" / "data" / "ms_brain"
NAMES = ", ".join(MODALITIES)
UNNAMED = (
    f"NIfTI: expected one of {NAMES} in the name of the file or of its folder, or Modality in its sidecar; got {{}}."
)
AXES = "MR: expected a NIfTI image of 3 axes and 1 number a voxel; got {} axes, or voxels of another kind."
CT = np.linspace(-1000, 1000, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def write(path, array=CT, *, vector=False, dimensions=3, turned=0.0, handed=1):
    image = SimpleITK.GetImageFromArray(array, isVector=vector)
    if dimensions == 3:
        image.SetSpacing((1.5, 2.0, 3.0))
        image.SetOrigin((-10.0, 5.0, 7.0))
        cosine, sine = np.cos(turned), np.sin(turned)
        image.SetDirection((1, 0, 0, 0, cosine, -sine * handed, 0, sine, cosine * handed))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("name", "patient", "study", "modality"),
    [
        ("patient07_T1.nii.gz", "patient07", "nifti", "MR"),
        ("sub-01_ses-2_FLAIR.nii", "sub-01", "ses-2", "MR"),
        ("sub-01_ses-3_run-2_trc-FDG_pet.nii.gz", "sub-01", "ses-3", "PT"),
        ("sub-pet-T1.nii", "sub-pet", "nifti", "MR"),
        ("a_sub-01_T1.nii", "a_sub-01", "nifti", "MR"),
        ("labeled_T1.nii", "labeled", "nifti", "MR"),
        ("CT-Meyer 3.nii", "Meyer 3", "nifti", "CT"),
        ("7.suv.nii.gz", "7", "nifti", "PT"),
        ("a_pet_x.NII.GZ", "a_x", "nifti", "PT"),
        ("mr_t2.nii", "clinic 4", "nifti/clinic 4", "MR"),
        ("ct.nii.gz", "clinic 4", "nifti/clinic 4", "CT"),
    ],
)
def test_nifti_file_name_gives_modality_patient_and_session(tmp_path, name, patient, study, modality):
    plain = write(tmp_path / "clinic 4" / ("x.nii.gz" if name.lower().endswith("gz") else "x.nii"))
    plain.rename(plain.with_name(name))
    (series,) = find_series(tmp_path)
    in_folder = f"{ISSUED}clinic 4" * patient.startswith("sub-")  # another folder may hold another sub-01
    assert (series.patient_id, series.modality) == (patient + in_folder, modality)
    assert series.series_uid == f"clinic 4/{name}"
    assert (series.study_uid, series.frame_of_reference, len(series.files)) == (study, "nifti", 4)


def test_pair_keeps_nifti_sessions_apart_unless_matched(tmp_path):
    for name in ("sub-01_ses-1_pet", "sub-01_ses-2_pet", "sub-01_ses-2_ct"):
        write(tmp_path / f"{name}.nii.gz")
    (one,), _ = pair(find_series(tmp_path), TASKS["pet2ct"], root=tmp_path)
    assert (one.source.study_uid, one.target.study_uid) == ("ses-2", "ses-2")
    choice = Choice(source_match="ses-1_pet", target_match="_ct")
    (one,), _ = pair(find_series(tmp_path), TASKS["pet2ct"], root=tmp_path, choice=choice)
    assert [side.files[0].name[:12] for side in (one.source, one.target)] == ["sub-01_ses-1", "sub-01_ses-2"]


def test_survey_takes_first_folders_in_which_paths_differ_for_patients(tmp_path):
    for patient in ("P001", "P002"):
        write(tmp_path / patient / "baseline" / "ct.nii.gz")
    write(tmp_path / "P003" / "ct.nii.gz")
    found = survey(tmp_path)
    assert ([one.patient_id for one in found.series], found.problems) == (["P001", "P002", "P003"], [])


@pytest.mark.parametrize("turned", [0.0, 0.3])
@pytest.mark.parametrize("handed", [1, -1])
def test_nifti_image_is_read_with_position_and_orientation(tmp_path, turned, handed):
    (series,) = find_series(write(tmp_path / "a_ct.nii.gz", turned=turned, handed=handed).parent)
    volume = read_volume(series)
    assert (volume.unit, volume.array.dtype) == ("HU", np.float32)
    image = SimpleITK.ReadImage(str(tmp_path / "a_ct.nii.gz"))
    slice_ = 2 if handed == 1 else 1  # slices run along the normal of their planes
    assert volume.array[slice_, 1, 3] == pytest.approx(image[3, 1, 2])
    expected = image.TransformIndexToPhysicalPoint((3, 1, 2))
    np.testing.assert_allclose((volume.affine @ [3, 1, slice_, 1])[:3], expected, atol=1e-4)


def test_survey_finds_nifti_beside_dicom(make_series, tmp_path):
    make_series(tmp_path / "dicom")
    write(tmp_path / "b_pet.nii.gz")
    found = survey(tmp_path)
    assert [(one.patient_id, one.modality) for one in found.series] == [("P1", "CT"), ("b", "PT")]


@pytest.mark.parametrize("part", ["mask", "seg", "dseg", "Label", "labels", "label-GM"])
def test_survey_passes_over_masks_and_label_images(tmp_path, part):
    write(tmp_path / "sub-01_T1w.nii")
    write(tmp_path / f"sub-01_T1w_{part}.nii")
    write(tmp_path / f"ct {part}.nii.gz")
    found = survey(tmp_path)
    assert ([one.patient_id for one in found.series], found.problems) == (["sub-01"], [])
    assert found.passed_over == {"mask or label image": 2}


def test_survey_refuses_folder_of_masks_alone(tmp_path):
    write(tmp_path / "a_ct_mask.nii")
    with pytest.raises(InputError, check=refusal("E-READ-02", reasons="1 file: 1 mask or label image")):
        survey(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9_ct.nii", b"caf\xe9/a_ct.nii.gz"])
def test_survey_reads_nifti_at_path_that_is_not_utf_8(tmp_path, name):
    write(tmp_path / "b_ct.nii")
    odd = tmp_path / os.fsdecode(name)
    try:
        odd.parent.mkdir(exist_ok=True)
        content = (tmp_path / "b_ct.nii").read_bytes()
        odd.write_bytes(gzip.compress(content) if name.endswith(b".gz") else content)
    except OSError:
        pytest.skip("the file system has no such names")
    found = survey(tmp_path)
    assert (len(found.series), found.problems, found.passed_over) == (2, [], {})
    assert all(read_volume(one).array.shape == (4, 5, 6) for one in found.series)


def test_survey_of_nifti_writes_nothing_to_terminal(tmp_path, capfd):
    path = write(tmp_path / "zyxquist_ct.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = b"\0\0\1\0"  # qform_code, sform_code
    content[280:328] = np.array([[1, 0.5, 0, 0], [0.3, 1, 0.9, 0], [0, 0.2, 1, 0]], "<f4").tobytes()
    path.write_bytes(content)
    (problem,) = survey(tmp_path).problems
    assert problem.reason.startswith("CT: expected axes at right angles in the NIfTI header; mending them would move")
    assert capfd.readouterr() == ("", "")


def test_representative_headers_refuses_nifti_image(tmp_path):
    (series,) = find_series(write(tmp_path / "a_ct.nii").parent)
    with pytest.raises(InputError, check=refusal("E-READ-04", modality="CT")):
        representative_headers(series)


def test_survey_reports_unusable_nifti_images(tmp_path):
    write(tmp_path / "one.nii")
    write(tmp_path / "two_ct_pet.nii")
    write(tmp_path / "three_t1.nii", np.zeros((2, 4, 5, 6), np.float32), dimensions=4)
    write(tmp_path / "four_t1.nii", np.zeros((4, 5, 6, 2), np.float32), vector=True)
    (tmp_path / "five_t1.nii.gz").write_bytes(b"no image")
    assert survey(tmp_path).problems == [
        Problem("five", "MR: expected a NIfTI image; its header cannot be read."),
        Problem("four", AXES.format(5)),
        Problem("one", UNNAMED.format("none")),
        Problem("three", AXES.format(4)),
        Problem("two", UNNAMED.format("CT and PT")),
    ]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (CT + 5000, refusal("E-PLAUSIBLE-03")),
        (0 * CT, refusal("E-PLAUSIBLE-02", modality="CT", low="0.0")),
        (CT[:2] / 1e3 - 1, refusal("E-PLAUSIBLE-03")),
    ],
)
def test_read_volume_refuses_implausible_nifti_image(tmp_path, array, expected):
    (series,) = find_series(write(tmp_path / "a_ct.nii", array.astype(np.float32)).parent)
    with pytest.raises(InputError, check=expected):
        read_volume(series)


@pytest.mark.parametrize(("name", "code"), [("a_ct.nii", "E-NIFTI-02"), ("a_ct.nii.gz", "E-NIFTI-02")])
def test_read_volume_refuses_truncated_nifti_file(tmp_path, name, code):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-100])
    (series,) = find_series(tmp_path)
    with pytest.raises(InputError, check=refusal(code, modality="CT")):
        read_volume(series)


def test_read_volume_refuses_nifti_file_changed_after_survey(tmp_path):
    (series,) = find_series(write(tmp_path / "a_ct.nii").parent)
    write(tmp_path / "a_ct.nii", CT[:3])
    with pytest.raises(InputError, check=refusal("E-NIFTI-03", modality="CT", wanted=(4, 5, 6), found=(3, 5, 6))):
        read_volume(series)


@pytest.mark.real
def test_real_brain_is_read():
    if not BRAIN.is_dir():
        pytest.skip(f"the real brain is not at {BRAIN}")
    series = find_series(BRAIN)
    assert [(one.patient_id, one.modality) for one in series] == [("patient07", "MR")] * 3
    volume = read_volume(series[0])
    assert volume.array.shape == (182, 218, 182)
    assert volume.spacing_mm == pytest.approx((1, 1, 1), abs=1e-4)
