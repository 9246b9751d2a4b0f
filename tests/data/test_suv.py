import pytest
from pydicom.dataset import Dataset
from refusal import refusal

from medgan.data.dicom.suv import suv_factor
from medgan.errors import InputError


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


def with_private(dataset, group, creator, **elements):
    """`dataset` with private elements; named by their VR and offset, such as DS00."""
    block = dataset.private_block(group, creator, create=True)
    for name, value in elements.items():
        block.add_new(int(name[2:], 16), name[:2], value)
    return dataset


# Worked by hand (QIBA): one hour of fluorine-18 leaves 370 MBq * 2^(-3600 / 6586.2) = 370 MBq * 0.684617 = 253.308 MBq;
# 70 kg * 1000 g/kg / 253.308e6 Bq = 2.76343e-4 g/ml per Bq/ml.
ONE_HOUR = 2.76343e-4


def test_siemens_counts_from_the_series_time_that_is_the_first_acquisition():
    later = header(AcquisitionTime="100300.00")
    assert suv_factor([later, header()]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_ge_counts_from_its_private_scan_time_where_the_series_was_made_later():
    # the earliest acquisition left is 10:30, as where the first bed is not in the export; the scan began at 10:00
    late = header(SeriesTime="150000", AcquisitionTime="103000")
    late = with_private(late, 0x0009, "GEMS_PETD_01", DT0D="20200102100000.00")
    assert suv_factor([late]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_ges_private_scan_time_is_not_asked_where_the_series_time_holds():
    original = with_private(header(), 0x0009, "GEMS_PETD_01", DT0D="20190101000000.00")
    assert suv_factor([original]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_a_series_made_later_without_a_private_time_counts_from_its_earliest_acquisition():
    late = [header(SeriesTime="150000", AcquisitionTime=time) for time in ("100600", "100000", "100300")]
    assert suv_factor(late) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_philips_counts_are_multiplied_by_its_suv_factor():
    philips = with_private(header(Units="CNTS"), 0x7053, "Philips PET Private Group", DS00="0.000412", DS09="1.5")
    assert suv_factor([philips]) == pytest.approx(4.12e-4)


@pytest.mark.parametrize("elements", [{"DS00": "0", "DS09": "1.5"}, {"DS09": "1.5"}, {"UN09": b"1.5 "}])
def test_philips_counts_without_suv_factor_become_activity_first(elements):
    # 1.5 Bq/ml per count * 2.76343e-4 = 4.14515e-4
    philips = with_private(header(Units="CNTS"), 0x7053, "Philips PET Private Group", **elements)
    assert suv_factor([philips]) == pytest.approx(4.14515e-4, rel=1e-4)


def test_suv_is_taken_as_it_is():
    assert suv_factor([header(Units="GML")]) == 1
    assert suv_factor([header(Units="GML", SUVType="BW")]) == 1


def test_activity_corrected_to_administration_does_not_decay():
    assert suv_factor([header(DecayCorrection="ADMIN")]) == pytest.approx(70000 / 370e6)


def test_an_injection_before_midnight_is_taken_from_the_day_before():
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
def test_an_injection_with_a_date_is_taken_in_the_scanners_time_zone(stamp, zone):
    one = header({"RadiopharmaceuticalStartDateTime": stamp}, TimezoneOffsetFromUTC=zone)
    assert suv_factor([one]) == pytest.approx(ONE_HOUR, rel=1e-4)


def test_an_enhanced_image_counts_from_its_decay_correction_time():
    one = header(DecayCorrected="YES", DecayCorrectionDateTime="20200102100000", SeriesTime="150000")
    assert suv_factor([one]) == pytest.approx(ONE_HOUR, rel=1e-4)


MARKER = "Zyxquist^Marijke"


@pytest.mark.filterwarnings("ignore:.*for VR CS")
@pytest.mark.parametrize("text", [MARKER, "QX 4815162", "x" * 17, "a\nb", "ö"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (lambda text: {"Units": text}, refusal("E-SUV-02", units="another text")),
        (lambda text: {"Units": "GML", "SUVType": text}, refusal("E-SUV-01", suv_type="another text")),
        (lambda text: {"CorrectedImage": ["DECY", text]}, refusal("E-SUV-04", names="DECY, another text")),
        (lambda text: {"CorrectedImage": text}, refusal("E-SUV-04", names="another text")),
        (lambda text: {"DecayCorrection": text}, refusal("E-SUV-06", correction="another text")),
    ],
)
def test_text_that_could_name_somebody_is_not_repeated(text, more, message):
    with pytest.raises(InputError, check=message):
        suv_factor([header(**more(text))])


@pytest.mark.parametrize("keyword", ["PatientWeight", "RadionuclideTotalDose", "RadionuclideHalfLife"])
@pytest.mark.parametrize("value", [MARKER, "-4815162", [48151, 62342]])
def test_a_number_that_is_none_is_not_repeated(keyword, value):
    one = header()
    (one if keyword in one else one.RadiopharmaceuticalInformationSequence[0])[keyword]._value = value
    with pytest.raises(InputError, check=refusal("E-SUV-10", value="another text")):
        suv_factor([one])


@pytest.mark.parametrize(
    ("nuclide", "more", "message"),
    [
        ({}, {"Units": "CNTS"}, refusal("E-SUV-03")),
        ({}, {"Units": "PROPCPS"}, refusal("E-SUV-02", units="PROPCPS")),
        ({}, {"Units": ""}, refusal("E-SUV-02", units="none")),
        ({}, {"Units": "GML", "SUVType": "LBM"}, refusal("E-SUV-01", suv_type="LBM")),
        ({}, {"Units": "GML", "SUVType": "BSA"}, refusal("E-SUV-01", suv_type="BSA")),
        ({}, {"Units": "GML", "SUVType": "IBW"}, refusal("E-SUV-01", suv_type="IBW")),
        ({}, {"PatientWeight": None}, refusal("E-SUV-10", keyword="PatientWeight", value="None")),
        ({}, {"PatientWeight": 0}, refusal("E-SUV-10", keyword="PatientWeight")),
        ({"RadionuclideTotalDose": None}, {}, refusal("E-SUV-10", keyword="RadionuclideTotalDose", value="None")),
        ({"RadionuclideHalfLife": None}, {}, refusal("E-SUV-10", keyword="RadionuclideHalfLife", value="None")),
        ({}, {"DecayCorrection": "NONE"}, refusal("E-SUV-06", correction="NONE")),
        ({}, {"DecayCorrection": ""}, refusal("E-SUV-06", correction="none")),
        ({}, {"RadiopharmaceuticalInformationSequence": []}, refusal("E-SUV-05")),
        ({"RadiopharmaceuticalStartTime": ""}, {}, refusal("E-SUV-09", name="Radiopharmaceutical Start Time")),
        ({"RadiopharmaceuticalStartDateTime": "2020"}, {}, refusal("E-SUV-08", name="Radiopharmaceutical Start DateTime")),
        ({"RadiopharmaceuticalStartDateTime": "20191224090000"}, {}, refusal("E-SUV-07", elapsed_s="217.0")),
        ({}, {"SeriesTime": ""}, refusal("E-SUV-09", name="SeriesTime")),
        ({}, {"DecayCorrected": "YES"}, refusal("E-SUV-08", name="Decay Correction DateTime")),
        ({}, {"CorrectedImage": ["DECY", "SCAT"]}, refusal("E-SUV-04", names="DECY, SCAT")),
    ],
)  # fmt: skip
def test_a_missing_value_is_named(nuclide, more, message):
    with pytest.raises(InputError, check=message):
        suv_factor([header(nuclide, **more)])
