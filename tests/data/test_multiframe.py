import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from refusal import refusal

from medgan.data.dicom.multiframe import frame_headers
from medgan.data.reader import find_series, read_volume, representative_headers, survey
from medgan.data.series import Problem
from medgan.errors import InputError

pytestmark = pytest.mark.unit

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "PT": "1.2.840.10008.5.1.4.1.1.130",
    "legacy PT": "1.2.840.10008.5.1.4.1.1.128.1",
}
PLACES = (6.0, 0.0, 3.0, 9.0)


def item(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(kind="CT", places=PLACES, shared=None, own=None, **more):
    """A multi-frame image of 5 x 6 pixels; frame k holds values from 1000 k on, at places[k] mm."""
    modality = kind.split()[-1]
    pixels = 1000 * np.arange(len(places))[:, None, None] + np.arange(30).reshape(5, 6)
    transformation = item(RescaleSlope=1, RescaleIntercept=-1000 if modality == "CT" else 0, RescaleType="US")
    groups = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        "PixelMeasuresSequence": [item(PixelSpacing=[2.0, 1.5], SliceThickness=3)],
        "PixelValueTransformationSequence": [transformation],
        **(shared or {}),
    }
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[-10.0, 5.0, place])],
            FrameContentSequence=[item(FrameAcquisitionDateTime=f"2020010210{number:02d}00.0")],
            **(own(number) if own else {}),
        )
        for number, place in enumerate(places)
    ]
    image = item(
        SOPClassUID=CLASSES[kind], SOPInstanceUID="1.2.3.4", PatientID="P1", StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.5", FrameOfReferenceUID="1.2.9", Modality=modality, ImageType=["ORIGINAL", "PRIMARY"],
        NumberOfFrames=len(places), Rows=5, Columns=6, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=1,
        SharedFunctionalGroupsSequence=[item(**groups)], PerFrameFunctionalGroupsSequence=frames,
        PixelData=pixels.astype("<i2").tobytes(),
    )  # fmt: skip
    image["PixelData"].VR = "OW"
    for keyword, value in more.items():
        setattr(image, keyword, value)
    return image


def save(image, folder):
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    return folder


def mapping(code, slope):
    """Real World Value Mapping macro."""
    unit = item(CodeValue=code, CodingSchemeDesignator="UCUM", CodeMeaning="unit")
    return [item(MeasurementUnitsCodeSequence=[unit], RealWorldValueSlope=slope, RealWorldValueIntercept=0.0)]


def nuclide(**more):
    values = {"RadionuclideTotalDose": 370e6, "RadionuclideHalfLife": 6586.2, **more}
    return [item(**values)]


ENHANCED_PET = {
    "PatientWeight": 70, "AttenuationCorrected": "YES", "DecayCorrected": "YES", "ScatterCorrected": "NO",
    "DecayCorrectionDateTime": "20200102100000.00",
    "RadiopharmaceuticalInformationSequence": nuclide(RadiopharmaceuticalStartDateTime="20200102090000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_frames_of_enhanced_image_are_slices_of_series(tmp_path, kind):
    (series,) = find_series(save(enhanced(kind), tmp_path))
    assert (series.frames, len(set(series.files))) == ((1, 2, 0, 3), 1)
    volume = read_volume(series)
    offset = -1000 if kind == "CT" else 0
    assert volume.array[:, 0, 1].tolist() == [1001 + offset, 2001 + offset, 1 + offset, 3001 + offset]
    np.testing.assert_allclose(volume.affine @ [3, 1, 2, 1], [-10 + 3 * 1.5, 5 + 2.0, 6, 1])
    assert volume.spacing_mm == pytest.approx((1.5, 2, 3))


def test_frame_headers_equal_classic_headers_in_slice_order(tmp_path):
    (series,) = find_series(save(enhanced(StudyID="7"), tmp_path))
    headers = representative_headers(series)
    assert [header.ImagePositionPatient[2] for header in headers] == [0, 3, 6, 9]
    assert [header.AcquisitionTime for header in headers] == ["100100.0", "100200.0", "100000.0", "100300.0"]
    assert [header.ReferencedFrameNumber for header in headers] == [2, 3, 1, 4]
    first = headers[0]
    assert (first.SOPClassUID, first.SOPInstanceUID, first.StudyID) == (CLASSES["CT"], "1.2.3.4", "7")
    assert (first.PixelSpacing, first.RescaleIntercept, first.AcquisitionDate) == ([2.0, 1.5], -1000, "20200102")
    assert "PixelData" not in first and "PerFrameFunctionalGroupsSequence" not in first


def test_rescale_slope_of_frame_precedes_shared_slope(tmp_path):
    image = enhanced("MR", own=lambda number: {
        "PixelValueTransformationSequence": [item(RescaleSlope=number + 1, RescaleIntercept=0, RescaleType="HU")]
    })  # fmt: skip
    volume = read_volume(find_series(save(image, tmp_path))[0])
    assert volume.array[:, 0, 1].tolist() == [2 * 1001, 3 * 2001, 1, 4 * 3001]


def test_enhanced_pet_in_activity_becomes_suv_by_decay_correction_time(tmp_path):
    # one hour, as in test_suv.py: 2.76343e-4 g/ml per Bq/ml; a stored 1001 at 2 Bq/ml each: 0.553238
    image = enhanced("PT", shared={"RealWorldValueMappingSequence": mapping("Bq/ml", 2.0)}, **ENHANCED_PET)
    volume = read_volume(find_series(save(image, tmp_path))[0])
    assert volume.unit == "SUV"
    assert volume.array[0, 0, 1] == pytest.approx(0.553238, rel=1e-4)


@pytest.mark.parametrize("code", ["{SUVbw}g/ml", "g/ml{SUVbw}", "126401"])
def test_enhanced_pet_in_suv_keeps_mapped_values(tmp_path, code):
    image = enhanced("PT", shared={"RealWorldValueMappingSequence": mapping(code, 0.001)})
    volume = read_volume(find_series(save(image, tmp_path))[0])
    assert volume.array[0, 0, 1] == pytest.approx(1.001)


def test_frame_headers_share_no_values_between_frames(tmp_path):
    shared = {"PixelValueTransformationSequence": [item(RescaleSlope=9, RescaleIntercept=0, RescaleType="US")]}
    image = enhanced("PT", places=(0.0, 3.0, 6.0), shared=shared, AcquisitionTime="090000", own=lambda number: {
        "RealWorldValueMappingSequence": mapping("{SUVbw}g/ml", number + 1.0)
    })  # fmt: skip
    headers = frame_headers(image)
    assert [header.RescaleSlope for header in headers] == [1, 2, 3]
    assert [header.AcquisitionTime for header in headers] == ["100000.0", "100100.0", "100200.0"]
    assert (image.AcquisitionTime, shared["PixelValueTransformationSequence"][0].RescaleSlope) == ("090000", 9)


def test_legacy_converted_pet_keeps_classic_attributes(tmp_path):
    classic = {
        "Units": "BQML", "DecayCorrection": "START", "PatientWeight": 70, "SeriesDate": "20200102",
        "SeriesTime": "100000", "CorrectedImage": ["DECY", "ATTN"],
        "RadiopharmaceuticalInformationSequence": nuclide(RadiopharmaceuticalStartTime="090000"),
    }  # fmt: skip
    image = enhanced("legacy PT", shared={"UnassignedSharedConvertedAttributesSequence": [item(**classic)]})
    volume = read_volume(find_series(save(image, tmp_path))[0])
    assert volume.array[0, 0, 1] == pytest.approx(1001 * 2.76343e-4, rel=1e-4)


def test_enhanced_pet_without_attenuation_correction_is_refused(tmp_path):
    (series,) = find_series(save(enhanced("PT", **ENHANCED_PET | {"AttenuationCorrected": "NO"}), tmp_path))
    assert not series.attenuation_corrected
    with pytest.raises(InputError, check=refusal("E-SUV-04", names="DECY")):
        read_volume(series)
    (header, *_) = frame_headers(enhanced("PT", AttenuationCorrected="NO", DecayCorrected="NO"))
    assert (header.CorrectedImage, header.DecayCorrection) == ("NONE", "NONE")


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("PT", {}, refusal("E-SUV-02", units="none")),
        ("PT", {"DecayCorrectionDateTime": None}, refusal("E-SUV-08", name="Decay Correction DateTime")),
        ("PT", {"DecayCorrected": "NO"}, refusal("E-SUV-06", correction="NONE")),
        ("PT", {"PatientWeight": None}, refusal("E-SUV-10", keyword="PatientWeight", value="None")),
        ("CT", {"places": (0.0, 3.0, 0.0, 3.0)}, refusal("E-GEOMETRY-03", modality="CT", most="2")),
        ("CT", {"shared": {"PixelValueTransformationSequence": []}}, refusal("E-READ-05", modality="CT", number="0")),
        ("CT", {"PixelData": b"\0\0"}, refusal("E-HEADER-01", name="ValueError")),
    ],
)
def test_enhanced_image_with_missing_value_is_refused(tmp_path, kind, more, expected):
    units = {} if kind == "CT" or not more else {"shared": {"RealWorldValueMappingSequence": mapping("Bq/ml", 1.0)}}
    pet = ENHANCED_PET if kind == "PT" else {}
    (series,) = find_series(save(enhanced(kind, **pet | units | more), tmp_path))
    with pytest.raises(InputError, check=expected):
        read_volume(series)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"NumberOfFrames": 3}, "CT: 1 of 1 slices has 4 functional groups for 3 frames"),
        ({"PerFrameFunctionalGroupsSequence": []}, "CT: 1 of 1 slices has 0 functional groups for 4 frames"),
        ({"shared": {"PixelMeasuresSequence": []}}, "CT: 4 of 4 slices have no Pixel Spacing"),
    ],
)
def test_survey_reports_frames_without_positions(tmp_path, more, reason):
    save(enhanced(**more), tmp_path)
    (problem,) = survey(tmp_path).problems
    assert isinstance(problem, Problem)
    assert problem.reason.startswith(reason)
