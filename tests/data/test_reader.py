import struct
from collections import Counter

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from refusal import refusal

from medgan.data.reader import files_below, find_series, read_volume, representative_headers, survey
from medgan.data.series import Problem
from medgan.errors import InputError

PET = {"modality": "PT", "RescaleSlope": 1, "RescaleIntercept": 0, "pixels": np.full((5, 6), 5000, np.int16)}

UNEVEN = [(0, 0, 0), (0, 0, 2.9), (0, 0, 8.9)]
UNDECODED = "CT: the pixels of slice 0, in the transfer syntax Explicit VR Little Endian, could not be decoded"


def only(folder):
    (series,) = find_series(folder)
    return series


def test_find_series_sorts_slices_by_position_and_not_by_name(make_series, tmp_path):
    series = only(make_series(tmp_path / "deep" / "er"))
    assert [plane.position[2] for plane in series.planes] == [0, 3, 6, 9]
    assert [header.ImagePositionPatient[2] for header in representative_headers(series)] == [0, 3, 6, 9]


def test_read_volume_gives_ct_in_hu_with_affine_of_standard(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path)))
    assert volume.unit == "HU"
    assert volume.array.dtype == np.float32
    assert volume.array[2, 1, 3] == 2 * (20 * (6 + 3) + 2) - 1000
    np.testing.assert_allclose(volume.affine @ [3, 1, 2, 1], [-10 + 3 * 1.5, 5 + 2.0, 6, 1])


def test_read_volume_keeps_orientation_of_oblique_series(make_series, tmp_path):
    angle = np.deg2rad(20)
    orientation = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]
    normal = np.cross(orientation[:3], orientation[3:])
    folder = make_series(
        tmp_path, orientation=orientation, positions=[tuple(map(float, k * 4 * normal)) for k in (2, 0, 1)]
    )
    volume = read_volume(only(folder))
    np.testing.assert_allclose(
        volume.affine @ [0, 2, 1, 1], [*(4 * normal + 4 * np.array(orientation[3:])), 1], atol=1e-6
    )
    assert volume.spacing_mm == pytest.approx((1.5, 2, 4))


def test_read_volume_applies_rescale_slope_of_each_slice(make_series, tmp_path):
    pixels = np.full((5, 6), 400, np.int16)
    volume = read_volume(only(make_series(tmp_path, pixels=pixels, RescaleSlope=lambda index: index + 1)))
    assert volume.array[:, 0, 0].tolist() == [(400 + index) * (index + 1) - 1000 for index in range(4)]


def test_find_series_passes_over_other_files_and_duplicate_slices(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4")
    make_series(tmp_path / "copy", series="1.2.4")
    make_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes.txt").write_text("no DICOM")
    assert len(only(tmp_path).files) == 4


def test_read_volume_keeps_suv_in_gml(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path, **PET, Units="GML")))
    assert volume.unit == "SUV"
    assert volume.array[0, 0, 0] == 5000


def bqml(**more):
    nuclide = Dataset()
    nuclide.RadiopharmaceuticalStartTime = "230000"
    nuclide.RadionuclideTotalDose, nuclide.RadionuclideHalfLife = 370e6, 6586.2
    return {
        **PET, "Units": "BQML", "DecayCorrection": "START", "PatientWeight": 70, "SeriesDate": "20200102",
        "SeriesTime": "000000.0", "AcquisitionDate": "20200102", "AcquisitionTime": lambda index: f"00{index:02d}00",
        "RadiopharmaceuticalInformationSequence": [nuclide], **more,
    }  # fmt: skip


@pytest.mark.parametrize("series_time", ["000000.0", "150000"])
def test_read_volume_of_bqml_equals_suv_worked_by_hand(make_series, tmp_path, series_time):
    # one hour, across midnight: 370 MBq * 2^(-3600 / 6586.2) = 253.31 MBq; 5000 Bq/ml * 70000 g / 253.31 MBq = 1.3817
    volume = read_volume(only(make_series(tmp_path, **bqml(SeriesTime=series_time))))
    assert volume.array[0, 0, 0] == pytest.approx(1.3817, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (PET | {"Units": "CNTS"}, refusal("E-SUV-03", suv="none", activity="none")),
        ({"positions": UNEVEN}, refusal("E-GEOMETRY-04", modality="CT", lowest="2.9", highest="6.0")),
        ({"num": 1}, refusal("E-GEOMETRY-01", modality="CT", num_planes="1")),
        ({"RescaleSlope": lambda index: None}, refusal("E-READ-05", modality="CT", number="0", units="HU")),
        ({"PixelData": b"\0\0"}, refusal("E-HEADER-01", message=UNDECODED, name="ValueError")),
    ],
)
def test_read_volume_refuses_unreadable_series_without_identifiers(make_series, tmp_path, more, expected):
    series = only(make_series(tmp_path, **more))
    with pytest.raises(InputError, check=expected) as caught:
        read_volume(series)
    assert "P1" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_find_series_keeps_series_of_same_uid_apart(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4", frame="1.2.9")
    make_series(tmp_path / "b", series="1.2.4", frame="1.2.10")
    make_series(tmp_path / "c", series="1.2.4", patient="P2")
    assert [len(series.files) for series in find_series(tmp_path)] == [4, 4, 4]


def test_series_affine_refuses_two_slices_at_same_position(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4")
    make_series(tmp_path / "b", series="1.2.4", SOPInstanceUID=lambda index: f"1.2.5.{index + 1}", RescaleSlope=3)
    with pytest.raises(InputError, check=refusal("E-GEOMETRY-03", modality="CT", most="2")):
        _ = only(tmp_path).affine


def test_survey_reports_series_with_slices_without_position(make_series, tmp_path):
    make_series(tmp_path / "good", patient="P2")
    make_series(tmp_path / "bad", ImagePositionPatient=lambda index: None if index < 3 else [0, 0, 9])
    found = survey(tmp_path)
    assert [series.patient_id for series in found.series] == ["P2"]
    assert found.problems == [Problem("P1", "CT: 3 of 4 slices have no Image Position (Patient)", modality="CT")]


def test_survey_counts_passed_over_files_by_reason(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4")
    make_series(tmp_path / "copy", series="1.2.4")
    make_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], num=2)
    make_series(tmp_path / "screen", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", num=1)
    make_series(tmp_path / "dose", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", num=1)
    make_series(tmp_path / "color", SamplesPerPixel=3, num=3)
    make_series(tmp_path / "movie", NumberOfFrames=2, num=1)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "nowhere.dcm").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path)
    found = survey(tmp_path)
    assert (len(found.series), found.problems) == (1, [])
    assert found.passed_over == {
        "same slice twice": 4, "localizer": 2, "secondary capture": 1, "no CT, MR or PET image": 1, "color": 3,
        "several frames without their places": 1, "not DICOM": 1, "empty file": 1, "link in a circle or broken": 2,
    }  # fmt: skip


def test_find_series_follows_links_to_folders(make_series, tmp_path):
    make_series(tmp_path / "elsewhere")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "link").symlink_to(tmp_path / "elsewhere")
    assert len(only(tmp_path / "export").files) == 4


def nested(depth):
    """A sequence in a sequence, all of undefined length."""
    item = Dataset()
    item.CodeValue = "7"
    item.is_undefined_length_sequence_item = True
    if depth:
        item.DeidentificationMethodCodeSequence = nested(depth - 1)
        item["DeidentificationMethodCodeSequence"].is_undefined_length = True
    return [item, Dataset()]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_find_series_reads_past_sequences_of_undefined_length(make_series, tmp_path, syntax):
    plain = only(make_series(tmp_path / "plain"))
    for path in make_series(tmp_path / "nested").iterdir():
        header = dcmread(path)
        header.DeidentificationMethodCodeSequence = nested(3)
        header["DeidentificationMethodCodeSequence"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = syntax
        header.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    assert only(tmp_path / "nested").planes == plain.planes


def test_survey_reads_past_private_element_of_undefined_length(make_series, tmp_path):
    """The content of such an element is always implicit little endian (PS3.5 6.2.2, note on UN of undefined length)."""
    inner = b"\x08\x00\x50\x11" + struct.pack("<L", 10) + b"1.2.3.4.5\0"
    item = b"\xfe\xff\x00\xe0" + b"\xff" * 4 + inner + b"\xfe\xff\x0d\xe0" + bytes(4)
    private = b"\x09\x00\x10\x00LO\x06\x00VENDOR"
    private += b"\x09\x00\x01\x10UN\0\0" + b"\xff" * 4 + item + b"\xfe\xff\xdd\xe0" + bytes(4)
    plain = only(make_series(tmp_path / "plain"))
    for path in make_series(tmp_path / "private").iterdir():
        content = path.read_bytes()
        place = content.index(b"\x10\x00\x20\x00LO")  # Patient ID
        path.write_bytes(content[:place] + private + content[place:])
    found = survey(tmp_path / "private")
    assert (found.problems, found.passed_over) == ([], {})
    assert found.series[0].planes == plain.planes


def test_find_series_refuses_folder_of_problems_with_reasons(make_series, tmp_path):
    make_series(tmp_path, PixelSpacing=None)
    expected = refusal("E-READ-03", folder=tmp_path, reasons="CT: 4 of 4 slices have no Pixel Spacing")
    with pytest.raises(InputError, check=expected) as caught:
        find_series(tmp_path)
    assert "P1" not in str(caught.value)


def test_survey_takes_slices_of_two_sizes_for_two_stacks(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4", num=4)
    make_series(tmp_path / "b", series="1.2.4", pixels=np.zeros((4, 6), np.int16), num=3,
                SOPInstanceUID=lambda index: f"1.2.5.{index}")  # fmt: skip
    found = survey(tmp_path).series
    assert [(len(one.files), one.planes[0].size) for one in found] == [(4, (5, 6)), (3, (4, 6))]
    assert found[0].notes == found[1].notes == ("1 of 2 planes or pixel sizes in one series",)


def test_find_series_refuses_missing_folder(tmp_path):
    with pytest.raises(InputError, check=refusal("E-READ-01", folder=tmp_path / "nowhere")):
        find_series(tmp_path / "nowhere")


def test_find_series_refuses_folder_without_dicom(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputError, check=refusal("E-READ-02", reasons="1 file: 1 not DICOM")):
        find_series(tmp_path)


def test_series_is_regular_only_with_evenly_spaced_slices(make_series, tmp_path):
    assert only(make_series(tmp_path / "even")).regular
    assert not only(make_series(tmp_path / "uneven", positions=UNEVEN)).regular


def test_files_below_yields_folder_by_folder_and_counts_circular_links(tmp_path):
    for name in ("b/z", "b/c/y", "a/x", "w"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    passed_over = Counter()
    files = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, passed_over)]
    assert files == ["w", "a/x", "b/z", "b/c/y"]
    assert passed_over == {"link in a circle or broken": 1}


@pytest.mark.real
def test_find_series_finds_all_real_patients(real):
    series = find_series(real)
    assert {name: sum(one.modality == name for one in series) for name in ("CT", "PT", "MR")} == {
        "CT": 18,
        "PT": 18,
        "MR": 5,
    }
    assert sum(len(one.files) for one in series if one.modality == "CT") == 1026


def test_slices_whose_orientation_rounds_in_two_ways_are_one_series(make_series, tmp_path):
    turned = [1, 0, 0, 0, 0.999888, 0.015]
    make_series(tmp_path, num=8, ImageOrientationPatient=lambda index: [*turned[:5], 0.015 + 1e-7 * (-1) ** index])
    (series,) = find_series(tmp_path)
    assert (len(series.files), series.notes) == (8, ())
