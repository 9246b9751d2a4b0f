import pytest
from pydicom.dataset import Dataset
from refusal import refusal

from medgan.data.dicom.suv import suv_factor as factor_of
from medgan.errors import InputError

pytestmark = pytest.mark.unit


def header(nuclide=None, **more):
    """A PET header in Bq/ml: 70 kg, 370 MBq of fluorine-18 at 09:00, scanned at 10:00."""
    dataset, injected = Dataset(), Dataset()
    values = {
        "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["DECY", "ATTN"], "PatientWeight": 70,
        "SeriesDate": "20200102", "SeriesTime": "100000.00", "AcquisitionDate": "20200102",
        "AcquisitionTime": "100000.00", **more,
    }  # fmt: skip
    dose = {"RadiopharmaceuticalStartTime": "090000.00", "RadionuclideTotalDose": 370e6, "RadionuclideHalfLife": 6586.2}
    for keyword, value in (dose | (nuclide or {})).items():
        setattr(injected, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = [injected]
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def suv_factor(headers):
    return factor_of(headers).factor


def with_private(dataset, group, creator, **elements):
    """Returns `dataset` with private elements, each named by VR and offset, such as DS00."""
    block = dataset.private_block(group, creator, create=True)
    for name, value in elements.items():
        block.add_new(int(name[2:], 16), name[:2], value)
    return dataset


# Worked by hand (QIBA): one hour of fluorine-18 leaves 370 MBq * 2^(-3600 / 6586.2) = 370 MBq * 0.684617 = 253.308 MBq;
# 70 kg * 1000 g/kg / 253.308e6 Bq = 2.76343e-4 g/ml per Bq/ml.
ONE_HOUR = 2.76343e-4


def test_suv_factor_of_siemens_counts_from_series_time():
    later = header(AcquisitionTime="100300.00")
    assert suv_factor([later, header()]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_suv_factor_of_late_ge_series_counts_from_private_scan_time():
    # the scan began at 10:00; the first bed is not in the export, so the earliest acquisition left is 10:30
    late = header(SeriesTime="150000", AcquisitionTime="103000")
    late = with_private(late, 0x0009, "GEMS_PETD_01", DT0D="20200102100000.00")
    assert suv_factor([late]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_suv_factor_ignores_private_scan_time_where_series_time_holds():
    original = with_private(header(), 0x0009, "GEMS_PETD_01", DT0D="20190101000000.00")
    assert suv_factor([original]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_suv_factor_of_late_series_counts_from_earliest_acquisition():
    late = [header(SeriesTime="150000", AcquisitionTime=time) for time in ("100600", "100000", "100300")]
    assert suv_factor(late) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_suv_factor_of_philips_counts_is_private_suv_factor():
    philips = with_private(header(Units="CNTS"), 0x7053, "Philips PET Private Group", DS00="0.000412", DS09="1.5")
    assert suv_factor([philips]) == pytest.approx(4.12e-4)


@pytest.mark.parametrize("elements", [{"DS00": "0", "DS09": "1.5"}, {"DS09": "1.5"}, {"UN09": b"1.5 "}])
def test_suv_factor_of_philips_counts_falls_back_to_activity_factor(elements):
    # 1.5 Bq/ml per count * 2.76343e-4 = 4.14515e-4
    philips = with_private(header(Units="CNTS"), 0x7053, "Philips PET Private Group", **elements)
    assert suv_factor([philips]) == pytest.approx(4.14515e-4, rel=1e-4)


def test_suv_factor_of_suv_is_one():
    assert suv_factor([header(Units="GML")]) == 1
    assert suv_factor([header(Units="GML", SUVType="BW")]) == 1


def test_suv_factor_of_activity_at_administration_ignores_decay():
    assert suv_factor([header(DecayCorrection="ADMIN")]) == pytest.approx(70000 / 370e6)


def test_suv_factor_takes_injection_before_midnight_from_day_before():
    night = header({"RadiopharmaceuticalStartTime": "233000"}, SeriesTime="003000", AcquisitionTime="003000")
    assert suv_factor([night]) == pytest.approx(ONE_HOUR, rel=1e-4)


@pytest.mark.parametrize(
    ("stamp", "zone"),
    [
        ("20200102090000.00", ""),
        ("20200102090000.00", "+0100"),
        ("20200102090000+0100", ""),
        ("20200102090000+0100", "+0100"),
        ("20200102080000.00+0000", "+0100"),
        ("20200101233000.5-0830", "+0100"),
        ("202001020900", ""),
    ],
)
def test_suv_factor_takes_dated_injection_in_time_zone_of_scanner(stamp, zone):
    one = header({"RadiopharmaceuticalStartDateTime": stamp}, TimezoneOffsetFromUTC=zone)
    assert suv_factor([one]) == pytest.approx(ONE_HOUR, rel=1e-4)


@pytest.mark.parametrize(
    ("nuclide", "clock"),
    [
        ({"RadiopharmaceuticalStartTime": "000000"}, "000000"),
        ({"RadiopharmaceuticalStartTime": "000000.00"}, "000000"),
        ({"RadiopharmaceuticalStartTime": "000000", "RadiopharmaceuticalStartDateTime": "20200101000000"}, "000000"),
        ({"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "19000101120000"}, "120000"),
    ],
)
def test_suv_factor_refuses_clocks_that_are_all_the_same(nuclide, clock):
    one = header(nuclide, SeriesTime=clock, AcquisitionTime=f"{clock}.000", StudyTime=clock)
    with pytest.raises(InputError, check=refusal("E-SUV-16")):
        suv_factor([one, one])


def test_suv_factor_refuses_start_times_that_contradict_each_other():
    stamp = {"RadiopharmaceuticalStartDateTime": "20200102080000"}
    with pytest.raises(InputError, check=refusal("E-SUV-17", minutes="60.0")):
        suv_factor([header(stamp)])


def test_suv_factor_takes_start_time_where_the_zone_of_the_scan_is_not_known():
    found = factor_of([header({"RadiopharmaceuticalStartDateTime": "20200102070000+0000"})])
    assert found.factor == pytest.approx(ONE_HOUR, rel=1e-4)
    assert "Radiopharmaceutical Start Time was used" in found.notes[0]


def test_suv_factor_tells_that_the_day_of_a_long_lived_nuclide_is_not_known():
    copper = {"RadionuclideHalfLife": 45721, "RadionuclideTotalDose": 2e8}
    assert "within a day before the scan" in factor_of([header(copper)]).notes[0]


def test_suv_factor_of_enhanced_image_counts_from_decay_correction_time():
    one = header(DecayCorrected="YES", DecayCorrectionDateTime="20200102100000", SeriesTime="150000")
    assert suv_factor([one]) == pytest.approx(ONE_HOUR, rel=1e-4)


MARKER = "Zyxquist^Marijke"


@pytest.mark.filterwarnings("ignore:.*for VR CS")
@pytest.mark.parametrize("text", [MARKER, "QX 4815162", "x" * 17, "a\nb", "ö"])
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (lambda text: {"Units": text}, refusal("E-SUV-02", units="another text")),
        (lambda text: {"Units": "GML", "SUVType": text}, refusal("E-SUV-01", suv_type="another text")),
        (lambda text: {"CorrectedImage": ["DECY", text]}, refusal("E-SUV-04", names="DECY, another text")),
        (lambda text: {"CorrectedImage": text}, refusal("E-SUV-04", names="another text")),
        (lambda text: {"DecayCorrection": text}, refusal("E-SUV-06", correction="another text")),
    ],
)
def test_suv_factor_refusal_does_not_repeat_identifying_text(text, more, expected):
    with pytest.raises(InputError, check=expected) as caught:
        suv_factor([header(**more(text))])
    assert text not in str(caught.value)


@pytest.mark.parametrize("keyword", ["PatientWeight", "RadionuclideTotalDose", "RadionuclideHalfLife"])
@pytest.mark.parametrize("value", [MARKER, "-4815162", [48151, 62342]])
def test_suv_factor_refusal_does_not_repeat_invalid_number(keyword, value):
    one = header()
    (one if keyword in one else one.RadiopharmaceuticalInformationSequence[0])[keyword]._value = value
    with pytest.raises(InputError, check=refusal("E-SUV-10", keyword=keyword, value="another text")) as caught:
        suv_factor([one])
    assert str(value).strip("[]") not in str(caught.value)


@pytest.mark.parametrize(
    ("nuclide", "more", "expected"),
    [
        ({}, {"Units": "CNTS"}, refusal("E-SUV-03", suv="none", activity="none")),
        ({}, {"Units": "PROPCPS"}, refusal("E-SUV-02", units="PROPCPS")),
        ({}, {"Units": ""}, refusal("E-SUV-02", units="none")),
        ({}, {"Units": "GML", "SUVType": "LBM"}, refusal("E-SUV-01", suv_type="LBM")),
        ({}, {"Units": "GML", "SUVType": "BSA"}, refusal("E-SUV-01", suv_type="BSA")),
        ({}, {"Units": "GML", "SUVType": "IBW"}, refusal("E-SUV-01", suv_type="IBW")),
        ({}, {"PatientWeight": None}, refusal("E-SUV-10", keyword="PatientWeight", value="None")),
        ({}, {"PatientWeight": 0}, refusal("E-SUV-10", keyword="PatientWeight", value="0.0")),
        ({"RadionuclideTotalDose": None}, {}, refusal("E-SUV-10", keyword="RadionuclideTotalDose", value="None")),
        ({"RadionuclideHalfLife": None}, {}, refusal("E-SUV-10", keyword="RadionuclideHalfLife", value="None")),
        ({}, {"DecayCorrection": "NONE"}, refusal("E-SUV-06", correction="NONE")),
        ({}, {"DecayCorrection": ""}, refusal("E-SUV-06", correction="none")),
        ({}, {"RadiopharmaceuticalInformationSequence": []}, refusal("E-SUV-05")),
        ({"RadiopharmaceuticalStartTime": ""}, {}, refusal("E-SUV-09", name="Radiopharmaceutical Start Time")),
        ({"RadiopharmaceuticalStartDateTime": "2020", "RadiopharmaceuticalStartTime": None}, {},
         refusal("E-SUV-08", name="Radiopharmaceutical Start DateTime")),
        ({"RadiopharmaceuticalStartDateTime": "20191224090000", "RadiopharmaceuticalStartTime": None}, {},
         refusal("E-SUV-07", nuclide="F-18", hours="217.0")),
        ({}, {"SeriesTime": "", "AcquisitionTime": ""}, refusal("E-SUV-09", name="SeriesTime")),
        ({}, {"DecayCorrected": "YES"}, refusal("E-SUV-08", name="Decay Correction DateTime")),
        ({}, {"CorrectedImage": ["DECY", "SCAT"]}, refusal("E-SUV-04", names="DECY, SCAT")),
    ],
)  # fmt: skip
def test_suv_factor_refuses_missing_or_unusable_value(nuclide, more, expected):
    with pytest.raises(InputError, check=expected):
        suv_factor([header(nuclide, **more)])
