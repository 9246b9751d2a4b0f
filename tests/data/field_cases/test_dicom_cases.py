"""Oddities of DICOM exports, after public bug reports: each ends with the right number or a true reason."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from field_patients import BQ_PER_SUV, DOSE_BQ, WEIGHT_KG, hashed, patient, prepared, save, slices
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

USED = ""


class Case(NamedTuple):
    """One odd patient: what is done to his CT and PET, and a part of the reason or of the notes."""

    name: str
    change: Callable[[list, list], Any]
    reason: str = USED
    note: str = ""
    settings: tuple[tuple[str, Any], ...] = ()


def every(modality, **values):
    """Sets attributes in every slice; functions get the slice and its number."""

    def change(ct, pt):
        for number, one in enumerate({"CT": ct, "PT": pt}[modality]):
            for keyword, value in values.items():
                setattr(one, keyword, value(one, number) if callable(value) else value)

    return change


def injection(**values):
    def change(_ct, pt):
        for one in pt:
            for keyword, value in values.items():
                setattr(one.RadiopharmaceuticalInformationSequence[0], keyword, value)

    return change


def both(*changes):
    def change(ct, pt):
        for one in changes:
            one(ct, pt)

    return change


def scaled_to(suv_per_bq):
    """Stores the PET as if one Bq/ml had this SUV."""

    def change(_ct, pt):
        for one in pt:
            one.RescaleSlope = f"{1 / (BQ_PER_SUV * suv_per_bq):.10g}"

    return change


AT_SCAN = scaled_to(WEIGHT_KG * 1000 / DOSE_BQ)  # no decay between injection and scan


def again(series, **values):
    """Returns copies of slices as other instances of the same series."""
    copies = copy.deepcopy(series)
    for number, one in enumerate(copies):
        one.SOPInstanceUID = generate_uid()
        for keyword, value in values.items():
            setattr(one, keyword, value(one, number) if callable(value) else value)
    return copies


def scout(ct, _pt):
    (one,) = again(ct[3:4], ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[-190, 0, 90])
    ct.append(one)


def contrast(one, _number):
    pixels = np.frombuffer(one.PixelData, "<i2").copy()
    pixels[(pixels > 964) & (pixels < 1364)] += 200
    return pixels.tobytes()


def half_a_step_up(one, _number):
    x, y, z = map(float, one.ImagePositionPatient)
    return [x, y, z + 5]


def interleaved(ct, _pt):
    every("CT", AcquisitionNumber=1)(ct, [])
    ct += again(ct, AcquisitionNumber=2, ImagePositionPatient=half_a_step_up, PixelData=contrast)


def two_kernels(ct, _pt):
    every("CT", ConvolutionKernel="B30f")(ct, [])
    ct += again(ct, ConvolutionKernel="B70f", PixelData=contrast)


def beds(_ct, pt):
    pt += again(pt[3:5], AcquisitionTime="100300")


def time_points(_ct, pt):
    for minute in (1, 2):
        pt += again(pt[: len(pt) // minute], FrameReferenceTime=60000 * minute, AcquisitionTime=f"100{minute}00")


def beside(one, _number):
    x, y, z = map(float, one.ImagePositionPatient)
    return [x + 330, y, z]


def rounded(one, _number):
    return [round(float(value) + 0.04, 1) for value in one.ImagePositionPatient]


def padded(value, *, unsigned=False, intercept=None):
    """Writes a padding value outside of the scanner's circle."""

    def change(ct, _pt):
        for one in ct:
            pixels = np.frombuffer(one.PixelData, "<i2").reshape(48, 48).astype(np.int32)
            pixels += 0 if intercept is None else -1024 - intercept
            y, x = np.mgrid[:48, :48] - 23.5
            pixels[x**2 + y**2 > 23.5**2] = value
            one.PixelData = pixels.astype("<u2" if unsigned else "<i2").tobytes()
            one.RescaleIntercept = -1024 if intercept is None else intercept
            one.PixelRepresentation = int(not unsigned)
            one.add_new("PixelPaddingValue", "US" if unsigned else "SS", value)

    return change


def two_injections(_ct, pt):
    for one in pt:
        first = Dataset()
        first.RadiopharmaceuticalStartTime, first.RadionuclideTotalDose = "033000", 2e8
        first.RadionuclideHalfLife = 4062.6
        one.RadiopharmaceuticalInformationSequence = [first, *one.RadiopharmaceuticalInformationSequence]


def without_creator(_ct, pt):
    for one in pt:
        one.Units, one.Manufacturer, one.RescaleSlope = "CNTS", "Philips Medical Systems", 1
        one.add_new(0x70531000, "DS", f"{1 / BQ_PER_SUV:.10g}")


def zirconium(**more):
    wait, half = 4 * 86400 + 3600, 282240.0
    suv_per_bq = WEIGHT_KG * 1000 / (7e7 * 2 ** (-wait / half))
    return both(scaled_to(suv_per_bq), injection(RadionuclideHalfLife=half, RadionuclideTotalDose=7e7, **more))


def no_dates(ct, pt):
    for one in ct + pt:
        one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = ""


def zeroed(_ct, pt):
    every("PT", StudyTime="000000", SeriesTime="000000", AcquisitionTime="000000", ContentTime="000000")([], pt)
    injection(RadiopharmaceuticalStartTime="000000")([], pt)


def uid_of_each(keyword):
    uid = generate_uid()
    return every("PT", **{keyword: uid})


NO_DATE_TIME = "DateTime is not usable"
ANY, RESAMPLE = (("frames", "any"),), (("irregular", "resample"),)
TILT = [0.965926, -0.258819]  # 15 degrees
CASES = [
    Case("good", lambda ct, pt: None),
    Case("weight in grams", every("PT", PatientWeight=70000), "PatientWeight of 1 to 300 kg; got 70000; perhaps"),
    Case("dose in kBq", injection(RadionuclideTotalDose=350000), "perhaps it is in kBq"),
    Case("dose in MBq", injection(RadionuclideTotalDose=350), "perhaps it is in MBq"),
    Case("half-life in minutes", injection(RadionuclideHalfLife=109.8), "perhaps it is in minutes (F-18)"),
    Case("a.m. for p.m.", injection(RadiopharmaceuticalStartTime="210000"), "got 13.0 hours"),
    Case("all clocks zeroed", zeroed, "all are the same, as after a de-identification"),
    Case("injected after the start", both(AT_SCAN, injection(RadiopharmaceuticalStartTime="100030")),
         note="injected 30 s after the scan's start"),
    Case("two injections", two_injections, note="1 of 2 injections is plausible"),
    Case("zirconium, dated", zirconium(RadiopharmaceuticalStartDateTime="20191228090000")),
    Case("zirconium, time only", zirconium(), "DateTime with the day of the injection, which Zr-89 needs"),
    Case("DateTime not shifted", injection(RadiopharmaceuticalStartDateTime="20230504090000"), note=NO_DATE_TIME),
    Case("DateTime cut to its date", injection(RadiopharmaceuticalStartDateTime="20200101"), note=NO_DATE_TIME),
    Case("no dates", no_dates),
    Case("no series time", every("PT", SeriesTime="", SeriesDate=""), note="earliest Acquisition Time was used"),
    Case("made anew from the last bed", every("PT", SeriesTime="140000", AcquisitionTime="101800",
                                              FrameReferenceTime=1169715.9), note="computed from Frame Reference Time"),
    Case("private creator removed", without_creator, note="(7053,1000) was used although its private creator"),
    Case("no decay correction", every("PT", DecayCorrection="NONE"), "Decay Correction START or ADMIN; got NONE"),
    Case("lean body mass", every("PT", Units="GML", SUVType="LBM"), "SUV Type BW (body weight); got LBM"),
    Case("values of another unit", every("PT", Units="GML"), "Made of: Units GML, Rescale Slope 1"),
    Case("Rescale Type of a material", every("CT", RescaleType="MGML"), "Rescale Type HU; slice 0 has MGML"),
    Case("padding of 0 HU", padded(0, intercept=0)),
    Case("padding of 65535", padded(65535, unsigned=True)),
    Case("padding of -3024 HU", padded(-2000)),
    Case("a scout in the series", scout, note="1 scout slices of the series left out"),
    Case("identical twice", lambda ct, pt: ct.extend(again(ct)), note="10 identical slices used once"),
    Case("two kernels", two_kernels, note="1 of 2 kernels in one series"),
    Case("interleaved acquisitions", interleaved, note="1 of 2 acquisitions in one series"),
    Case("overlapping beds", beds, note="2 slices of overlapping beds left out"),
    Case("time points", time_points, "PT: 3 slices have the same position"),
    Case("rounded positions", every("CT", ImagePositionPatient=rounded)),
    Case("two studies", uid_of_each("StudyInstanceUID"), note="paired across two studies of one frame of reference"),
    Case("no table offset", every("PT", ImagePositionPatient=beside), "the bodies do not meet"),
    Case("two frames", uid_of_each("FrameOfReferenceUID"), "share a frame of reference (theirs differ)"),
    Case("two frames, allowed", uid_of_each("FrameOfReferenceUID"), note="(frames=any)", settings=ANY),
    Case("no frame, allowed", both(every("PT", FrameOfReferenceUID=""), every("CT", FrameOfReferenceUID="")),
         note="(frames=any)", settings=ANY),
    Case("a missing slice", lambda ct, pt: ct.pop(4), "a slice seems to be missing"),
    Case("a missing slice, resampled", lambda ct, pt: ct.pop(4), note="resampled to 10 regular", settings=RESAMPLE),
    Case("a tilted gantry", every("CT", ImageOrientationPatient=[1, 0, 0, 0, *TILT]), "shifted in-plane by 2.59 mm"),
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every case: all that share their settings are prepared at once."""
    found = {}
    for number, settings in enumerate(dict.fromkeys(case.settings for case in CASES)):
        folder = tmp_path_factory.mktemp("cases") / f"images {number}"
        mine = [case for case in CASES if case.settings == settings]
        for case in mine:
            ct, pt = patient(case.name)
            case.change(ct, pt)
            save(ct, folder / case.name / "CT")
            save(pt, folder / case.name / "PT")
        _, by_hash = prepared(folder, size=48, **dict(settings))
        found |= {case.name: by_hash[hashed(folder, case.name)] for case in mine}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_ends_with_right_number_or_true_reason(outcomes, case):
    found = outcomes[case.name]
    if case.reason:
        assert case.reason in found.reason
        return
    good = outcomes["good"]
    assert (found.reason, case.note in found.notes) == ("", True), found.reason or found.notes
    assert (found.suv, found.hu) == pytest.approx((good.suv, good.hu), rel=0.01, abs=1)
    assert found.slices == 10
    assert np.abs(found.source - good.source).mean() < 0.02
    assert np.abs(found.target - good.target).mean() < 1 + 40 * ("resampled" in found.notes)


def test_soft_kernel_and_axial_slices_are_preferred_and_reformats_and_projections_are_not(tmp_path):
    folder = tmp_path / "images"
    ct, pt = patient("P1", num=20, step_mm=5.0)
    lung = again(ct, SeriesInstanceUID=generate_uid(), ConvolutionKernel="B70f", PixelData=contrast)
    mip = again(ct, SeriesInstanceUID=generate_uid(), ImageType=["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"])
    coronal = [copy.deepcopy(ct[0]) for _ in range(60)]
    coronal = again(coronal, SeriesInstanceUID=generate_uid(), ImageType=["DERIVED", "SECONDARY", "REFORMATTED"],
                    ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
                    ImagePositionPatient=lambda one, number: [-188, -180 + 6 * number, 100])  # fmt: skip
    for number, series in enumerate((ct, lung, mip, coronal, pt)):
        save(series, folder / str(number))
    manifest, outcomes = prepared(folder, size=48)
    (found,) = outcomes.values()
    assert (found.slices, round(found.hu), manifest.axis) == (20, 40, "axial")
    assert manifest.passed_over == {"projection": 20}
    assert "took 1 of " in found.notes


def test_phase_images_are_no_part_of_a_magnitude_series(tmp_path):
    study, frame = generate_uid(), generate_uid()
    series = slices("MR", "P1", study, frame)
    for one in series[2:4]:
        one.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]
    save(series, tmp_path / "images")
    with pytest.raises(Exception, match=r"2 slices seem to be missing[\s\S]*2 MR phase image"):
        prepared(tmp_path / "images", task="mr_motion")
