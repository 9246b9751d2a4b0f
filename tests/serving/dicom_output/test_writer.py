from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from refusal import refusal

from medgan.data.dicom import writer as derive
from medgan.data.dicom.tolerance import tolerant
from medgan.data.dicom.writer import ModelFacts, write_derived
from medgan.data.reader import find_series, read_volume
from medgan.data.volume import Volume
from medgan.errors import InputError
from medgan.tasks import TASKS
from medgan.workflows.translate_folder import _is_our_own

pytestmark = pytest.mark.unit

TASK = TASKS["pet2ct"]
QUANTIZATION_HU = 1 / 32
FAULT_OF_LONG_ID = "no valid LO (PS3.5, section 6.2), 65 characters long"


@pytest.fixture
def ct(volume: Volume) -> Volume:
    """Returns HU from -1000 to 2000."""
    return volume.with_array(volume.array * 300 - 1000, "HU")


@pytest.fixture
def files(ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts) -> list[Path]:
    return write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)


def test_medgan_reads_back_place_and_values(ct: Volume, files: list[Path]) -> None:
    (series,) = find_series(files[0].parent)
    back = read_volume(series)
    assert back.frame_of_reference == ct.frame_of_reference and back.unit == "HU"
    np.testing.assert_allclose(back.affine, ct.affine, atol=1e-10)
    assert np.abs(back.array - ct.array).max() <= QUANTIZATION_HU


def test_simpleitk_reads_back_place_and_values(ct: Volume, files: list[Path]) -> None:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(files[0].parent))
    image = sitk.ReadImage(names)
    np.testing.assert_allclose(image.GetOrigin(), ct.affine[:3, 3], atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing(), ct.spacing_mm, atol=1e-6)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), ct.directions, atol=1e-6)
    assert np.abs(sitk.GetArrayFromImage(image) - ct.array).max() <= QUANTIZATION_HU + 1e-4


def test_write_derived_stores_whole_hounsfield_units_exactly(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    whole = ct.with_array(np.rint(ct.array))
    write_derived(whole, headers, tmp_path / "out", task=TASK, model=facts)
    np.testing.assert_array_equal(read_volume(find_series(tmp_path / "out")[0]).array, whole.array)


def test_derived_series_has_new_instance_uids_and_study_of_source(headers: list[Dataset], files: list[Path]) -> None:
    slices = [pydicom.dcmread(path) for path in files]
    own = {one.SOPInstanceUID for one in slices} | {one.SeriesInstanceUID for one in slices}
    theirs = {one.SOPInstanceUID for one in headers} | {headers[0].SeriesInstanceUID}
    assert len(own) == len(slices) + 1 and not own & theirs
    assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in slices)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate", "StudyID"):
        assert {one[keyword].value for one in slices} == {headers[0][keyword].value}, keyword
    assert [one.InstanceNumber for one in slices] == [1, 2, 3]


def test_derived_series_copies_only_patient_and_study(files: list[Path]) -> None:
    one = pydicom.dcmread(files[0])
    for keyword in ("InstitutionName", "PatientWeight", "Units", "CorrectedImage"):
        assert keyword not in one, keyword


def test_derived_slices_name_synthetic_data_and_model(facts: ModelFacts, files: list[Path]) -> None:
    for path in files:
        one = pydicom.dcmread(path)
        assert one.SOPClassUID == pydicom.uid.CTImageStorage
        assert one.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert one.SyntheticData == "YES"
        assert one.SeriesDescription == "SYNTHETIC - NOT FOR DIAGNOSIS (CT by medgan)"
        assert one.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert [code.CodeMeaning for code in one.DerivationCodeSequence] == [
            "Spatial resampling",
            "Artificial Intelligence",
        ]
        equipment = one.ContributingEquipmentSequence[0]
        assert one.Manufacturer == equipment.Manufacturer == "medgan"
        assert equipment.ManufacturerModelName == facts.name and "model 7" in equipment.SoftwareVersions
        assert facts.digest in equipment.ContributionDescription and facts.digest in one.DerivationDescription
        assert (one.LossyImageCompression, one.RescaleType, "BurnedInAnnotation" in one) == ("00", "HU", False)


def test_derived_slice_references_source_slice_in_same_plane(headers: list[Dataset], files: list[Path]) -> None:
    for path, header in zip(files, headers, strict=True):
        (source,) = pydicom.dcmread(path).SourceImageSequence
        assert source.ReferencedSOPClassUID == header.SOPClassUID
        assert source.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert "ReferencedFrameNumber" not in source


def test_derived_slice_references_frame_of_multi_frame_source(
    volume: Volume, headers: list[Dataset], facts: ModelFacts, tmp_path: Path
) -> None:
    for number, header in enumerate(headers, start=4):
        header.ReferencedFrameNumber = number
    ct = volume.with_array(volume.array * 100, unit="HU")
    files = write_derived(ct, headers, tmp_path / "out", task=TASKS["pet2ct"], model=facts)
    assert [pydicom.dcmread(path).SourceImageSequence[0].ReferencedFrameNumber for path in files] == [4, 5, 6]


def test_dciodvfy_finds_no_error(files: list[Path], dciodvfy_errors: Callable[[Path], list[str]]) -> None:
    for path in files:
        assert dciodvfy_errors(path) == []


def test_derived_series_has_empty_type_2_attributes_missing_in_source(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    for header in headers:
        del header.PatientSex, header.StudyID, header.PatientPosition, header.SeriesNumber
    files = write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    one = pydicom.dcmread(files[0])
    assert not one.PatientSex and not one.StudyID and not one.PatientPosition and one.SeriesNumber == 1000
    assert dciodvfy_errors(files[0]) == []


def test_derived_series_of_lossy_source_is_marked_lossy(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    headers[1].LossyImageCompression, headers[1].LossyImageCompressionRatio = "01", "8.5"
    headers[1].LossyImageCompressionMethod = "ISO_15444_1"
    files = write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert [pydicom.dcmread(path).LossyImageCompression for path in files] == ["01"] * 3
    assert dciodvfy_errors(files[0]) == []


def test_write_derived_leaves_invalid_attribute_empty_with_warning(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    with pytest.warns(UserWarning, match="maximum length"):
        headers[0].StudyID = "longer than sixteen characters"
    with pytest.warns(UserWarning, match="StudyID of the source series is invalid and left empty"):
        files = write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert not pydicom.dcmread(files[0]).StudyID


def test_write_derived_refuses_invalid_patient_id(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    with pytest.warns(UserWarning, match="maximum length"):
        headers[0].PatientID = "1" * 65
    with pytest.raises(InputError, check=refusal("E-WRITE-09", keyword="PatientID", fault=FAULT_OF_LONG_ID)):
        write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)


def test_warning_names_invalid_attribute_without_value(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    with pytest.warns(UserWarning, match="1950-Jan-01"):
        headers[0].PatientBirthDate = "1950-Jan-01"
    with pytest.warns(UserWarning, match="PatientBirthDate of the source series is invalid and left empty") as noted:
        write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert [str(one.message).partition(": ")[2] for one in noted] == [
        "it is no valid DA (PS3.5, section 6.2), 11 characters long"
    ]
    assert _is_our_own(noted.list[0])
    other = warnings.WarningMessage("Invalid value for VR DA: '1950'", UserWarning, pydicom.misc.__file__, 1)
    assert not _is_our_own(other)


def test_write_derived_validates_while_other_thread_reads(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    with tolerant():
        headers[1].SOPInstanceUID = "1.02.eva"
        with pytest.raises(
            InputError, check=refusal("E-WRITE-11", keyword="ReferencedSOPInstanceUID", dictionary_vr="UI")
        ):
            write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert not (tmp_path / "out").exists()


def test_write_derived_refuses_source_without_study(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    del headers[0].StudyInstanceUID
    with pytest.raises(InputError, check=refusal("E-WRITE-10")):
        write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)


def test_write_derived_leaves_no_files_when_writing_fails(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fails_on_the_second(path: Path, attributes: dict[str, object]) -> None:
        assert not (tmp_path / "out").exists()
        if written:
            raise OSError("no space left on device")
        path.touch()
        written.append(path)

    monkeypatch.setattr(derive, "_write", fails_on_the_second)
    with pytest.raises(OSError, match="no space left"):
        write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert written and not list(tmp_path.iterdir())


def test_write_derived_uses_empty_folder_and_leaves_no_other_files(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    (tmp_path / "out").mkdir()
    files = write_derived(ct, headers, tmp_path / "out", task=TASK, model=facts)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert sorted((tmp_path / "out").iterdir()) == files


def test_write_derived_refuses_folder_with_content(
    ct: Volume, headers: list[Dataset], files: list[Path], facts: ModelFacts
) -> None:
    before = files[0].read_bytes()
    with pytest.raises(InputError, check=refusal("E-WRITE-04", folder=files[0].parent)):
        write_derived(ct, headers, files[0].parent, task=TASK, model=facts)
    assert files[0].read_bytes() == before


@pytest.mark.parametrize(
    ("hu", "expected"),
    [
        (3100.0, refusal("E-WRITE-03", low=-1024.0, high=3071.9375, unit="HU", lowest=-1000.0, highest=3100.0)),
        (np.nan, refusal("E-WRITE-02", bad=1, values_size=144)),
    ],
)
def test_write_derived_refuses_values_out_of_range_or_not_finite(
    ct: Volume,
    headers: list[Dataset],
    tmp_path: Path,
    facts: ModelFacts,
    hu: float,
    expected: Callable[[BaseException], bool],
) -> None:
    array = np.full_like(ct.array, -1000)
    array[1, 2, 3] = hu
    with pytest.raises(InputError, check=expected):
        write_derived(ct.with_array(array), headers, tmp_path / "out", task=TASK, model=facts)


def test_write_derived_refuses_headers_of_other_volume(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    def write(volume: Volume, of: list[Dataset]) -> None:
        write_derived(volume, of, tmp_path / "out", task=TASK, model=facts)

    with pytest.raises(InputError, check=refusal("E-WRITE-06", num_array=3, num_headers=2)):
        write(ct, headers[:2])
    with pytest.raises(InputError, check=refusal("E-WRITE-08", index=0)) as caught:
        write(ct, headers[::-1])
    assert caught.value.fields["off_mm"] == pytest.approx(6.54)
    with pytest.raises(InputError, check=refusal("E-WRITE-07", index=0, got="a different one")):
        write(replace(ct, frame_of_reference="1.2.3"), headers)
    with pytest.raises(InputError, check=refusal("E-WRITE-05", unit="HU", unit_2="SUV")):
        write(ct.with_array(ct.array, "SUV"), headers)


def test_write_derived_refuses_unknown_target_modality(
    ct: Volume, headers: list[Dataset], tmp_path: Path, facts: ModelFacts
) -> None:
    ultrasound = replace(TASK, target=replace(TASK.target, modality="US"))
    with pytest.raises(InputError, check=refusal("E-WRITE-01", modality="US")):
        write_derived(ct, headers, tmp_path / "out", task=ultrasound, model=facts)


@pytest.mark.parametrize("name", ["a\\b", "ü", "x" * 57])
def test_model_facts_refuse_text_that_dicom_cannot_hold(name: str) -> None:
    with pytest.raises(InputError, check=refusal("E-DICOM-01", field="name", text=name)):
        ModelFacts(name=name, version="", digest="")
