"""Sources with odd headers, and NIfTI images: one bad header never ends the others, and every choice is told."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from field_patients import BQ_PER_SUV, nifti, patient, put, save
from refusal import refusal

from medgan.data.reader import find_series, read_volume, survey
from medgan.errors import InputError, JobError
from medgan.inference.dicom_folder import translate_folder

LEADING_ZERO = "1.3.12.2.1107.5.1.4.00123.30000"


@pytest.fixture
def pet():
    """The PET of one patient."""
    return patient("P1")[1]


@pytest.fixture
def translated(translator_of, facts, tmp_path):
    """Translates a folder with an identity network; returns the folders and the lines that were said."""

    def run(source, **more):
        lines = []
        translator = translator_of(spacing_mm=10.0, size=40)
        folders = translate_folder(translator, source, tmp_path / "out", facts=facts, progress=lines.append, **more)
        return folders, lines

    return run


def first(folder: Path) -> pydicom.Dataset:
    return pydicom.dcmread(min(folder.glob("*.dcm")))


@pytest.mark.parametrize("number", [2**31 - 700, "3A", ""])
def test_series_number_that_cannot_be_raised_becomes_1000(translated, pet, tmp_path, number):
    for one in pet:
        one.SeriesNumber = 77
    save(pet, tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        text = str(number).encode().ljust(2)
        head = b"IS" + len(text).to_bytes(2, "little")
        path.write_bytes(path.read_bytes().replace(b"IS\x02\x0077", head + text))
    (folder,), _ = translated(tmp_path / "in")
    assert first(folder).SeriesNumber == 1000


def test_uid_with_leading_zero_stays_and_is_told(translated, pet, tmp_path):
    for number, one in enumerate(pet):
        one.FrameOfReferenceUID = LEADING_ZERO
        one.SOPInstanceUID = f"{LEADING_ZERO}{number}"
    save(pet, tmp_path / "in")
    with pytest.warns(UserWarning) as told:
        (folder,), _ = translated(tmp_path / "in")
    header = first(folder)
    assert header.FrameOfReferenceUID == LEADING_ZERO
    assert header.SourceImageSequence[0].ReferencedSOPInstanceUID == f"{LEADING_ZERO}0"
    said = {str(one.message).split(" of ")[0] for one in told if "medgan" in one.filename}
    assert said == {"FrameOfReferenceUID", "SOPInstanceUID"}


@pytest.mark.parametrize(("source", "derived"), [("YES", "YES"), ("NO", "NO"), (None, None)])
@pytest.mark.filterwarnings("ignore:the source says Burned In Annotation")
def test_burned_in_annotation_of_the_source_is_kept(translated, pet, tmp_path, source, derived):
    for one in pet:
        if source:
            one.BurnedInAnnotation = source
    save(pet, tmp_path / "in")
    (folder,), _ = translated(tmp_path / "in")
    assert first(folder).get("BurnedInAnnotation") == derived


def test_source_without_frame_of_reference_is_refused_or_gets_a_new_one(translated, pet, tmp_path):
    for one in pet:
        one.FrameOfReferenceUID = ""
    save(pet, tmp_path / "in")
    with pytest.raises(InputError, check=refusal("E-TRANSLATE-10", modality="PT")):
        translated(tmp_path / "in")
    (folder,), lines = translated(tmp_path / "in", frames="any")
    assert first(folder).FrameOfReferenceUID
    assert "series 1 of 1: no frame of reference in the source; the result has a new one" in lines


def test_bad_header_of_one_series_does_not_end_the_others(translated, tmp_path):
    for name in ("P1", "P2", "P3"):
        save(patient(name)[1], tmp_path / "in" / name)
    for path in (tmp_path / "in" / "P2").iterdir():
        header = pydicom.dcmread(path)
        header.PatientWeight = 70000
        header.save_as(path)
    with pytest.raises(JobError, check=refusal("E-TRANSLATE-02", num_failed=1, num_wanted=3)):
        translated(tmp_path / "in")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["series-001", "series-003"]


def test_body_outside_of_the_grid_is_told_in_percent(translator_of, facts, pet, tmp_path):
    save(pet, tmp_path / "in")
    lines = []
    translate_folder(translator_of(), tmp_path / "in", tmp_path / "out", facts=facts, progress=lines.append)
    assert any("% of the body lie outside the network's 64 mm" in line for line in lines)


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_nifti_image_gives_a_synthetic_nifti_image_at_its_place(translated, tmp_path, codes):
    source = nifti("PT")
    turned = source.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(source.affine), nibabel.orientations.axcodes2ornt(codes)
        )
    )
    put(turned, tmp_path / "in" / "p_pet.nii.gz")
    (folder,), lines = translated(tmp_path / "in")
    (path,) = folder.glob("*.nii.gz")
    image = nibabel.load(path)
    assert path.name == "synthetic_ct.nii.gz"
    assert image.header["descrip"].tobytes().startswith(b"SYNTHETIC - NOT FOR DIAGNOSIS")
    middle = [float(np.mean(axis)) for axis in np.nonzero(image.get_fdata() > 500)]  # the identity: 5 SUV are 500 HU
    uptake = [float(np.mean(axis)) for axis in np.nonzero(source.get_fdata() > 5)]
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(image.affine, middle), nibabel.affines.apply_affine(source.affine, uptake), atol=5
    )
    facts = json.loads(next(folder.glob("*.json")).read_text())
    assert (facts["SyntheticData"], facts["Modality"], facts["Units"]) == ("YES", "CT", "HU")
    assert survey(folder).synthetic and not survey(folder).acquired
    _, again = translated(tmp_path / "in")
    assert again == ["1 of 1 series are there already"]


def test_activity_of_a_nifti_image_is_not_taken_for_suv(translated, tmp_path):
    put(nifti("PT", scale=BQ_PER_SUV), tmp_path / "in" / "p_pet.nii.gz")
    (tmp_path / "in" / "p_pet.json").write_text(json.dumps({"Units": "Bq/mL"}))
    with pytest.raises(InputError, check=refusal("E-NIFTI-04", name="BodyWeight")):
        translated(tmp_path / "in")


def test_voxels_of_packed_source_are_those_of_the_plain_one(pet, tmp_path):
    save(pet, tmp_path / "in")
    (series,) = find_series(tmp_path / "in")
    assert read_volume(series).made_of.startswith("PatientWeight 70 kg, RadionuclideTotalDose 350 MBq of F-18")
