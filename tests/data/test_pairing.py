import pytest
from refusal import refusal

from medgan.data.plausibility import Bounds
from medgan.data.prepare.identity import EMPTY, resolve_patients
from medgan.data.prepare.pairing import Choice, overlap_mm, pair
from medgan.data.prepare.patients import find
from medgan.data.reader import find_series, survey
from medgan.data.series import SYNTHETIC_LABEL
from medgan.errors import InputError
from medgan.tasks import TASKS

pytestmark = pytest.mark.unit

TASK = TASKS["pet2ct"]


def stack(first, num):
    return [(0.0, 0.0, first + 3.0 * index) for index in range(num)]


def test_pair_joins_source_and_target_of_each_patient(make_series, tmp_path):
    for patient in ("P1", "P2"):
        make_series(tmp_path / patient / "a", patient=patient)
        make_series(tmp_path / patient / "b", patient=patient, modality="PT")
    pairs, problems = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert [(one.source.modality, one.target.modality, one.target.patient_id) for one in pairs] == [
        ("PT", "CT", "P1"),
        ("PT", "CT", "P2"),
    ]
    assert not problems
    assert overlap_mm(pairs[0].source, pairs[0].target) == pytest.approx(9)


def test_pair_takes_largest_overlap_and_notes_choice(make_series, tmp_path):
    make_series(tmp_path / "pet", modality="PT", positions=stack(0, 10))
    make_series(tmp_path / "far", positions=stack(21, 10))
    make_series(tmp_path / "near", positions=stack(3, 9))
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert len(one.target.files) == 9
    assert one.note == "took 1 of 2 possible pairs in 1 study: 10 PT and 9 CT slices that overlap by 24 mm"


@pytest.mark.parametrize("mark", [{"SyntheticData": "YES"}, {"SeriesDescription": f"{SYNTHETIC_LABEL} (CT by medgan)"}])
def test_find_passes_over_synthetic_images(make_series, tmp_path, mark):
    make_series(tmp_path / "pet", modality="PT", positions=stack(0, 10))
    make_series(tmp_path / "real", positions=stack(0, 9))
    make_series(tmp_path / "made", positions=stack(0, 10), **mark)
    found = find(survey(tmp_path), tmp_path, TASK, b"key", Choice(), Bounds(field_mm=(1, 1000)))
    assert [len(one.target.files) for one in found.pairs.values()] == [9]
    assert found.passed_over == {"synthetic image": 10}


def test_find_refuses_patients_with_synthetic_targets_alone(make_series, tmp_path):
    make_series(tmp_path / "pet", modality="PT")
    make_series(tmp_path / "made", SyntheticData="YES")
    besides = " Passed over: 4 files: 4 synthetic image."
    with pytest.raises(InputError, check=refusal("E-PAIR-01", found="0 CT and 1 PT", besides=besides)):
        find(survey(tmp_path), tmp_path, TASK, b"key", Choice(), Bounds(field_mm=(1, 1000)))


def test_pair_prefers_attenuation_corrected_pet(make_series, tmp_path):
    make_series(tmp_path / "ct")
    make_series(tmp_path / "nac", modality="PT", CorrectedImage=["DECY"], num=5)
    make_series(tmp_path / "ac", modality="PT", CorrectedImage=["DECY", "ATTN"])
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert one.source.attenuation_corrected


def test_pair_takes_study_with_larger_overlap(make_series, tmp_path):
    for study, num in (("1.2.3", 4), ("1.2.4", 7)):
        make_series(tmp_path / study / "ct", study=study, num=num)
        make_series(tmp_path / study / "pt", study=study, num=num, modality="PT")
    (one,), _ = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert one.target.study_uid == one.source.study_uid == "1.2.4"
    assert "in 2 studies" in one.note


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"frame": "1.2.10"},
            "no PT and CT share a frame of reference (theirs differ); `medgan prepare --set frames=any`",
        ),
        ({"frame": ""}, "no PT and CT share a frame of reference (it is missing in some)"),
        ({"frame": "1.2.10", "study": "1.2.10"}, "no PT and CT share a frame of reference (theirs differ)"),
        ({"positions": stack(50, 3)}, "the bodies do not meet: the images do not overlap along the slice normal"),
        ({"patient": "P0"}, "expected PT and CT; got only"),
    ],
)
def test_pair_reports_reason_for_patient_without_pair(make_series, tmp_path, more, reason):
    make_series(tmp_path / "ct")
    make_series(tmp_path / "pt", modality="PT", **more)
    pairs, problems = pair(find_series(tmp_path), TASK, root=tmp_path)
    assert not pairs
    assert reason in problems[0].reason


def test_pair_reports_series_without_patient_id(make_series, tmp_path):
    make_series(tmp_path / "ct", patient="")
    make_series(tmp_path / "pt", patient="", modality="PT")
    series, problems = resolve_patients(find_series(tmp_path))
    assert (series, [one.reason for one in problems]) == ([], [EMPTY] * 2)


def test_pair_refuses_series_of_one_modality_alone(make_series, tmp_path):
    with pytest.raises(InputError, check=refusal("E-PAIR-01", expected="PT and CT", found="1 CT and 0 PT")):
        pair(find_series(make_series(tmp_path)), TASK, root=tmp_path)


def test_pair_of_simulated_task_takes_longest_target_alone(make_series, tmp_path):
    make_series(tmp_path / "t1", modality="MR", num=4)
    make_series(tmp_path / "t2", modality="MR", num=6)
    (one,), problems = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert (one.source, len(one.target.files), problems) == (None, 6, [])
    assert one.note == "took the longest of 2 MR series; target_match=TEXT takes others"


def test_pair_tells_sources_from_targets_by_text_in_path(make_series, tmp_path):
    make_series(tmp_path / "dicom" / "moved", modality="MR")
    make_series(tmp_path / "dicom" / "still", modality="MR")
    series = find_series(tmp_path)
    (one,), _ = pair(series, TASKS["mr_motion"], root=tmp_path, choice=Choice("moved", "still"))
    assert ("moved" in str(one.source.files[0]), "still" in str(one.target.files[0])) == (True, True)
    expected = "MR ('T9' in its path) and MR ('still' in its path)"
    with pytest.raises(InputError, check=refusal("E-PAIR-01", expected=expected)):
        pair(series, TASKS["mr_motion"], root=tmp_path, choice=Choice("T9", "still"))
    with pytest.raises(InputError, check=refusal("E-PAIR-01", expected="PT", found="0 PT")):
        pair(series, TASKS["pet_denoise"], root=tmp_path)


def test_pair_prefers_regular_stack_over_series_of_phases(make_series, tmp_path):
    make_series(tmp_path / "phases", modality="MR", positions=stack(0, 4) * 2)
    make_series(tmp_path / "plain", modality="MR", num=4)
    (one,), _ = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert len(one.target.files) == 4


def test_pair_reports_patient_without_modality(make_series, tmp_path):
    make_series(tmp_path / "mr", modality="MR")
    make_series(tmp_path / "ct", patient="P2")
    pairs, problems = pair(find_series(tmp_path), TASKS["mr_motion"], root=tmp_path)
    assert len(pairs) == 1
    assert [one.reason for one in problems] == ["expected MR; got only CT"]
