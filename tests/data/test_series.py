import numpy as np
import pytest
from pydicom.dataset import Dataset

from medgan.data.series import find_series, read_volume, representative_headers
from medgan.errors import InputError

PET = {"modality": "PT", "RescaleSlope": 1, "RescaleIntercept": 0, "pixels": np.full((5, 6), 5000, np.int16)}


def only(folder):
    (series,) = find_series(folder)
    return series


def test_slices_are_sorted_by_position_and_not_by_name(make_series, tmp_path):
    series = only(make_series(tmp_path / "deep" / "er"))
    assert [plane.position[2] for plane in series.planes] == [0, 3, 6, 9]
    assert [header.ImagePositionPatient[2] for header in representative_headers(series)] == [0, 3, 6, 9]


def test_ct_comes_in_hu_with_the_standards_affine(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path)))
    assert volume.unit == "HU"
    assert volume.array.dtype == np.float32
    assert volume.array[2, 1, 3] == 2 * (6 + 3 + 2) - 1000
    np.testing.assert_allclose(volume.affine @ [3, 1, 2, 1], [-10 + 3 * 1.5, 5 + 2.0, 6, 1])


def test_an_oblique_series_keeps_its_orientation(make_series, tmp_path):
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


def test_every_slice_has_its_own_rescale_slope(make_series, tmp_path):
    pixels = np.full((5, 6), 10, np.int16)
    volume = read_volume(only(make_series(tmp_path, pixels=pixels, RescaleSlope=lambda index: index + 1)))
    assert volume.array[:, 0, 0].tolist() == [(10 + index) * (index + 1) - 1000 for index in range(4)]


def test_other_files_are_passed_over_and_double_slices_count_once(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4")
    make_series(tmp_path / "copy", series="1.2.4")
    make_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes.txt").write_text("no DICOM")
    assert len(only(tmp_path).files) == 4


def test_suv_from_gml_is_the_value_as_it_is(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path, **PET, Units="GML")))
    assert volume.unit == "SUV"
    assert volume.array[0, 0, 0] == 5000


def radiopharmaceutical(**more):
    nuclide = Dataset()
    nuclide.RadiopharmaceuticalStartTime = "230000"
    nuclide.RadionuclideTotalDose, nuclide.RadionuclideHalfLife = 370e6, 6586.2
    for keyword, value in more.items():
        setattr(nuclide, keyword, value)
    return [nuclide]


def bqml(**more):
    return {
        **PET, "Units": "BQML", "DecayCorrection": "START", "PatientWeight": 70, "SeriesDate": "20200102",
        "SeriesTime": "000000.0", "AcquisitionDate": "20200102", "AcquisitionTime": lambda index: f"00{index:02d}00",
        "RadiopharmaceuticalInformationSequence": radiopharmaceutical(), **more,
    }  # fmt: skip


def test_suv_from_bqml_is_the_value_worked_by_hand(make_series, tmp_path):
    # one hour, across midnight: 370 MBq * 2^(-3600 / 6586.2) = 253.31 MBq; 5000 Bq/ml * 70000 g / 253.31 MBq = 1.3817
    volume = read_volume(only(make_series(tmp_path, **bqml())))
    assert volume.array[0, 0, 0] == pytest.approx(1.3817, rel=1e-4)


def test_a_series_made_later_counts_from_its_earliest_acquisition(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path, **bqml(SeriesTime="150000"))))
    assert volume.array[0, 0, 0] == pytest.approx(1.3817, rel=1e-4)


def test_activity_corrected_to_administration_does_not_decay(make_series, tmp_path):
    volume = read_volume(only(make_series(tmp_path, **bqml(DecayCorrection="ADMIN"))))
    assert volume.array[0, 0, 0] == pytest.approx(5000 * 70000 / 370e6)


def test_an_injection_time_with_a_date_is_taken_by_its_date(make_series, tmp_path):
    sequence = radiopharmaceutical(RadiopharmaceuticalStartDateTime="20200101230000.00+0000")
    volume = read_volume(only(make_series(tmp_path, **bqml(RadiopharmaceuticalInformationSequence=sequence))))
    assert volume.array[0, 0, 0] == pytest.approx(1.3817, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (PET | {"Units": "CNTS"}, "expected Units GML .* or BQML .*, got CNTS"),
        (PET | {"Units": "GML", "SUVType": "LBM"}, "expected SUV Type BW .*, got LBM"),
        (bqml(PatientWeight=None), "PatientWeight is None"),
        (bqml(DecayCorrection="NONE"), "expected Decay Correction START or ADMIN, got NONE"),
        (bqml(RadiopharmaceuticalInformationSequence=[]), "Radiopharmaceutical Information Sequence; it is missing"),
        (bqml(RadiopharmaceuticalInformationSequence=radiopharmaceutical(RadiopharmaceuticalStartTime="")),
         "Radiopharmaceutical Start Time is missing"),
        (bqml(CorrectedImage=["DECY", "SCAT"]), "corrected for attenuation .*, got DECY, SCAT"),
        ({"positions": [(0, 0, 0), (0, 0, 2.9), (0, 0, 8.9)]}, "CT: slice spacing varies from 2.90 to 6.00 mm"),
        ({"positions": [(0, 0, 0), (0, 1, 3), (0, 2, 6)]}, "shifted in-plane by 1.00 mm; .*no gantry tilt"),
        ({"num": 1}, "expected at least 2 slices, got 1"),
        ({"PixelSpacing": lambda index: [2, 2 + index]}, "pixel spacings .* expected one spacing"),
        ({"ImageOrientationPatient": lambda index: [1, 0, 0, 0, index, 1 - index]}, "expected one orientation"),
        ({"RescaleSlope": lambda index: None, "PixelData": b"\0\0"}, "slice 0 .* fails with ValueError"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_its_modality_and_figures(make_series, tmp_path, more, message):
    series = only(make_series(tmp_path, **more))
    with pytest.raises(InputError, match=message) as caught:
        read_volume(series)
    assert "P1" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_slices_of_two_sizes_are_refused(make_series, tmp_path):
    make_series(tmp_path / "a", series="1.2.4", num=2)
    make_series(tmp_path / "b", series="1.2.4", pixels=np.zeros((4, 6), np.int16), positions=[(0, 0, 6), (0, 0, 9)],
                SOPInstanceUID=lambda index: f"1.2.5.{index}")  # fmt: skip
    with pytest.raises(InputError, match="slices of 5 x 6 and of 4 x 6 pixels"):
        read_volume(only(tmp_path))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder of DICOM files; there is no such folder"):
        find_series(tmp_path / "nowhere")


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputError, match="expected DICOM image slices; found none among 1 files"):
        find_series(tmp_path)


@pytest.mark.real
def test_the_real_patients_are_all_found(real):
    series = find_series(real)
    assert {name: sum(one.modality == name for one in series) for name in ("CT", "PT", "MR")} == {
        "CT": 18,
        "PT": 18,
        "MR": 5,
    }
    assert sum(len(one.files) for one in series if one.modality == "CT") == 1026
