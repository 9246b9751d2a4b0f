"""Oddities of NIfTI exports: names, sidecars, orientation codes and axes, after public bug reports."""

import json

import nibabel
import numpy as np
import pytest
from field_patients import BQ_PER_SUV, DOSE_BQ, WAIT_S, WEIGHT_KG, hashed, nifti, prepared, put
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from refusal import refusal

from medgan.data.nifti_names import ISSUED, named
from medgan.data.reader import survey
from medgan.errors import InputError

PET = {
    "Modality": "PT", "TracerRadionuclide": "F18", "InjectedRadioactivity": DOSE_BQ / 1e6,
    "InjectedRadioactivityUnits": "MBq", "BodyWeight": WEIGHT_KG, "TimeZero": "10:00:00", "InjectionStart": -WAIT_S,
    "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0,
}  # fmt: skip


def changed(image, *, affine=None, array=None, sform=1, qform=1):
    """Returns an image with another affine or other voxels, and these codes."""
    affine = image.affine if affine is None else affine
    new = nibabel.Nifti1Image(image.get_fdata(dtype=np.float32) if array is None else array, affine)
    new.set_sform(affine, sform)
    new.set_qform(affine if qform else None, qform)
    return new


def turned(image, codes):
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))


def one_patient(tmp_path, ct, pt, *, sidecar=None, **settings):
    """Prepares one patient; returns his outcome and that of the unchanged images."""
    folder = tmp_path / "images"
    put(ct, folder / "odd_ct.nii.gz")
    put(pt, folder / "odd_pet.nii.gz")
    if sidecar:
        (folder / "odd_pet.json").write_text(json.dumps(sidecar))
    put(nifti("CT"), folder / "good_ct.nii.gz")
    put(nifti("PT"), folder / "good_pet.nii.gz")
    _, outcomes = prepared(folder, size=48, **settings)
    return outcomes.get(hashed(folder, "odd")), outcomes[hashed(folder, "good")]


def assert_same(odd, good):
    assert odd.reason == ""
    assert (odd.suv, odd.hu, odd.slices) == pytest.approx((good.suv, good.hu, good.slices), rel=0.01)
    np.testing.assert_allclose(odd.source, good.source, atol=0.06)
    np.testing.assert_allclose(odd.target, good.target, atol=1)


def test_not_a_number_is_background(tmp_path):
    ct = nifti("CT")
    array = ct.get_fdata(dtype=np.float32)
    x, y = np.mgrid[:48, :48] - 23.5
    array[x**2 + y**2 > 23.5**2] = np.nan
    odd, good = one_patient(tmp_path, changed(ct, array=array), nifti("PT"))
    assert_same(odd, good)
    assert "CT: 26% of the voxels are NaN and were taken as background" in odd.notes


@pytest.mark.parametrize("codes", ["LAS", "LPI", "RPS", "PIR", "ASR"])
def test_any_order_of_axes_gives_the_same_slices(tmp_path, codes):
    assert_same(*one_patient(tmp_path, turned(nifti("CT"), codes), turned(nifti("PT"), codes)))


def test_slices_lie_in_the_plane_of_the_plan(tmp_path):
    odd, _ = one_patient(tmp_path, turned(nifti("CT"), "PIR"), nifti("PT"), axis="coronal", least_overlap=0.2)
    assert odd.slices > 10


def test_codes_decide_which_orientation_counts(tmp_path):
    image = nifti("PT")
    wrong = image.affine.copy()
    wrong[:3, 3] += 900
    both = changed(image)
    both.set_sform(wrong, 0)  # code 0: not to be used
    assert_same(*one_patient(tmp_path, nifti("CT"), both))


def test_image_without_orientation_is_refused(tmp_path):
    odd, _ = one_patient(tmp_path, nifti("CT"), changed(nifti("PT"), sform=0, qform=0))
    assert "the codes of sform and qform are 0" in odd.reason


def test_axes_not_quite_at_right_angles_are_mended_and_told(tmp_path):
    affine = nifti("CT").affine.copy()
    affine[0, 1] += 0.016
    affine[1, 2] += 0.02
    odd, good = one_patient(tmp_path, changed(nifti("CT"), affine=affine, qform=0), nifti("PT"))
    assert odd.notes == "CT: axes that were not at right angles were mended"
    assert (odd.suv, odd.hu) == pytest.approx((good.suv, good.hu), rel=0.02)


def test_sheared_axes_are_refused(tmp_path):
    affine = nifti("CT").affine.copy()
    affine[0, 1] += 2
    odd, _ = one_patient(tmp_path, changed(nifti("CT"), affine=affine, qform=0), nifti("PT"))
    assert "expected axes at right angles in the NIfTI header" in odd.reason


@pytest.mark.parametrize(("unit", "scale"), [("Bq/mL", 1.0), ("kBq/mL", 1e-3)])
def test_activity_becomes_suv_with_the_sidecar(tmp_path, unit, scale):
    image = nifti("PT", scale=BQ_PER_SUV * scale)
    odd, good = one_patient(tmp_path, nifti("CT"), image, sidecar=PET | {"Units": unit})
    assert_same(odd, good)
    assert odd.notes == f"PET in {unit} converted to SUV with the sidecar"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"Units": "counts"}, "expected Units as SUV, g/mL, Bq/mL or kBq/mL in the sidecar"),
        ({"BodyWeight": None}, "expected BodyWeight as a number in kg"),
        ({"BodyWeight": 70000}, "expected BodyWeight as 1 to 300 kg"),
        ({"InjectedRadioactivityUnits": "Bq"}, "expected InjectedRadioactivity as 10 to 1200 MBq of F-18"),
        ({"TracerRadionuclide": ""}, "expected TracerRadionuclide as a nuclide of PET"),
        ({"ImageDecayCorrected": False}, "expected ImageDecayCorrected as true"),
        ({"InjectionStart": -10 * 3600}, "expected ImageDecayCorrectionTime as 0 to 5 hours after InjectionStart"),
        ({"ImageDecayCorrectionTime": "10:00"}, "expected ImageDecayCorrectionTime as a number in s"),
    ],
)
def test_sidecar_that_gives_no_suv_is_refused_by_field(tmp_path, more, reason):
    sidecar = PET | {"Units": "Bq/mL"} | more
    odd, _ = one_patient(tmp_path, nifti("CT"), nifti("PT", scale=BQ_PER_SUV), sidecar=sidecar)
    assert reason in odd.reason


def test_corrected_sidecar_changes_the_suv(tmp_path):
    image = nifti("PT", scale=BQ_PER_SUV)
    before, _ = one_patient(tmp_path, nifti("CT"), image, sidecar=PET | {"Units": "Bq/mL", "BodyWeight": 100})
    after, good = one_patient(tmp_path, nifti("CT"), image, sidecar=PET | {"Units": "Bq/mL"})
    assert before.suv == pytest.approx(good.suv * 10 / 7, rel=0.01)
    assert after.suv == pytest.approx(good.suv, rel=0.01)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda header: header.__setitem__(slice(70, 72), (999).to_bytes(2, "little")), "header cannot be read"),
        (lambda header: header.__setitem__(slice(46, 48), (65535).to_bytes(2, "little")), "along each axis"),
    ],
)
def test_damaged_nifti_header_is_refused_and_ends_nothing(tmp_path, change, code):
    put(nifti("CT"), tmp_path / "images" / "odd_ct.nii")
    put(nifti("CT"), tmp_path / "images" / "good_ct.nii")
    content = bytearray((tmp_path / "images" / "odd_ct.nii").read_bytes())
    change(content)
    (tmp_path / "images" / "odd_ct.nii").write_bytes(content)
    found = survey(tmp_path / "images")
    assert [one.patient_id for one in found.series] == ["good"]
    assert code in found.problems[0].reason


@pytest.mark.parametrize(
    ("scale", "hint"), [(1 / 6, "perhaps the image was scaled to 0..1"), (3.42, "perhaps its unit is kBq/mL or Bq/mL")]
)
def test_values_that_are_no_suv_are_refused(tmp_path, scale, hint):
    odd, _ = one_patient(tmp_path, nifti("CT"), nifti("PT", scale=scale))
    assert hint in odd.reason


def test_folders_with_the_same_file_names_are_patients(tmp_path):
    folder = tmp_path / "images"
    for number in range(4):
        put(nifti("CT", number), folder / f"patient{number}" / "ct_resampled.nii.gz")
        put(nifti("PT", number), folder / f"patient{number}" / "pet_resampled.nii.gz")
    manifest, outcomes = prepared(folder)
    assert {*outcomes} == {hashed(folder, f"patient{number}") for number in range(4)}
    assert all(one.overlap > 0.9 for one in manifest.patients)


def test_two_studies_of_one_folder_are_one_patient_and_suv_goes_before_activity(tmp_path):
    folder = tmp_path / "images"
    for patient, study in [
        ("A", "01-02-2003 PET"),
        ("A", "07-05-2003 PET"),
        ("B", "01-02-2004 PET"),
        ("C", "2005 PET"),
    ]:
        place = folder / f"PETCT_{patient}" / study
        put(nifti("CT"), place / "CT.nii.gz")
        put(nifti("CT"), place / "CTres.nii.gz")
        put(nifti("PT"), place / "SUV.nii.gz")
        put(nifti("PT", scale=BQ_PER_SUV), place / "PET.nii.gz")
        put(nifti("PT"), place / "SEG.nii.gz")
    manifest, outcomes = prepared(folder)
    assert {*outcomes} == {hashed(folder, f"PETCT_{patient}") for patient in "ABC"}
    assert all(one.suv == pytest.approx(0.94, abs=0.02) for one in outcomes.values())
    assert manifest.passed_over == {"mask or label image": 4}


@pytest.mark.parametrize(
    ("paths", "level", "patients"),
    [
        (["P1/ct.nii", "P2/ct.nii"], 0, ["P1", "P2"]),
        (["data/P1/ct.nii", "data/P2/ct.nii"], 0, [f"P1{ISSUED}data", f"P2{ISSUED}data"]),
        (["P1/CT/x.nii", "P1/PET/x.nii", "P2/CT/x.nii", "P2/PET/x.nii"], 0, ["P1", "P1", "P2", "P2"]),
        (["A/P1/ct.nii", "B/P1/ct.nii"], 0, ["A", "B"]),
        (["A/P1/ct.nii", "B/P1/ct.nii"], 2, [f"P1{ISSUED}A", f"P1{ISSUED}B"]),
        (["raw/p1_ct.nii", "raw/p2_ct.nii", "mni/p1_ct.nii", "mni/p2_ct.nii"], 0, ["p1", "p2", "p1", "p2"]),
        (["CT/p1.nii", "PET/p1.nii"], 0, ["p1", "p1"]),
        (["X/sub-1/ct/sub-1_ct.nii", "Y/sub-1/ct/sub-1_ct.nii"], 0, [f"sub-1{ISSUED}X", f"sub-1{ISSUED}Y"]),
        (["p0.zip/ct.nii", "p0/ct.nii", "p1/ct.nii"], 0, ["p0", "p0", "p1"]),
        (["p1_ct.nii", "p1_ct_resampled.nii"], 0, ["p1", "p1"]),
        (["ct_scans/p1.nii", "pet_scans/p1.nii"], 0, ["p1", "p1"]),
        (["sub-1/ct/sub-1_ct.nii", "derivatives/a/sub-1/ct/sub-1_ct.nii"], 0, ["sub-1", "sub-1"]),
    ],
)
def test_patient_is_told_by_name_or_folder(tmp_path, paths, level, patients):
    names, _ = named([tmp_path / path for path in paths], tmp_path, patient_level=level)
    assert [names[tmp_path / path].patient_id for path in paths] == patients


def test_images_of_one_repeated_name_pair_only_within_their_folder(tmp_path):
    folder = tmp_path / "images"
    put(nifti("CT"), folder / "P1" / "day1" / "ct.nii.gz")
    put(nifti("PT"), folder / "P1" / "day2" / "pet.nii.gz")
    put(nifti("CT"), folder / "P2" / "day1" / "ct.nii.gz")
    with pytest.raises(InputError, check=refusal("E-PREPARE-07", num_usable=0)) as caught:
        prepared(folder)
    assert "no PT and CT share a session" in str(caught.value)
