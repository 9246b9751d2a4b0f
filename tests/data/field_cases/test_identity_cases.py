"""Who is who: empty, shared and re-issued Patient IDs, after public bug reports."""

import pytest
from field_patients import hashed, patient, prepared, save
from pydicom.uid import generate_uid

from medgan.data.manifest import read_manifest
from medgan.data.prepare.identity import EMPTY, ISSUED, NO_ISSUER, PLACEHOLDER, TWO_IDS, TWO_PERSONS
from medgan.errors import InputError


def write(folder, name, identity, *, seed=0, **values):
    """Writes one patient's series with an ID and other attributes."""
    ct, pt = patient(identity, seed=seed)
    for one in ct + pt:
        for keyword, value in values.items():
            setattr(one, keyword, value)
    save(ct, folder / name / "CT")
    save(pt, folder / name / "PT")
    return ct, pt


def good(folder):
    write(folder, "good", "GOOD")


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ([("", {}), ("", {})], EMPTY),
        ([("ANONYMOUS", {}), ("ANONYMOUS", {})], PLACEHOLDER.format(num=2)),
        ([("0000", {}), ("0000", {})], PLACEHOLDER.format(num=2)),
        ([("7", {"PatientBirthDate": "19500101"}), ("7", {"PatientBirthDate": "19600101"})],
         TWO_PERSONS.format(num=2, name="Patient's Birth Date")),
        ([("7", {"PatientSex": "M"}), ("7", {"PatientSex": "F"})], TWO_PERSONS.format(num=2, name="Patient's Sex")),
        ([("7", {"IssuerOfPatientID": "A"}), ("7", {"IssuerOfPatientID": "B"}), ("7", {})], NO_ISSUER),
    ],
)  # fmt: skip
def test_unclear_patient_is_set_aside(tmp_path, odd, reason):
    folder = tmp_path / "images"
    good(folder)
    for number, (identity, values) in enumerate(odd):
        write(folder, str(number), identity, seed=number, **values)
    _, outcomes = prepared(folder)
    assert outcomes[hashed(folder, odd[0][0])].reason == reason
    assert outcomes[hashed(folder, "GOOD")].reason == ""


@pytest.mark.parametrize("identity", ["ANONYMOUS", "P1"])
def test_one_study_of_any_id_is_one_patient(tmp_path, identity):
    write(tmp_path / "images", "one", identity)
    _, outcomes = prepared(tmp_path / "images")
    assert outcomes[hashed(tmp_path / "images", identity)].reason == ""


def test_examination_under_two_ids_is_named_as_that(tmp_path):
    folder = tmp_path / "images"
    good(folder)
    ct, pt = patient("P1")
    for one in pt:
        one.PatientID = "EXT1"
    save(ct, folder / "CT")
    save(pt, folder / "PT")
    _, outcomes = prepared(folder)
    assert [outcomes[hashed(folder, name)].reason for name in ("P1", "EXT1")] == [TWO_IDS.format(num=2)] * 2


def test_issuers_tell_patients_apart_and_hashes_without_issuer_are_kept(tmp_path):
    folder = tmp_path / "images"
    write(folder, "a", "7", IssuerOfPatientID="A")
    write(folder, "b", "7", seed=1, IssuerOfPatientID="B")
    write(folder, "c", "8", seed=2)
    manifest, _ = prepared(folder)
    found = {one.hash: one.hash_without_issuer for one in manifest.patients}
    plain = hashed(folder, "7")
    assert found == {
        hashed(folder, f"7{ISSUED}A"): plain, hashed(folder, f"7{ISSUED}B"): plain, hashed(folder, "8"): "",
    }  # fmt: skip


def test_series_without_issuer_is_of_the_only_issuer(tmp_path):
    folder = tmp_path / "images"
    ct, pt = patient("7")
    for one in ct:
        one.IssuerOfPatientID = "A"
    save(ct, folder / "CT")
    save(pt, folder / "PT")
    _, outcomes = prepared(folder)
    assert outcomes[hashed(folder, f"7{ISSUED}A")].reason == ""


def test_broken_series_of_a_patient_with_issuer_is_no_other_patient(tmp_path):
    folder = tmp_path / "images"
    ct, pt = write(folder, "a", "7", IssuerOfPatientID="A")
    for one in ct:
        one.SeriesInstanceUID, one.PixelSpacing = "1.2.3", None
    save(ct, folder / "broken")
    _, outcomes = prepared(folder)
    (found,) = outcomes.values()
    assert found.reason == "" and "not used: CT: 10 of 10 slices have no Pixel Spacing" in found.notes


def test_patient_keeps_role_that_was_drawn_before_the_id_had_an_issuer(tmp_path):
    folder = tmp_path / "images"
    for number in range(4):
        write(folder, str(number), f"P{number}", seed=number)
    before, _ = prepared(folder)
    role = next(one.role for one in before.patients if one.hash == hashed(folder, "P1"))
    write(folder, "1", "P1", seed=1, IssuerOfPatientID="A")
    after, _ = prepared(folder)
    assert next(one.role for one in after.patients if one.hash_without_issuer == hashed(folder, "P1")) == role


def test_reasons_of_a_side_that_is_wholly_unusable_are_told(tmp_path):
    ct, pt = patient("P1")
    for one in ct:
        del one.ImagePositionPatient
    save(ct, tmp_path / "images" / "CT")
    save(pt, tmp_path / "images" / "PT")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path / "images")
    assert "found 0 CT and 1 PT. Not usable: 1 series: CT: 10 of 10 slices have no Image Position" in str(caught.value)


def test_no_identifier_is_in_reasons_notes_or_manifest(tmp_path):
    folder = tmp_path / "images"
    write(folder, "a", "ZYXQUIST-7", IssuerOfPatientID="WQKLINIK", PatientBirthDate="19500101")
    write(folder, "b", "ZYXQUIST-8", seed=1, StudyInstanceUID=generate_uid())
    prepared(folder)
    text = "".join(
        path.read_text(errors="ignore") for path in (tmp_path / "images prepared").rglob("*") if path.is_file()
    )
    assert not any(word in text for word in ("ZYXQUIST", "WQKLINIK", "19500101", "Doe^Jane"))
    assert read_manifest(next((tmp_path / "images prepared").glob("pet2ct*"))).mask_rule.startswith(
        "threshold; without"
    )
